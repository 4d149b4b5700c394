"""The gate: a candidate bundle against its own golden vectors, recall floors, and the bundle served now.

Measures what the policy names, and nothing else: every set is embedded once a bundle and condition, through the
same cache as `evaluate`. It does not know files of policies, nor how a verdict is shown.
"""

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from encoders.bundle import Bundle
from encoders.diagnosis import Finding, GoldenCheck, check_golden, diagnose
from encoders.encoder import Encoder
from encoders.golden import Golden, read_golden
from encoders.modalities import MODALITIES
from encoders.verdict import Check, Judged, Verdict
from training.data.captions import group_captions
from training.data.pairs import PairSet, read_pairs
from training.errors import EvaluationError, PolicyError
from training.evaluate.compare import paired_difference
from training.evaluate.embedding import Embedding, OnProgress, silent
from training.evaluate.ranks import Direction, Doubles, Ints, Retrieval, rank_pairs
from training.evaluate.report import DIRECTION_TITLES, Condition
from training.gate.policy import Floor, NoFall, Parity, Policy

MAKE_GOLDEN = "python -m encoders golden BUNDLE --reference FP32_WEIGHTS"
_INPUTS = {"images": "pictures", "texts": "texts"}


@dataclass(frozen=True)
class GateSettings:
    """cache: a folder for embeddings, shared with `evaluate`; batch: pictures and captions at a time."""

    device: str = "auto"
    batch: int = 32
    cache: Path | None = None
    bootstrap_samples: int = 1000


def judge(
    candidate: Bundle,
    *,
    against: Bundle | None,
    policy: Policy,
    settings: GateSettings = GateSettings(),
    on_progress: OnProgress = silent,
) -> Verdict:
    """Every check of the policy, and what is wrong where golden vectors come out otherwise.

    Raises PolicyError where the policy compares and `against` is None, PairsError, EvaluationError,
    BundleError.
    """
    if policy.no_fall and against is None:
        raise PolicyError(f"{policy.name} compares with the current bundle: name it with --against")
    specs = [*(floor.data for floor in policy.floors), *(rule.data for rule in policy.no_fall)]
    sets = {spec: read_pairs(spec) for spec in dict.fromkeys(specs)}
    encoder = _load(candidate, settings)
    golden = read_golden(candidate)
    checked = check_golden(encoder, golden) if golden else None
    ours = _Recalls(encoder, sets, settings, on_progress)
    checks = [*_golden_checks(golden, checked, policy.parity), *(_floor(ours, each) for each in policy.floors)]
    if against is not None and policy.no_fall:
        theirs = _Recalls(_load(against, settings), sets, settings, on_progress)
        checks += [check for each in policy.no_fall for check in _no_fall(ours, theirs, each)]
    found = diagnose(checked) if checked else ()
    return Verdict(
        passed=all(check.passed for check in checks),
        candidate=Judged.of(candidate),
        against=Judged.of(against) if against else None,
        policy=policy.name,
        policy_digest=policy.digest,
        checks=tuple(checks),
        findings=(*found, *_unlike(checked, policy.parity, known={finding.cause for finding in found})),
    )


def _golden_checks(golden: Golden | None, checked: GoldenCheck | None, parity: Parity) -> list[Check]:
    if golden is None or checked is None:
        return [_unmeasured("golden inputs", f"the bundle carries none: {MAKE_GOLDEN}")]
    stored = golden.record.stored
    checks = []
    for modality in MODALITIES:
        inputs = f"golden {_INPUTS[modality]}"
        compared = f"stored as {stored}, reference {golden.record.reference}"
        checks += [
            _at_least("parity", inputs, checked.parity(modality), parity.limit(stored), detail=compared),
            _at_least("reproduced", inputs, float(checked.reproduced(modality).min()), parity.reproduced),
            _at_least("spread", inputs, checked.spread(modality), parity.spread),
        ]
    if parity.require_fp32_reference and golden.record.reference != "fp32":
        reason = f"its vectors were made from {golden.record.reference} weights, not from fp32: {MAKE_GOLDEN}"
        checks.append(_unmeasured("fp32 reference", reason))
    return checks


