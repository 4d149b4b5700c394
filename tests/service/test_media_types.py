"""Images are named without being opened."""

import io

import pytest
from hostile_files import box, noise, saved, sound
from PIL import Image

from service.decoding.media_types import UNKNOWN, media_type_of


@pytest.mark.parametrize("kind", sound())
def test_an_image_in_a_format_that_is_taken_has_pillows_name_for_it(kind):
    data = sound()[kind]
    with Image.open(io.BytesIO(data)) as image:
        assert media_type_of(data) == (
            image.get_format_mimetype() if kind != "ppm" else "image/x-portable-anymap"
        )


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8", b"<svg>", b"%!PS", b"RIFF\0\0\0\0WAVE", b"<html>\xff\xd8\xff"]
)
def test_anything_else_has_the_name_that_no_browser_runs(data):
    assert media_type_of(data) == UNKNOWN


def test_an_avif_whose_first_brand_is_the_containers_is_one_and_a_phones_heic_is_not():
    data = sound()["avif"]
    assert data[8:12] == b"avif"
    assert media_type_of(data[:8] + b"mif1" + data[12:]) == "image/avif"
    assert media_type_of(box(b"ftyp", b"heic\0\0\0\0mif1heic") + data[32:]) == UNKNOWN


def test_a_jpeg_with_more_images_behind_it_is_the_jpeg_it_is():
    data = saved(noise(), "MPO", save_all=True, append_images=[noise(seed=6)])
    assert media_type_of(data) == "image/jpeg"
