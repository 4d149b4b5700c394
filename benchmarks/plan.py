"""How long each part is measured, and what all parts together came to. Data only."""

from dataclasses import dataclass

from benchmarks.comparison import Served
from benchmarks.encoder import Rate
from benchmarks.machine import Machine
from benchmarks.rebuild import Rebuilt

CLIENTS = (1, 8, 32)


@dataclass(frozen=True)
class Plan:
    """Seconds that each measurement takes in each round."""

    rounds: int
    pictures: int
    gallery_items: int
    alone_seconds: float
    images_seconds: float
    texts_seconds: float
    search_seconds: float
    warm_up_seconds: float


WHOLE = Plan(
    rounds=3,
    pictures=128,
    gallery_items=1_000_000,
    alone_seconds=2.5,
    images_seconds=5.0,
    texts_seconds=2.5,
    search_seconds=4.0,
    warm_up_seconds=1.0,
)
QUICK = Plan(
    rounds=1,
    pictures=32,
    gallery_items=200,
    alone_seconds=1.5,
    images_seconds=3.0,
    texts_seconds=1.5,
    search_seconds=1.5,
    warm_up_seconds=1.0,
)


@dataclass(frozen=True)
class Found:
    """Everything that was measured. Keys of `images_alone` and `texts_alone` are batch sizes, best first."""

    machine: Machine
    bundle: str
    device: str
    decode_alone: Rate
    encode_alone: Rate
    images_alone: dict[int, Rate]
    texts_alone: dict[int, Rate]
    rebuilt: Rebuilt
    served: list[Served]
    searches: list[Served]
    search_alone: Rate
    search_alone_p50_milliseconds: float
    search_alone_p99_milliseconds: float
    service_peak_mebibytes: float
    seconds: float
