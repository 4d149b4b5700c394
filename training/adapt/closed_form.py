"""Centring, whitening and CORAL in closed form: unit rows of a domain to the means and weights that suit it.

Pure functions in float64.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from encoders.adaptation import AffineMap
from training.evaluation.ranks import Doubles, Floats

CENTRE_STRENGTH = 1.0
WHITEN_STRENGTH = 0.5
CORAL_STRENGTH = 0.5


def centring(rows: Floats, *, strength: float = CENTRE_STRENGTH) -> AffineMap:
    """Takes off `strength` of the mean of rows (n, d)."""
    return _affine(strength * _mean(rows))


def whitening(
    images: Floats, texts: Floats, *, strength: float = WHITEN_STRENGTH
) -> tuple[AffineMap, AffineMap]:
    """Each modality's own mean off, then one weight for both, so that they stay in one space.

    W = S^(−1/2), S the mean of both covariances, shrunk: strength · Σ + (1 − strength) · tr(Σ)/d · I.
    """
    weight = _power(_shrunk((_covariance(images) + _covariance(texts)) / 2, strength), -0.5)
    return _affine(_mean(images), weight), _affine(_mean(texts), weight)


def coral(target: Floats, source: Floats, *, strength: float = CORAL_STRENGTH) -> AffineMap:
    """Target rows to the mean and covariance of source rows (Sun et al. 2016, "Return of frustratingly easy
    domain adaptation"), the covariances shrunk as in `whitening`.

    W (z − μ_t) + μ_s, written as W (z − (μ_t − W⁻¹ μ_s)).
    """
    to_white = _power(_shrunk(_covariance(target), strength), -0.5)
    to_source = _power(_shrunk(_covariance(source), strength), 0.5)
    weight = to_source @ to_white
    return _affine(_mean(target) - np.linalg.solve(weight, _mean(source)), weight)


def apply_map(affine: AffineMap | None, rows: Floats) -> Floats:
    """What the Encoder makes of unit rows with it."""
    if affine is None or not len(rows):
        return rows
    moved: Floats = affine(torch.from_numpy(np.ascontiguousarray(rows))).numpy()
    return moved


def _mean(rows: Floats) -> Doubles:
    mean: Doubles = np.asarray(rows, dtype=np.float64).mean(axis=0)
    return mean


def _covariance(rows: Floats) -> Doubles:
    centred = np.asarray(rows, dtype=np.float64) - _mean(rows)
    return np.asarray(centred.T @ centred / len(rows), dtype=np.float64)


def _shrunk(covariance: Doubles, strength: float) -> Doubles:
    side = len(covariance)
    shrunk: Doubles = strength * covariance + (1 - strength) * np.trace(covariance) / side * np.eye(side)
    return shrunk


def _power(symmetric: Doubles, exponent: float) -> Doubles:
    """A^exponent; eigenvalues under a millionth of the largest are taken for that."""
    values, vectors = np.linalg.eigh(symmetric)
    floored = np.maximum(values, max(float(values[-1]), 1e-12) * 1e-6) ** exponent
    return np.asarray((vectors * floored) @ vectors.T, dtype=np.float64)


def _affine(mean: NDArray[np.float64], weight: NDArray[np.float64] | None = None) -> AffineMap:
    return AffineMap(
        torch.from_numpy(mean).float(), None if weight is None else torch.from_numpy(weight).float()
    )
