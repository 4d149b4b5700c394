from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from encoders.images import Preprocessing, to_pixels
from training.augmentation.augment import NO_AUGMENTATION, Augmentation, augmented_pixels, may_flip

SPEC = Preprocessing(height=48, width=48)
STILL = NO_AUGMENTATION.model_dump()


def image() -> Image.Image:
    """A gradient to the right, darker below, with a little texture."""
    y, x = np.mgrid[0:60, 0:80]
    noise = np.random.default_rng(0).integers(0, 40, (60, 80))
    rgb = np.stack([40 + 2 * x + noise * 0.2, 200 - 2 * y + noise * 0.5, 90 + noise], axis=2)
    return Image.fromarray(np.clip(rgb, 0, 255).astype(np.uint8))


def view(*, seed: int = 0, flippable: bool = True, **changes: object) -> np.ndarray:
    return augmented_pixels(
        image(),
        SPEC,
        augmentation=Augmentation.model_validate({**STILL, **changes}),
        rng=np.random.default_rng(seed),
        flippable=flippable,
    )


PLAIN = to_pixels(image(), SPEC)


def detail(pixels: np.ndarray) -> float:
    return float(np.abs(np.diff(pixels.astype(float), axis=1)).mean())


def test_no_augmentation_is_the_plain_image() -> None:
    np.testing.assert_array_equal(view(), PLAIN)


def test_one_seed_gives_one_view_and_another_seed_another() -> None:
    every = Augmentation().model_dump()
    np.testing.assert_array_equal(view(seed=4, **every), view(seed=4, **every))
    assert not np.array_equal(view(seed=4, **every), view(seed=5, **every))


def darker(pixels: np.ndarray) -> bool:
    return bool((pixels <= PLAIN).all()) and pixels.mean() < 0.7 * PLAIN.mean()


def brighter(pixels: np.ndarray) -> bool:
    return bool((pixels >= PLAIN).all()) and pixels.mean() > PLAIN.mean() + 20


def grey(pixels: np.ndarray) -> bool:
    return bool((np.ptp(pixels, axis=2) == 0).all())


def warmer(pixels: np.ndarray) -> bool:
    red, green, blue = (pixels[..., channel].astype(int) - PLAIN[..., channel] for channel in range(3))
    return bool(red.min() > 5 and blue.max() < -5 and abs(green).max() <= 1)


@pytest.mark.parametrize(
    ("changes", "holds"),
    [
        ({"flip": 1.0}, lambda pixels: np.array_equal(pixels, PLAIN[:, ::-1])),
        ({"exposure": 1.0, "exposure_stops": (-2, -2)}, darker),
        ({"exposure": 1.0, "exposure_stops": (1, 1)}, brighter),
        (
            {"gamma": 1.0, "gamma_range": (2, 2)},
            lambda pixels: np.abs(pixels - 255 * (PLAIN / 255) ** 2).max() <= 1,
        ),
        ({"grey": 1.0}, grey),
        ({"resolution": 1.0, "resolution_side": (12, 12)}, lambda pixels: detail(pixels) < 0.6 * detail(PLAIN)),
        (
            {"jpeg": 1.0, "jpeg_quality": (10, 10)},
            lambda pixels: 1 < np.abs(pixels - PLAIN.astype(int)).mean() < 30,
        ),
        ({"white_balance": 1.0, "white_balance_range": (2, 2)}, warmer),
        ({"blur": 1.0, "blur_sigma": (12, 12)}, lambda pixels: detail(pixels) < 0.5 * detail(PLAIN)),
        (
            {"noise": 1.0, "noise_sigma": (0.05, 0.05)},
            lambda pixels: abs((pixels - PLAIN.astype(int))[PLAIN > 60].std() - 0.05 * 255) < 1,
        ),
        ({"zoom_out": 1.0}, lambda pixels: (pixels == 255).all(axis=2).sum() > 100),
    ],
)
def test_each_step_does_what_its_name_says(
    changes: dict[str, object], holds: Callable[[np.ndarray], bool]
) -> None:
    assert holds(view(**changes))


def test_exposure_works_in_linear_light() -> None:
    """Two stops down take sRGB 188 (half the light) to an eighth of the light: sRGB 99."""
    grey = Image.new("RGB", (48, 48), (188, 188, 188))
    pixels = augmented_pixels(
        grey,
        SPEC,
        augmentation=Augmentation.model_validate({**STILL, "exposure": 1.0, "exposure_stops": (-2, -2)}),
        rng=np.random.default_rng(0),
        flippable=False,
    )
    assert abs(int(pixels[0, 0, 0]) - 99) <= 1


@pytest.mark.parametrize(
    ("captions", "flippable"),
    [
        (["A dog on a beach ."], True),
        (["A dog .", "The LEFT hand waves ."], False),
        (["a right turn"], False),
        (["bright cleft rock"], True),
    ],
)
def test_an_image_is_mirrored_only_when_no_caption_names_a_side(captions: list[str], flippable: bool) -> None:
    assert may_flip(captions) is flippable
    if not flippable:
        np.testing.assert_array_equal(view(flip=1.0, flippable=may_flip(captions)), PLAIN)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("crop_area", (0.9, 0.2)), ("crop_area", (0.5, 1.5)), ("crop_aspect", (0, 1)), ("gamma_range", (0, 2)),
        ("resolution_side", (-5, 20)), ("jpeg_quality", (20, 900)), ("flip", 1.2),
    ],
)  # fmt: skip
def test_a_strength_out_of_range_is_an_error_that_names_it(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field):
        Augmentation.model_validate({field: value})


def test_an_unknown_augmentation_is_an_error() -> None:
    with pytest.raises(ValueError, match="brightness"):
        Augmentation.model_validate({"brightness": 0.3})


def test_what_a_later_version_added_does_not_rename_what_earlier_ones_kept() -> None:
    """Kept activations are found again by this dump."""
    dumped = Augmentation().model_dump(mode="json")
    assert list(dumped) == [
        "crop_area", "crop_aspect", "zoom_out", "flip", "exposure", "exposure_stops", "gamma", "gamma_range",
        "jitter", "jitter_strength", "grey", "resolution", "resolution_side", "jpeg", "jpeg_quality",
    ]  # fmt: skip
    assert Augmentation(noise=0.5).model_dump()["noise"] == 0.5
    assert Augmentation.model_validate(Augmentation(noise=0.5).model_dump()) == Augmentation(noise=0.5)