def _unlike(checked: GoldenCheck | None, parity: Parity, *, known: Set[str]) -> list[Finding]:
    """Towers that had collapsed when the golden vectors were made: nothing differs, and all is alike."""
    if checked is None:
        return []
    return [
        Finding(
            cause="collapse",
            evidence=f"all {_INPUTS[modality]} embed nearly alike, and did when the bundle was made "
            f"(mean cosine between different ones {1 - checked.spread(modality):.4f})",
        )
        for modality in MODALITIES
        if checked.spread(modality) < parity.spread and "collapse" not in known
    ]


class _Recalls:
    """Hits of one encoder on the policy's sets, ranked as a release of it searches; each condition once."""

    def __init__(
        self,
        encoder: Encoder,
        sets: Mapping[str, PairSet],
        settings: GateSettings,
        on_progress: OnProgress,
    ) -> None:
        self.sets, self.settings = sets, settings
        self._bank = encoder.query_bank
        self._embeddings = {
            spec: Embedding(
                encoder, pairs, batch=settings.batch, cache=settings.cache,
                on_progress=lambda stage, done, total: on_progress(f"{encoder.name}, {stage}", done, total),
            )
            for spec, pairs in sets.items()
        }  # fmt: skip
        self._retrievals: dict[tuple[str, Condition | None], Retrieval] = {}

    def hits(
        self, spec: str, condition: Condition | None, direction: Direction, *, k: int
    ) -> tuple[Doubles, Ints]:
        """(chance of a hit in the top k, image) of every query."""
        key = (spec, condition)
        if key not in self._retrievals:
            embedding = self._embeddings[spec]
            embedded = embedding.clean if condition is None else embedding.under(condition)
            self._retrievals[key] = rank_pairs(
                embedded.image_vectors,
                embedded.caption_vectors,
                caption_image=embedded.caption_image,
                caption_group=group_captions(embedding.clean.captions),
                bank=self._bank,
            )
        ranks = self._retrievals[key].direction(direction)
        return ranks.hit_probability(k), ranks.image


def _floor(recalls: _Recalls, floor: Floor) -> Check:
    hits, _ = recalls.hits(floor.data, floor.condition, floor.direction, k=floor.k)
    subject = _subject(recalls, floor.data, floor.direction, floor.k, title=str(floor.condition or ""))
    return _at_least("floor", subject, float(hits.mean()), floor.floor)


def _no_fall(ours: _Recalls, theirs: _Recalls, rule: NoFall) -> Iterator[Check]:
    for title, conditions in rule.subjects():
        for direction in rule.directions:
            mine, images = _mean_hits(ours, rule, conditions, direction)
            other, _ = _mean_hits(theirs, rule, conditions, direction)
            if mine.shape != other.shape:
                raise EvaluationError(f"{rule.data}: the bundles were measured on different images")
            difference = paired_difference(mine, other, groups=images, samples=ours.settings.bootstrap_samples)
            decisive = difference.low if rule.rule == "shown" else difference.high
            yield Check(
                kind="no_fall",
                subject=_subject(ours, rule.data, direction, rule.k, title=title),
                figure=round(difference.value, 6),
                limit=-rule.margin,
                low=round(difference.low, 6),
                high=round(difference.high, 6),
                passed=bool(decisive >= -rule.margin),
                detail=f"{mine.mean():.4f} against {other.mean():.4f}, rule {rule.rule}",
            )


def _mean_hits(
    recalls: _Recalls, rule: NoFall, conditions: tuple[Condition | None, ...], direction: Direction
) -> tuple[Doubles, Ints]:
    """Of every query, averaged over conditions."""
    measured = [recalls.hits(rule.data, condition, direction, k=rule.k) for condition in conditions]
    return np.mean([hits for hits, _ in measured], axis=0), measured[0][1]


def _subject(recalls: _Recalls, spec: str, direction: Direction, k: int, *, title: str) -> str:
    condition = f", {title}" if title else ""
    return f"{recalls.sets[spec].name}{condition}, {DIRECTION_TITLES[direction]} R@{k}"


def _at_least(kind: str, subject: str, figure: float, limit: float, *, detail: str = "") -> Check:
    rounded = round(figure, 6)
    return Check.model_validate(
        {"kind": kind, "subject": subject, "figure": rounded, "limit": limit, "passed": figure >= limit,
         "detail": detail}
    )  # fmt: skip


def _unmeasured(subject: str, reason: str) -> Check:
    return Check(kind="golden", subject=subject, figure=None, limit=None, passed=False, detail=reason)


def _load(bundle: Bundle, settings: GateSettings) -> Encoder:
    return Encoder.load(bundle, device=settings.device, max_batch=settings.batch)
