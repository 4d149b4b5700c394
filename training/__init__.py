"""Turns pairs of images and captions into a bundle, and measures how well it retrieves what it never saw.

    the data       data/: pairs, their readers, leakage
    training       fit/: the run and its recipe; its step/, views/ and towers/                    … fit
    augmentation   augmentation/: what an image may look like, and a sheet that shows it        … augment
    recipes        recipes/: the default encoder's, the baseline's, the gate's policy
    after it       blend/: averages of bundles                                     … interpolate, soup
    hubs           bank/: what keeps items near everything from coming up for everything            … bank
    a domain       adapt/                                                                        … adapt
    relevance      calibrate/, with queries of absent subjects in absent/                    … calibrate
    the proof      evaluation/, under shift/, as a page/                                        … evaluate
    unseen or not  seen/: what a bundle was trained on and chosen by                             … seen
    the gate       gate/                                                                          … gate
    short queries  short_queries/: what people type                                            … queries
                   query_expansion/: how that is asked                                 … short-queries
    commands       commands/: one module a command, above all others

Each folder's `__init__` is its map. `console` is what their commands share, `card` a bundle's README.md,
`heirlooms` what of its parents' files a bundle does not have, `files` replaces files whole, `markdown` writes
tables, `errors` is the exception tree.
"""

from typing import TYPE_CHECKING

from encoders.extras import require_extra
from encoders.lazy import exports

if TYPE_CHECKING:
    from training.data.pairs import PairSet, read_pairs
    from training.evaluation.evaluate import EvaluationOptions, evaluate

__all__ = ["EvaluationOptions", "PairSet", "evaluate", "read_pairs"]

require_extra("training", packages=("pyarrow", "ijson", "matplotlib", "tensorboard"))

__getattr__ = exports(
    __name__,
    {
        "EvaluationOptions": "training.evaluation.evaluate",
        "PairSet": "training.data.pairs",
        "evaluate": "training.evaluation.evaluate",
        "read_pairs": "training.data.pairs",
    },
)
