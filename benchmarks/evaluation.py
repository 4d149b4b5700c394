"""What evaluation embeds in a second, clean and under corruptions, and what its parts do alone.

In this process and without a cache, through `training.evaluation`, which reads, decodes, corrupts and encodes a
set.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.encoder import Alone, Rate
from benchmarks.inputs import Inputs
from benchmarks.machine import own_cpu_seconds
from encoders.encoder import Encoder
from training.data.pairs import CaptionedImage, ImageSource, PairSet
from training.evaluation.bundles import MeasureSettings
from training.evaluation.decoding import decoded_pixels
from training.evaluation.embedding import Embedding
from training.shift.condition import Condition

BATCH = MeasureSettings().batch
DECODED = 4 * BATCH  # images, to measure decoding alone
CONDITIONS = (
    None,
    Condition(corruption="low_light", severity=3),
    Condition(corruption="resolution_bicubic", severity=3),
)
SENTENCES = ("a drawing of {}", "{}", "an image that shows {} on a white ground")


@dataclass(frozen=True)
class ImageRound:
    """One condition in one round; `decoding` is files to pixels under it, `decoded_ahead` of clean images."""

    evaluated: Rate
    encoding: Rate
    decoding: Rate
    decoded_ahead: Rate


@dataclass(frozen=True)
class Embedded:
    """What evaluation embeds. Ratios are medians over rounds, each to what was measured in the same round.

    `to_parts`: of decoding (and corrupting) alone and the encoder alone, one after the other on all cores.
    None: there is no such part.
    """

    what: str
    rate: Rate
    decoding: Rate | None
    to_encoder: float
    to_encoder_by_cpu: float
    to_decoded_ahead: float | None
    to_decoded_ahead_by_cpu: float | None
    to_parts: float | None
    to_parts_by_cpu: float | None


class StageClock:
    """An `OnProgress`: the rate of each stage, from when it is announced until its last item is done."""

    def __init__(self) -> None:
        self._marks: dict[str, list[tuple[int, float, float]]] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:  # noqa: ARG002 - the contract's
        self._marks.setdefault(stage, []).append((done, time.perf_counter(), own_cpu_seconds()))

    @property
    def rates(self) -> list[Rate]:
        """Of the stages in the order in which they began."""
        ends = [(marks[0], marks[-1]) for marks in self._marks.values()]
        return [Rate(last[0] - first[0], last[1] - first[1], last[2] - first[2]) for first, last in ends]


def embed_set(
    bundle: Path,
    alone: Alone,
    pairs: PairSet,
    *,
    batches: tuple[int, int],
    rounds: int,
    seconds: float,
    say: Callable[[str], None],
) -> list[Embedded]:
    """The images of each condition, then the captions; `batches`: the encoder's best of images and texts."""
    encoder = Encoder.load(bundle, max_batch=BATCH)
    captions = [caption for image in pairs.images for caption in image.captions]
    images: dict[str, list[ImageRound]] = {}
    texts: list[tuple[Rate, Rate]] = []
    _rates(encoder, PairSet("warm up", "", pairs.images[:BATCH]))
    for number in range(rounds):
        say(f"evaluation's embedding, round {number + 1} of {rounds}")
        encoding = alone.encode(seconds, batch=batches[0])
        ahead = alone.embed_images(seconds, batch=batches[0])
        texts_alone = alone.embed_texts(seconds, captions, batch=batches[1])
        clean, evaluated_texts, *corrupted = _rates(encoder, pairs)
        texts.append((evaluated_texts, texts_alone))
        for condition, evaluated in zip(CONDITIONS, (clean, *corrupted), strict=True):
            decoding = _decode(encoder, pairs.images[:DECODED], condition)
            found = ImageRound(evaluated, encoding, decoding, ahead)
            images.setdefault(str(condition or "clean"), []).append(found)
    return [
        *(compare_images(what, each) for what, each in images.items()),
        compare_texts(texts),
    ]


def write_set(folder: Path, inputs: Inputs, *, images: int, captions: int) -> PairSet:
    """The inputs' images as files, as often as it takes, and sentences with the gallery's titles."""
    folder.mkdir()
    files = [
        folder / f"{number}.{each.media_type.removeprefix('image/')}"
        for number, each in enumerate(inputs.images)
    ]
    for file, image in zip(files, inputs.images, strict=True):
        file.write_bytes(image.data)
    titles = inputs.titles
    sentences = [
        SENTENCES[row % len(SENTENCES)].format(titles[row % len(titles)].lower()) for row in range(captions)
    ]
    rows = [
        CaptionedImage(
            image_id=str(row),
            captions=tuple(sentences[row * captions // images : (row + 1) * captions // images]),
            source=ImageSource(files[row % len(files)]),
        )
        for row in range(images)
    ]
    return PairSet("bench", "", tuple(rows))


def compare_images(what: str, rounds: Sequence[ImageRound]) -> Embedded:
    return Embedded(
        what=what,
        rate=_sum([each.evaluated for each in rounds]),
        decoding=_sum([each.decoding for each in rounds]),
        to_encoder=median(_to(each.evaluated, each.encoding) for each in rounds),
        to_encoder_by_cpu=median(_by_cpu(each.evaluated, each.encoding) for each in rounds),
        to_decoded_ahead=median(_to(each.evaluated, each.decoded_ahead) for each in rounds),
        to_decoded_ahead_by_cpu=median(_by_cpu(each.evaluated, each.decoded_ahead) for each in rounds),
        to_parts=median(_to(each.evaluated, each.decoding, each.encoding) for each in rounds),
        to_parts_by_cpu=median(_by_cpu(each.evaluated, each.decoding, each.encoding) for each in rounds),
    )


def compare_texts(rounds: Sequence[tuple[Rate, Rate]]) -> Embedded:
    """Rounds of evaluation and the encoder alone."""
    return Embedded(
        what="captions",
        rate=_sum([evaluated for evaluated, _ in rounds]),
        decoding=None,
        to_encoder=median(_to(evaluated, alone) for evaluated, alone in rounds),
        to_encoder_by_cpu=median(_by_cpu(evaluated, alone) for evaluated, alone in rounds),
        to_decoded_ahead=None,
        to_decoded_ahead_by_cpu=None,
        to_parts=None,
        to_parts_by_cpu=None,
    )


def _rates(encoder: Encoder, pairs: PairSet) -> list[Rate]:
    """Of the images, the captions, and the images under each corruption."""
    clock = StageClock()
    embedding = Embedding(encoder, pairs, batch=BATCH, on_progress=clock)
    for condition in CONDITIONS:
        _ = embedding.clean if condition is None else embedding.under(condition)
    return clock.rates


def _decode(encoder: Encoder, images: Sequence[CaptionedImage], condition: Condition | None) -> Rate:
    """Files to pixels, as evaluation does it, and nothing else."""
    started, cpu_before = time.perf_counter(), own_cpu_seconds()
    made = decoded_pixels(images, encoder.preprocessing, condition=condition, window=2 * BATCH)
    count = sum(1 for _ in made)
    return Rate(count, time.perf_counter() - started, own_cpu_seconds() - cpu_before)


def _sum(rates: Sequence[Rate]) -> Rate:
    first, *others = rates
    return sum(others, first)


def _to(whole: Rate, *parts: Rate) -> float:
    """The rate of the whole to that of its parts, one after the other."""
    return whole.per_second * sum(1 / part.per_second for part in parts)


def _by_cpu(whole: Rate, *parts: Rate) -> float:
    return sum(part.cpu_milliseconds for part in parts) / whole.cpu_milliseconds
