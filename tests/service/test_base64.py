"""Images in base64: read in pieces as in one, in every form that callers send, and never more at once."""

import base64
import binascii
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.decoding import images
from service.decoding.images import image_bytes
from service.errors import InvalidField

# Fours, the last of which may want padding.
WHOLE = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}={0,2}|[A-Za-z0-9+/]{3}=?)?")


def in_one(text: str) -> bytes | None:
    compact = "".join(text.split()).replace("-", "+").replace("_", "/")
    if not WHOLE.fullmatch(compact):
        return None
    return base64.b64decode(compact + "=" * (-len(compact) % 4))


def in_pieces(text: str) -> bytes | None:
    try:
        return image_bytes(text)
    except InvalidField:
        return None


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=60), draw=st.data())
def test_base64_in_pieces_reads_as_in_one(data, draw):
    text = draw.draw(st.sampled_from([base64.b64encode, base64.urlsafe_b64encode]))(data).decode()
    if draw.draw(st.booleans()):
        text = text.rstrip("=")
    place = draw.draw(st.integers(0, len(text)))
    put = draw.draw(st.sampled_from(["", " ", "\r\n", "=", "==", "A", "!", "ä", "\x1c"]))
    text = text[:place] + put + text[place + draw.draw(st.integers(0, 2)) :]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "PIECE_CHARACTERS", draw.draw(st.integers(1, 9)))
        assert in_pieces(text) == in_one(text.replace("\x1c", "!"))
        assert in_pieces(f"data:image/png;base64,{text}") == in_one(text.replace("\x1c", "!"))


def test_no_more_than_a_piece_is_decoded_at_once(monkeypatch):
    lengths: list[int] = []
    decode = binascii.a2b_base64

    def counted(data: bytes, **options: Any) -> bytes:
        lengths.append(len(data))
        return decode(data, **options)

    monkeypatch.setattr(binascii, "a2b_base64", counted)
    data = bytes(range(256)) * 20_000
    assert image_bytes(base64.b64encode(data).decode()) == data
    assert max(lengths) <= images.PIECE_CHARACTERS + 4
