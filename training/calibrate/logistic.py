"""Weighted logistic regression with a small ridge, by Newton's method. Pure NumPy."""

import numpy as np
from numpy.typing import NDArray

RIDGE = 1e-4
STEPS = 50


def fit_logistic(
    features: NDArray[np.float64], truth: NDArray[np.float64], *, weight: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64]]:
    """Intercept and weights (f,) for features (n, f), truth (n,) of 0 and 1, and how much each row counts (n,).

    The ridge acts on features scaled to unit variance, so that a feature that separates the kinds without an
    error, or one that never varies, still has finite weights.
    """
    share = weight / weight.sum()
    centre = share @ features
    scale = np.sqrt(share @ (features - centre) ** 2)
    scale = np.where(scale > 1e-12, scale, 1.0)
    rows = np.column_stack([(features - centre) / scale, np.ones(len(features))])
    ridge = np.append(np.full(features.shape[1], RIDGE), 0.0)
    solution = np.zeros(rows.shape[1])
    for _ in range(STEPS):
        probability = 1.0 / (1.0 + np.exp(-np.clip(rows @ solution, -30.0, 30.0)))
        gradient = rows.T @ (share * (probability - truth)) + ridge * solution
        curvature = (rows * (share * probability * (1 - probability))[:, None]).T @ rows
        step = np.linalg.solve(curvature + np.diag(ridge + 1e-9), gradient)
        solution = solution - step
        if np.abs(step).max() < 1e-9:
            break
    weights = solution[:-1] / scale
    return float(solution[-1] - weights @ centre), weights
