"""Display values and linear light: where exposure, white balance and sensor noise act."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def to_linear(values: ArrayLike) -> NDArray[np.floating]:
    """sRGB values in [0, 1] to linear light in [0, 1] (IEC 61966-2-1)."""
    srgb = np.asarray(values)
    return np.asarray(np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4))


def to_srgb(light: ArrayLike) -> NDArray[np.floating]:
    """Linear light in [0, 1] to sRGB values in [0, 1]: the inverse of `to_linear`."""
    linear = np.asarray(light)
    return np.asarray(np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055))


def light_of_temperature(kelvin: float) -> NDArray[np.float64]:
    """Linear sRGB (3,) of a black body's light, luminance 1; 1667 to 25,000 K (Kim et al. 2002, US 7024034)."""
    if not 1667 <= kelvin <= 25_000:
        raise ValueError(f"the light of {kelvin:g} K is not known: 1667 to 25000 K")
    x = _locus_x(1e3 / kelvin)
    y = _locus_y(x, kelvin)
    light: NDArray[np.float64] = np.maximum(_SRGB_OF_XYZ @ np.array([x / y, 1.0, (1 - x - y) / y]), 0.0)
    return light


_SRGB_OF_XYZ = np.array(
    [[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]]
)  # IEC 61966-2-1, D65


def _locus_x(per_kilokelvin: float) -> float:
    if per_kilokelvin >= 0.25:
        return float(np.polyval([-0.2661239, -0.2343589, 0.8776956, 0.179910], per_kilokelvin))
    return float(np.polyval([-3.0258469, 2.1070379, 0.2226347, 0.240390], per_kilokelvin))


def _locus_y(x: float, kelvin: float) -> float:
    if kelvin < 2222:
        return float(np.polyval([-1.1063814, -1.34811020, 2.18555832, -0.20219683], x))
    if kelvin < 4000:
        return float(np.polyval([-0.9549476, -1.37418593, 2.09137015, -0.16748867], x))
    return float(np.polyval([3.0817580, -5.87338670, 3.75112997, -0.37001483], x))
