"""How long each part is measured, and what all parts together came to. Data only."""

from dataclasses import dataclass
from enum import StrEnum

from benchmarks.comparison import Served
from benchmarks.encoder import Rate
from benchmarks.evaluation import Embedded
from benchmarks.machine import Machine
from benchmarks.million import Million
from benchmarks.ranking import Ranking
from benchmarks.rebuild import Rebuilt

CLIENTS = (1, 8, 32)


class Part(StrEnum):
    """What can be measured alone; the encoder alone always is."""

    SERVICE = "service"
    EVALUATION = "evaluation"
    SEARCH_MILLION = "search-million"


@dataclass(frozen=True)
class Plan:
    """Sizes, and the seconds that each measurement takes in each round."""

    rounds: int
    images: int
    gallery_items: int
    evaluated_images: int
    evaluated_captions: int
    ranked_images: int
    ranked_captions: int
    alone_seconds: float
    images_seconds: float
    texts_seconds: float
    search_seconds: float
    warm_up_seconds: float
    searched_vectors: int


WHOLE = Plan(
    rounds=3,
    images=128,
    gallery_items=1_000_000,
    evaluated_images=512,
    evaluated_captions=5_000,
    ranked_images=20_000,
    ranked_captions=100_000,
    alone_seconds=2.5,
    images_seconds=5.0,
    texts_seconds=2.5,
    search_seconds=4.0,
    warm_up_seconds=1.0,
    searched_vectors=1_000_000,
)
QUICK = Plan(
    rounds=1,
    images=32,
    gallery_items=200,
    evaluated_images=64,
    evaluated_captions=500,
    ranked_images=2_000,
    ranked_captions=10_000,
    alone_seconds=1.5,
    images_seconds=3.0,
    texts_seconds=1.5,
    search_seconds=1.5,
    warm_up_seconds=1.0,
    searched_vectors=50_000,
)


@dataclass(frozen=True)
class EncoderAlone:
    """Keys of `images` and `texts` are batch sizes, the fastest first; `encoding` is at the fastest."""

    decoding: Rate
    encoding: Rate
    images: dict[int, Rate]
    texts: dict[int, Rate]


@dataclass(frozen=True)
class Rebuilding:
    """The job; and decoding alone and the encoder alone, on the same kind of images, around it."""

    rebuilt: Rebuilt
    decoding: Rate
    embedding: Rate


@dataclass(frozen=True)
class SearchAlone:
    rate: Rate
    p50_milliseconds: float
    p99_milliseconds: float


@dataclass(frozen=True)
class ServiceFigures:
    """Of the rebuild, and of the service over what it built."""

    rebuilding: Rebuilding
    embedded: list[Served]
    searches: list[Served]
    search_alone: SearchAlone
    service_peak_mebibytes: float


@dataclass(frozen=True)
class EvaluationFigures:
    """A set embedded; and a large one, of planted vectors, ranked."""

    embedded: list[Embedded]
    ranking: Ranking


@dataclass(frozen=True)
class Found:
    """Everything that was measured; None: that part was not asked for."""

    machine: Machine
    bundle: str
    device: str
    alone: EncoderAlone
    service: ServiceFigures | None
    evaluation: EvaluationFigures | None
    million: Million | None
    seconds: float
