"""From departures to "as proven", "has moved" or "far", in plain language.

A measure has moved when it lies beyond its limit *and* by more than `SURE` standard errors, so that neither a
small window nor a small difference raises an alarm. The limits come from what the default encoder was seen to
do (docs/operations.md has the table): captions and titles of kinds it was proven on, or near to, stay below;
other languages, code, product numbers, pages of text and noise lie beyond. Pure.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from encoders.calibration import Figures
from service.drift.pairs import Expected, relevance_departure
from service.drift.windows import FAMILIAR_SHARE, Departure, Reference, Sums, likeness, mean_shift, share
from service.wire.drift import DriftMeasure, DriftVerdict

LEAST = 50
SURE = 4.0
VERDICTS: tuple[DriftVerdict, ...] = ("as proven", "has moved", "far")
NO_CALIBRATION = "the bundle has no calibration: python -m training calibrate makes one"


@dataclass(frozen=True, slots=True)
class Limits:
    """From which difference with the reference on a measure has moved, and is far; `below`: downwards."""

    moved: float
    far: float


MEAN = Limits(0.5, 0.7)
SPREAD = Limits(0.3, 0.6)
"""Of what is left to 1 above the reference's mean cosine."""
UNFAMILIAR = Limits(0.12, 0.4)
CUT = Limits(0.05, 0.25)
UNDECODABLE = Limits(0.05, 0.25)
RELEVANCE = Limits(0.4, 0.7)
"""Of the expected relevance, taken off."""
ABSENT = Limits(0.5, 0.85)
"""Estimated share of queries about what the gallery does not hold."""

_WORDS: dict[str, tuple[str, str, str]] = {
    "mean": (
        "on average they lie where the encoder was proven",
        "on average they lie elsewhere than what the encoder was proven on",
        "on average they lie far from what the encoder was proven on",
    ),
    "spread": (
        "they differ among each other as they should",
        "they are more, or less, alike than what the encoder was proven on",
        "they are nearly all alike, or the encoder cannot tell them apart",
    ),
    "unfamiliar": (
        "few are of a kind that the encoder has not met",
        "many are of a kind that the encoder has not met",
        "most are of a kind that the encoder has not met",
    ),
    "relevance": (
        "the best hits are as relevant as the gallery's own texts and images are for each other",
        "the best hits are less relevant than the gallery's own texts and images are for each other",
        "the best hits are hardly relevant",
    ),
    "nothing_matches": (
        "as often as expected something in the gallery matches",
        "about half ask for what the gallery does not hold",
        "nearly all ask for what the gallery does not hold",
    ),
    "cut_texts": (
        "hardly a text is longer than the encoder reads",
        "some texts are longer than the encoder reads, and their ends are not looked at",
        "many texts are longer than the encoder reads, and their ends are not looked at",
    ),
    "undecodable_images": (
        "hardly an image cannot be decoded",
        "some of what is sent as an image cannot be decoded",
        "much of what is sent as an image cannot be decoded",
    ),
}


def embedding_measures(sums: Sums, reference: Reference | None) -> Iterator[DriftMeasure]:
    """Mean, spread and unfamiliar of what lies in `sums`; null without a reference or with too few."""
    if reference is None:
        value = sums.pairwise_cosine if sums.count > 1 else None
        for name in ("mean", "spread", "unfamiliar"):
            yield _unknown(name, "nothing to compare with", value=value if name == "spread" else None)
        return
    room = 1 - reference.pairwise_cosine
    yield _measure("mean", sums.count, lambda: mean_shift(sums, reference), MEAN)
    yield _measure(
        "spread",
        sums.count,
        lambda: likeness(sums, reference),
        Limits(SPREAD.moved * room, SPREAD.far * room),
        both_ways=True,
    )
    yield _measure(
        "unfamiliar",
        sums.count,
        lambda: share(sums.unfamiliar, sums.count, 1 - FAMILIAR_SHARE),
        UNFAMILIAR,
    )


def relevance_measure(sums: Sums, expected: Expected | None, *, why: str) -> DriftMeasure:
    """Mean relevance of the best hit; `why` there is no expected one."""
    if expected is None:
        return _unknown("relevance", why, value=sums.relevance / sums.judged if sums.judged else None)
    return _measure(
        "relevance",
        sums.judged,
        lambda: relevance_departure(sums, expected),
        Limits(RELEVANCE.moved * expected.mean, RELEVANCE.far * expected.mean),
        downwards=True,
    )


def matching_measure(sums: Sums, figures: Figures | None, *, why: str) -> DriftMeasure:
    """How often nothing matches; `figures` are what calibration measured, `why` there are none."""
    if figures is None:
        value = sums.unmatched / sums.decided if sums.decided else None
        return _unknown("nothing_matches", why, value=value)
    expected = figures.nothing_of_present  # when the gallery holds what each query asks for
    room = figures.nothing_of_absent - expected
    if room <= 0:
        return _unknown("nothing_matches", "the calibration cannot tell a match from none")
    # Of a share x of "nothing matches", (x − expected) / room ask for what is not there (Rogan, Gladen 1978).
    return _measure(
        "nothing_matches",
        sums.decided,
        lambda: share(sums.unmatched, sums.decided, expected),
        Limits(ABSENT.moved * room, ABSENT.far * room),
    )


def cut_measure(sums: Sums) -> DriftMeasure:
    return _measure("cut_texts", sums.count, lambda: share(sums.cut, sums.count, 0.0), CUT)


def undecodable_measure(sums: Sums) -> DriftMeasure:
    came = sums.count + sums.undecodable
    return _measure("undecodable_images", came, lambda: share(sums.undecodable, came, 0.0), UNDECODABLE)


def worst(verdicts: Sequence[DriftVerdict | None]) -> DriftVerdict | None:
    """None when none is known."""
    known = [verdict for verdict in verdicts if verdict is not None]
    return max(known, key=VERDICTS.index) if known else None


def _measure(
    name: str,
    count: int,
    departure: Callable[[], Departure],
    limits: Limits,
    *,
    both_ways: bool = False,
    downwards: bool = False,
) -> DriftMeasure:
    if count < LEAST:
        return _unknown(name, f"{count} so far; {LEAST} are needed to tell")
    found = departure()
    difference = found.value - found.reference
    size, sure = difference, found.standard_errors
    if both_ways:
        size, sure = abs(difference), abs(sure)
    sign = -1 if downwards else 1
    size, sure = sign * size, sign * sure
    grade = (size >= limits.moved) + (size >= limits.far) if sure > SURE else 0
    return DriftMeasure.model_construct(
        name=name,
        value=round(found.value, 4),
        reference=round(found.reference, 4),
        standard_errors=round(found.standard_errors, 1),
        moved_at=round(found.reference + sign * limits.moved, 4),
        far_at=round(found.reference + sign * limits.far, 4),
        verdict=VERDICTS[grade],
        why=_WORDS[name][grade],
    )


def _unknown(name: str, why: str, *, value: float | None = None) -> DriftMeasure:
    rounded = None if value is None else round(value, 4)
    return DriftMeasure.model_construct(name=name, value=rounded, why=why)
