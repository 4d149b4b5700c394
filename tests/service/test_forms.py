"""Forms: parsed in memory, UTF-8 alone, bounded, and whole or not at all."""

import tempfile
from pathlib import Path

import pytest
from live_service import image_file

from service.wire.forms import MAX_FIELD_BYTES, MAX_FIELDS, parse_form

BOUNDARY = "boundary-1"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
CODED = "content-transfer-encoding: base64\r\n"


def part(name: str, content: bytes, *, file: bool = False, more: str = "") -> bytes:
    disposition = f'content-disposition: form-data; name="{name}"' + ('; filename="ü.png"' if file else "")
    return f"--{BOUNDARY}\r\n{disposition}\r\n{more}\r\n".encode() + content + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


@pytest.mark.parametrize("charset", ["latin-1", "no-such-charset", "utf-16", "idna", "us-ascii", ""])
def test_another_charset_than_utf8_is_415_and_never_looked_up(client, charset, monkeypatch):
    def looked_up(name: str) -> None:
        raise AssertionError(f"{name} was looked up")

    monkeypatch.setattr("codecs.lookup", looked_up)
    image = part("images", image_file(1), file=True)
    for path, body, kind in (
        ("/embed/text", b'{"texts": "a"}', f'application/json; charset="{charset}"'),
        ("/embed/image", b'{"images": "a"}', f"application/json; charset={charset}"),
        ("/embed/image", form(image), f"{FORM}; charset={charset}"),
        (
            "/embed/image",
            form(image, part("dimensions", b"8", more=f"content-type: text/plain; charset={charset}\r\n")),
            FORM,
        ),
        ("/embed/image", form(image, part("_charset_", charset.encode())), FORM),
        ("/embed/image", form(part("_charset_", charset.encode()), image), FORM),
    ):
        answer = client.post(path, content=body, headers={"content-type": kind})
        assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_media_type")
        assert "UTF-8" in answer.json()["error"]["message"]


@pytest.mark.parametrize("charset", ["utf-8", "UTF-8", "utf8", '"UTF8"', "'Utf-8'"])
def test_utf8_passes_however_it_is_written(client, charset):
    image = part("images", image_file(1), file=True)
    fields = part("dimensions", b"8", more=f"content-type: text/plain; charset={charset}\r\n")
    for path, body, kind in (
        ("/embed/text", b'{"texts": "a"}', f"application/json; charset={charset}"),
        ("/embed/text", b'{"texts": "a"}', f"application/json;charset={charset};x=y"),
        ("/embed/image", form(image, fields, part("_charset_", b"UTF-8")), f"{FORM}; charset={charset}"),
    ):
        assert client.post(path, content=body, headers={"content-type": kind}).status_code == 200


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (form(part("images", b"x", file=True))[:-6], 400, "invalid_form"),
        (part("images", b"x", file=True), 400, "invalid_form"),
        (b"", 400, "invalid_form"),
        (b"no form", 400, "invalid_form"),
        (form(part("images", b"x", file=True).replace(b'name="images"; ', b"")), 400, "invalid_form"),
        (form(part("images", b"x", file=True, more="a: b\r\n" * 20)), 400, "invalid_form"),
        (form(part("photos", b"x", file=True)), 422, "invalid_field"),
        (form(part("dimensions", b"8")), 422, "invalid_field"),
        (form(part("images", b"x", file=True), part("no such", b"8")), 422, "invalid_field"),
        (form(part("images", b"x", file=True), part("dimensions", b"\xff")), 422, "invalid_field"),
        (form(part("images", b"x", file=True), *[part("a", b"1")] * (MAX_FIELDS + 1)), 413, "too_large"),
        (form(part("images", b"x", file=True), part("a", b"1" * (MAX_FIELD_BYTES + 1))), 413, "too_large"),
        (form(*[part("images", b"x", file=True)] * 129), 413, "too_many_items"),
        (form(part("images", f"\r\n--{BOUNDARY}.".encode() * 2000, file=True)), 413, "too_large"),
        (form(part("images", b"eA==", file=True, more=CODED)), 415, "unsupported_media_type"),
    ],
    ids=[
        "cut", "without its end", "empty", "no form", "a part without a name", "a part of many headers",
        "a file of another name", "no file", "an unknown field", "a field that is no UTF-8", "many fields",
        "a large field", "many files", "many near-boundaries", "a file in base64",
    ],
)  # fmt: skip
def test_a_bad_form_is_told_what_is_wrong_with_it(client, body, status, code):
    answer = client.post("/embed/image", content=body, headers={"content-type": FORM})
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_a_form_reads_the_same_in_chunks_of_any_size():
    files = [image_file(1), b"\r\n--bound\r\n" * 50, b"", f"\r\n--{BOUNDARY[:-1]}".encode()]
    body = form(*(part("images", data, file=True) for data in files), part("title", "ä\r\nb".encode()))
    for size in (1, 7, 64, 1000, len(body)):
        chunks = (body[start : start + size] for start in range(0, len(body), size))
        found = parse_form(chunks, BOUNDARY.encode(), name="images", limit=9)
        assert found.files == files
        assert found.texts == {"title": "ä\r\nb"}


def test_a_temporary_folder_that_takes_nothing_changes_nothing(client, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(Path("/proc/nowhere")))
    large = image_file(1) + bytes(3 << 20)  # more than Starlette keeps in memory
    answer = client.post("/embed/image", files=[("images", large), ("images", image_file(2))])
    assert answer.status_code == 200
    assert all("embedding" in item for item in answer.json()["data"])
