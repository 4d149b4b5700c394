"""What each corruption does to pixels, measured on pixels."""

from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from training.shift.corruptions import IMAGE_CORRUPTIONS, SEVERITIES, corrupt_image
from training.shift.light import light_of_temperature, to_linear, to_srgb


def textured(width: int = 320, height: int = 240, *, seed: int = 0) -> Image.Image:
    """Smooth colours under fine detail, away from black and white: every corruption has something to take."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(60, 190, (6, 8, 3), dtype=np.uint8)).resize((width, height))
    detail = rng.integers(-40, 41, (height, width, 1))
    return Image.fromarray(np.clip(np.asarray(coarse) + detail, 0, 255).astype(np.uint8))


def values(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(np.float64) / 255


def corrupted(image: Image.Image, name: str, severity: int, *, seed: int = 0) -> Image.Image:
    return corrupt_image(image, name, severity=severity, rng=np.random.default_rng(seed))


def high_frequency_energy(image: Image.Image, *, above: float) -> float:
    """Energy of the luma beyond `above` cycles across the image's long side."""
    luma = values(image).mean(axis=2)
    spectrum = np.abs(np.fft.fft2(luma - luma.mean())) ** 2
    long = max(luma.shape)
    cycles = [np.fft.fftfreq(side, 1 / long) for side in luma.shape]
    return float(spectrum[np.hypot(cycles[0][:, None], cycles[1]) > above].sum())


@pytest.mark.parametrize("name", IMAGE_CORRUPTIONS)
def test_damage_grows_with_every_severity_and_the_size_stays(name: str) -> None:
    photo = textured()
    damaged = [corrupted(photo, name, severity) for severity in SEVERITIES]
    damage = [float(np.abs(values(each) - values(photo)).mean()) for each in damaged]
    assert {each.size for each in damaged} == {photo.size}
    assert damage[0] > 0
    assert all(less < more for less, more in pairwise(damage)), damage


@pytest.mark.parametrize("name", IMAGE_CORRUPTIONS)
@pytest.mark.parametrize("size", [(1, 1), (1, 37), (601, 2), (3, 3)])
def test_images_of_any_size_survive(name: str, size: tuple[int, int]) -> None:
    for severity in SEVERITIES:
        damaged = corrupted(textured(*size), name, severity)
        assert (damaged.size, damaged.mode) == (size, "RGB")


@pytest.mark.parametrize("name", ["noise", "low_light"])
def test_a_seed_reproduces_the_image_and_another_changes_it(name: str) -> None:
    first, again, other = (corrupted(textured(), name, 3, seed=seed) for seed in (7, 7, 8))
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()


@pytest.mark.parametrize("name", ["resolution_bicubic", "resolution_bilinear"])
def test_a_resolution_of_56_pixels_removes_all_detail_that_56_pixels_cannot_hold(name: str) -> None:
    photo = textured(448, 336)
    small = corrupted(photo, name, 4)
    lost, left = (high_frequency_energy(image, above=28) for image in (photo, small))  # Nyquist of 56 pixels
    assert left < 0.01 * lost
    held, kept = (
        high_frequency_energy(image, above=0) - high_frequency_energy(image, above=10)
        for image in (photo, small)
    )
    assert kept == pytest.approx(held, rel=0.1)


def test_an_image_below_the_resolution_is_left_as_it_is() -> None:
    icon = textured(50, 40)
    assert corrupted(icon, "resolution_bicubic", 4).tobytes() == icon.tobytes()


def test_one_stop_doubles_the_linear_light_and_not_the_stored_value() -> None:
    grey = Image.new("RGB", (4, 4), (100, 100, 100))
    over, under = corrupted(grey, "over_exposure", 2), corrupted(grey, "under_exposure", 2)
    light = to_linear(100 / 255)
    assert to_linear(values(over)[0, 0, 0]) == pytest.approx(2 * light, rel=0.02)
    assert to_linear(values(under)[0, 0, 0]) == pytest.approx(light / 2, rel=0.02)
    assert np.asarray(over)[0, 0, 0] < 150


def test_linear_light_and_back_is_the_identity_on_every_stored_value() -> None:
    stored = np.arange(256) / 255
    assert to_srgb(to_linear(stored)) == pytest.approx(stored, abs=1e-9)
    assert to_linear(0.5) == pytest.approx(0.2140, abs=1e-4)  # IEC 61966-2-1


def test_low_light_darkens_linear_light_to_its_share_and_adds_noise() -> None:
    dark = corrupted(Image.new("RGB", (224, 224), (200, 200, 200)), "low_light", 3)
    light = to_linear(values(dark))
    expected = 0.15 * to_linear(200 / 255)
    assert light.mean() == pytest.approx(expected, rel=0.02)
    assert light.std() == pytest.approx(np.sqrt(expected / 1000 + 0.002**2), rel=0.1)


def test_warm_light_favours_red_cool_light_blue_and_daylight_is_white() -> None:
    grey = Image.new("RGB", (4, 4), (120, 120, 120))
    warm, cool = (np.asarray(corrupted(grey, name, 3))[0, 0].tolist() for name in ("warm", "cool"))
    assert warm[0] > 120 > warm[2]
    assert cool[2] > 120 > cool[0]
    assert light_of_temperature(6504) == pytest.approx([1, 1, 1], abs=0.06)
    with pytest.raises(ValueError, match="1000 K"):
        light_of_temperature(1000)


def test_brightness_and_saturation_keep_the_hue() -> None:
    orange = Image.new("RGB", (4, 4), (150, 100, 50))
    assert np.asarray(corrupted(orange, "brightness", 2))[0, 0].tolist() == pytest.approx([201, 134, 67], abs=1)
    assert np.asarray(corrupted(orange, "desaturate", 5))[0, 0].tolist() == [150, 150, 150]
    assert np.asarray(corrupted(orange, "desaturate", 1))[0, 0].tolist() == pytest.approx(
        [150, 125, 100], abs=1
    )
    assert np.asarray(corrupted(orange, "oversaturate", 5))[0, 0].tolist() == pytest.approx([150, 75, 0], abs=1)


def test_contrast_shrinks_about_the_mean() -> None:
    photo = textured()
    flat = corrupted(photo, "contrast", 3)
    for channel in range(3):
        before, after = values(photo)[..., channel], values(flat)[..., channel]
        assert after.mean() == pytest.approx(before.mean(), abs=0.005)
        assert after.std() == pytest.approx(0.2 * before.std(), rel=0.05)


@pytest.mark.parametrize(("name", "share"), [("noise", 0.7), ("blur", 0.85), ("pixelate", 0.85)])
def test_a_large_copy_of_a_photo_is_hurt_as_much_as_one_of_the_reference_size(name: str, share: float) -> None:
    """Seen at 224 pixels, as a tower sees both. Damage pixel by pixel would average out to a quarter."""
    photo = textured(224, 224)
    large = photo.resize((896, 896), Image.Resampling.BICUBIC)
    seen = [
        values(corrupted(image, name, 3).resize((224, 224), Image.Resampling.BICUBIC))
        for image in (photo, large)
    ]
    damage = [float(np.abs(each - values(photo)).mean()) for each in seen]
    assert share * damage[0] < damage[1] < 1.15 * damage[0]


@pytest.mark.parametrize(("name", "severity"), [("fog", 1), ("blur", 0), ("blur", 6)])
def test_unknown_kinds_and_severities_are_refused_by_name(name: str, severity: int) -> None:
    with pytest.raises(ValueError, match=name if name == "fog" else str(severity)):
        corrupted(textured(4, 4), name, severity)
