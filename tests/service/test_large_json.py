"""JSON that is parsed in parts reads as it does in one, whatever stands in it, and is counted before."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic_core import from_json

from service.errors import TooLarge
from service.wire import large_json
from service.wire.large_json import Bounds, parse_large

ANY = Bounds(values=1_000_000, parts=1_000_000)
texts = st.text(st.sampled_from('ab"\\/,:[]{} \nä😀\u2028'), max_size=40) | st.text(max_size=20)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
SIGNS = [b",", b"]", b"}", b"[", b"{", b":", b'"', b"\\"]
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=12) | st.dictionaries(texts, inner, max_size=8),
    max_leaves=40,
)


@pytest.fixture(scope="module", autouse=True)
def small_parts():
    """So that a text of a hundred bytes is cut everywhere it can be."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(large_json, "PART_BYTES", 32)
        patch.setattr(large_json, "PART_MARKS", 6)
        patch.setattr(large_json, "SCANNED_BYTES", 16)
        yield


def parsed(parse: Any, data: bytes) -> Any:
    try:
        return parse(data)
    except ValueError:
        return ValueError


def in_parts(data: bytes) -> Any:
    return parse_large(data, bounds=ANY)


@settings(max_examples=200, deadline=None)
@given(value=values, ascii_only=st.booleans(), indent=st.sampled_from([None, 1, 9]))
def test_json_in_parts_reads_as_in_one(value, ascii_only, indent):
    data = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    assert in_parts(data) == from_json(data)


@settings(max_examples=300, deadline=None)
@given(value=values, data=st.data())
def test_spoiled_json_in_parts_is_refused_where_it_is_in_one(value, data):
    sound = json.dumps(value, ensure_ascii=data.draw(st.booleans())).encode()
    place = data.draw(st.integers(0, len(sound)))
    length = data.draw(st.integers(0, 3))
    put = data.draw(st.binary(max_size=2) | st.sampled_from([*SIGNS, b" " * 40]))
    spoiled = sound[:place] + put + sound[place + length :]
    assert repr(parsed(in_parts, spoiled)) == repr(parsed(from_json, spoiled))


@pytest.mark.parametrize(
    "data",
    [
        b"[" + b" " * 200 + b"]",
        b"{" + b" " * 200 + b"}",
        b" " * 200,
        b"[1,2]" + b" " * 200 + b"x",
        b"[1]" + b" " * 200 + b"[2]",
        b'"a"' + b" " * 200 + b'"b"',
        b"[" + b" " * 200 + b",1]",
        b"[1," + b" " * 200 + b"]",
        b'{"a"' + b" " * 200 + b"1}",
        b"{1:" + b" " * 200 + b"1}",
        b'{"a":1,' + b" " * 200 + b"}",
        b'{"a":' + b"[" * 300 + b"]" * 300 + b"}",
        b"[1" + b"0" * 200 + b"]",
        b"0." + b"1" * 200,
        b"1" * 5000,
        b'"' + b"\\\\ud83d" * 40 + b'"',
        b'"' + b"\\ud83d\\ude00" * 40 + b'"',
        b'"' + b"a\\ud83d\\ude00" * 40 + b'"',
        b'"' + b"\\ud83d" * 40 + b'"',
        b'"' + b"\\\\" * 99 + b'"',
        b'"' + b"\\\\" * 99 + b'\\"',
        b'"' + b"\x80" * 200 + b'"',
        b'"' + "😀".encode() * 60 + b'"',
        b'["' + b"a" * 200 + b'","' + b"b" * 200,
        b'{"k":1,"k":[' + b"1," * 100 + b'2],"k":3}',
        b'{"' + b"k" * 100 + b'":[' + b"1," * 100 + b"2]}",
    ],
)  # fmt: skip
def test_what_is_odd_reads_in_parts_as_in_one(data):
    assert parsed(in_parts, data) == parsed(from_json, data)


def test_no_more_than_a_part_is_parsed_at_once(monkeypatch):
    monkeypatch.setattr(large_json, "PART_BYTES", 4096)
    monkeypatch.setattr(large_json, "PART_MARKS", 500)
    lengths: list[int] = []

    def counted(part: bytes) -> Any:
        lengths.append(len(part))
        return from_json(part)

    monkeypatch.setattr(large_json, "from_json", counted)
    given = {
        "a": "x" * 100_000,
        "b": [["ä" * 9000], {"c": [0.5] * 30_000}],
        "d": [[]] * 9000,
        **dict.fromkeys("efgh"),
    }
    assert in_parts(json.dumps(given).encode()) == given
    assert max(lengths) <= 4096 + 2
    assert len(lengths) > 100


def test_only_what_stands_outside_strings_is_counted():
    text = 'a, [b], {c: "d"} \\ ' * 100
    assert parse_large(json.dumps([text, text]).encode(), bounds=Bounds(values=2, parts=1)) == [text, text]
    for body, values, parts in ((b"[1,2,3]", 2, 9), (b"[[],[]]", 9, 2), (b'{"a":1,"b":2}', 9, 2)):
        with pytest.raises(TooLarge, match=f"{parts} and {values} are taken"):
            parse_large(body, bounds=Bounds(values=values, parts=parts))
