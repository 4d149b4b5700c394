"""The media type of an image by its first bytes, for the formats that `encoders.images` decodes.

No decoder looks at it: what serves a file need not open it.
"""

import re

UNKNOWN = "application/octet-stream"  # which a browser stores, and never runs
_HEADS = (
    (re.compile(rb"\xff\xd8\xff"), "image/jpeg"),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "image/png"),
    (re.compile(rb"GIF8[79]a"), "image/gif"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "image/webp"),
    (re.compile(rb"BM"), "image/bmp"),
    (re.compile(rb"II\*\x00|MM\x00\*|II\+\x00|MM\x00\+"), "image/tiff"),
    (re.compile(rb"P[1-6][\s#]"), "image/x-portable-anymap"),
    (re.compile(rb"....ftyp(....){0,15}?avi[fs]", re.DOTALL), "image/avif"),
    (re.compile(rb"\x00\x00\x00\x0cjP {2}\r\n\x87\n|\xffO\xffQ"), "image/jp2"),
)


def media_type_of(data: bytes) -> str:
    """What to call an image; a phone's several images in one file are the JPEG they begin with."""
    return next((name for head, name in _HEADS if head.match(data)), UNKNOWN)
