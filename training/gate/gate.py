"""The gate: a candidate bundle against its own golden vectors, recall floors, and the bundle served now.

Measures what the policy names, and nothing else: every set is embedded once a bundle and condition, through the
same cache as `evaluate`.
"""

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from encoders.bundle import Bundle
from encoders.diagnosis import Finding, GoldenCheck, check_golden, diagnose
from encoders.encoder import Encoder
from encoders.golden import Golden, read_golden
from encoders.modalities import MODALITIES
from encoders.verdict import Check, CheckKind, Judged, Verdict
from training.data.captions import group_captions
from training.data.pairs import PairSet, read_pairs
from training.errors import EvaluationError, PolicyError
from training.evaluation.compare import paired_difference
from training.evaluation.embedding import Embedding, OnProgress, silent
from training.evaluation.metrics import Estimate, bootstrap_means
from training.evaluation.ranks import Direction, Doubles, Ints, QueryRanks, Retrieval, rank_pairs
from training.evaluation.report import DIRECTION_TITLES
from training.gate.evidence import Lacking, Sample, lacking_for_floor, lacking_for_no_fall, undecided
from training.gate.policy import Evidence, Floor, NoFall, Parity, Policy
from training.seen.exposure import Exposure, exposure_of
from training.seen.record import read_seen
from training.shift.condition import Condition

MAKE_GOLDEN = "python -m encoders golden BUNDLE --reference FP32_WEIGHTS"
_INPUTS = {"images": "images", "texts": "texts"}


@dataclass(frozen=True)
class GateSettings:
    """cache: a folder for embeddings, shared with `evaluate`; batch: images and captions at a time."""

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
    encoder, seen = _load(candidate, settings), read_seen(candidate)
    exposures = {spec: exposure_of(seen, pairs) for spec, pairs in sets.items()}
    golden = read_golden(candidate)
    checked = check_golden(encoder, golden) if golden else None
    ours = _Recalls(encoder, sets, settings, on_progress, exposures)
    checks = _golden_checks(golden, checked, policy.parity)
    checks += [_floor(ours, each, policy.evidence) for each in policy.floors]
    if against is not None and policy.no_fall:
        same = Judged.of(candidate) == Judged.of(against)
        theirs = ours if same else _Recalls(_load(against, settings), sets, settings, on_progress)
        checks += [check for each in policy.no_fall for check in _no_fall(ours, theirs, each, policy.evidence)]
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
        exposures: Mapping[str, Exposure] | None = None,
    ) -> None:
        self.sets, self.settings, self.exposures = sets, settings, exposures or {}
        self._bank = encoder.query_bank
        self._embeddings = {
            spec: Embedding(
                encoder, pairs, batch=settings.batch, cache=settings.cache,
                on_progress=lambda stage, done, total: on_progress(f"{encoder.name}, {stage}", done, total),
            )
            for spec, pairs in sets.items()
        }  # fmt: skip
        self._retrievals: dict[tuple[str, Condition | None], Retrieval] = {}

    def ranks(self, spec: str, condition: Condition | None, direction: Direction) -> QueryRanks:
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
        return self._retrievals[key].direction(direction)

    def mean_hits(
        self, spec: str, conditions: Sequence[Condition | None], direction: Direction, *, k: int
    ) -> tuple[Doubles, Ints]:
        """(chance of a hit in the top k, averaged over the conditions, image) of every query."""
        measured = [self.ranks(spec, condition, direction) for condition in conditions]
        return np.mean([ranks.hit_probability(k) for ranks in measured], axis=0), measured[0].image

    def sample(
        self,
        spec: str,
        conditions: Sequence[Condition | None],
        direction: Direction,
        *,
        k: int,
        interval: Estimate,
        least_of: "Sequence[_Recalls]" = (),
    ) -> Sample:
        """How much was measured; recalls are the least of this encoder's and those of others."""
        clean = self._embeddings[spec].clean

        def recall(rank: int) -> float:
            every = (self, *least_of)
            return min(float(one.mean_hits(spec, conditions, direction, k=rank)[0].mean()) for one in every)

        images = len(clean.image_ids)
        return Sample(images, len(clean.captions), direction, k, interval, recall, self.exposures[spec])


def _floor(recalls: _Recalls, floor: Floor, evidence: Evidence) -> Check:
    where = (floor.data, (floor.condition,), floor.direction)
    hits, images = recalls.mean_hits(*where, k=floor.k)
    [found] = bootstrap_means([hits], [images], samples=recalls.settings.bootstrap_samples)
    reached = found.value >= floor.floor
    sample = recalls.sample(*where, k=floor.k, interval=found)
    lacking = lacking_for_floor(sample, floor=floor.floor, evidence=evidence) if reached else None
    subject = _subject(recalls, floor.data, floor.direction, floor.k, title=str(floor.condition or ""))
    return _recall_check("floor", subject, found, floor.floor, passed=reached, lacking=lacking)


def _no_fall(ours: _Recalls, theirs: _Recalls, rule: NoFall, evidence: Evidence) -> Iterator[Check]:
    for title, conditions in rule.subjects():
        for direction in rule.directions:
            where = (rule.data, conditions, direction)
            (mine, images), (other, _) = (each.mean_hits(*where, k=rule.k) for each in (ours, theirs))
            if mine.shape != other.shape:
                raise EvaluationError(f"{rule.data}: the bundles were measured on different images")
            subject = _subject(ours, rule.data, direction, rule.k, title=title)
            if ours is theirs:
                yield _recall_check(
                    "no_fall",
                    subject,
                    Estimate(0.0, 0.0, 0.0),
                    -rule.margin,
                    passed=True,
                    detail="the same bundle",
                )
                continue
            found = paired_difference(mine, other, groups=images, samples=ours.settings.bootstrap_samples)
            sample = ours.sample(*where, k=rule.k, interval=found, least_of=[theirs])
            passed, lacking = _fall_outcome(sample, rule, evidence)
            detail = f"{mine.mean():.4f} against {other.mean():.4f}, rule {rule.rule}"
            yield _recall_check(
                "no_fall", subject, found, -rule.margin, passed=passed, lacking=lacking, detail=detail
            )


def _fall_outcome(sample: Sample, rule: NoFall, evidence: Evidence) -> tuple[bool, Lacking | None]:
    """Whether the rule is kept, and what is lacking to say so (or to say the contrary)."""
    if (sample.interval.low if rule.rule == "shown" else sample.interval.high) >= -rule.margin:
        return True, lacking_for_no_fall(sample, evidence=evidence)
    shown = sample.interval.high < -rule.margin
    return False, None if shown else undecided(sample, margin=rule.margin)


def _subject(recalls: _Recalls, spec: str, direction: Direction, k: int, *, title: str) -> str:
    condition = f", {title}" if title else ""
    return f"{recalls.sets[spec].name}{condition}, {DIRECTION_TITLES[direction]} R@{k}"


def _recall_check(
    kind: CheckKind,
    subject: str,
    found: Estimate,
    limit: float,
    *,
    passed: bool,
    lacking: Lacking | None = None,
    detail: str = "",
) -> Check:
    return Check(
        kind=kind,
        subject=subject,
        figure=round(found.value, 6),
        limit=limit,
        low=round(found.low, 6),
        high=round(found.high, 6),
        passed=passed and lacking is None,
        detail="; ".join(part for part in (detail, lacking.why if lacking else "") if part),
        doubt=lacking.doubt if lacking else None,
    )


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
