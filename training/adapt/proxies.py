"""What embeddings alone tell of a domain, without labels; each with what it cannot tell.

None of them is accuracy: a collapsed tower may have no hubs, and a confident one may be wrong. They are for
seeing that something moved, not for deciding that it is better.
"""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from training.evaluation.ranks import Floats

HUB_K = 10
MOST_ROWS = 4096
"""Of images and of queries; more tell no more, and their scores would not fit in memory."""

WEAKNESSES: Mapping[str, str] = MappingProxyType(
    {
        "spread": "noise spreads embeddings too: more is better only while the ranking stays meaningful",
        "modality_gap": "centring closes it by construction, whether or not the right pairs come nearer",
        "top1_margin": "grows with any rescaling of the cosines, and confidence is not correctness",
        "hubness_skew": "falls when rankings turn random; says nothing of whether the right item is first",
    }
)
"""Name → why it proves nothing alone."""


def measure_proxies(images: Floats, queries: Floats, penalties: Floats | None = None) -> dict[str, float]:
    """Of unit rows of the domain: images (n, d), queries (m, d, may be none), the images' penalties (n,).

    spread         1 − mean cosine between different images
    modality_gap   distance between the mean image and the mean query (Liang et al. 2022)
    top1_margin    mean over queries of best less second-best score
    hubness_skew   skewness of how often an image is among a query's 10 best (Radovanović et al. 2010)
    """
    some, asked = images[:MOST_ROWS], queries[:MOST_ROWS]
    n = len(some)
    total = some.sum(axis=0, dtype=np.float64)
    measured = {"spread": 1.0 - float((total @ total - n) / max(1, n * (n - 1)))}
    if not len(queries) or n < 2:
        return measured
    scores = asked @ some.T - (0 if penalties is None else penalties[:MOST_ROWS])
    best = -np.sort(-scores, axis=1)[:, :2]
    shown = np.bincount(np.argsort(-scores, axis=1)[:, :HUB_K].ravel(), minlength=n).astype(np.float64)
    spread = shown.std()
    measured["modality_gap"] = float(np.linalg.norm(images.mean(axis=0) - queries.mean(axis=0)))
    measured["top1_margin"] = float((best[:, 0] - best[:, 1]).mean())
    measured["hubness_skew"] = float(((shown - shown.mean()) ** 3).mean() / spread**3) if spread > 0 else 0.0
    return measured
