"""From an evaluation to its page: which failures to show, and under which name each bundle stands.

Reads the few images that the page shows, and nothing else from disk.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from encoders.calibration import read_calibration
from training.data.pairs import PairSet
from training.evaluation.comparison import Comparison
from training.evaluation.report import RetrievalReport, bundle_names, recall_depths
from training.evaluation.shifts import Shifts, losses, usual_severity
from training.page.document import write_page
from training.page.failures import FailureLog, image_failures
from training.page.inputs import Failure, PageInputs
from training.shift.condition import Condition

MOST_FAILURES = 24


def write_report_page(
    reports: Sequence[RetrievalReport],
    comparison: Comparison | None,
    path: Path,
    *,
    logs: Sequence[FailureLog] = (),
    pair_sets: Sequence[PairSet] = (),
    bundles: Sequence[Path] = (),
    command: str = "",
) -> None:
    """The page of reports; `logs` and `bundles` in the same order, `pair_sets` what they measured.

    Raises BadCalibration where a bundle's calibration is another's.
    """
    names = bundle_names(reports)
    inputs = PageInputs(
        reports=reports,
        comparison=comparison,
        failures=_failures(reports, dict(zip(names, logs, strict=True)) if logs else {}, pair_sets),
        held_out=comparison.held_out if comparison else {},
        calibrations={
            name: calibration
            for name, report, path in zip(names, reports, bundles, strict=False)
            if (calibration := read_calibration(path, fingerprint=report.fingerprint))
        },
        command=command,
    )
    write_page(inputs, path)


def _failures(
    reports: Sequence[RetrievalReport], logs: Mapping[str, FailureLog], pair_sets: Sequence[PairSet]
) -> list[Failure]:
    """From every clean set, and from what costs it most; of the first bundles, where there are many."""
    places = [
        (bundle, logs[bundle], pairs, condition)
        for report, bundle in zip(reports, logs, strict=False)
        for pairs in pair_sets
        for condition in _shown_conditions(report, pairs.name, reports=reports)
    ]
    places = places[: MOST_FAILURES // 2]
    each = MOST_FAILURES // (2 * max(1, len(places)))
    return [
        failure
        for bundle, log, pairs, condition in places
        for failure in image_failures(log, pairs, bundle=bundle, condition=condition, at_most=each)
    ]


def _shown_conditions(
    report: RetrievalReport, name: str, *, reports: Sequence[RetrievalReport]
) -> list[Condition | None]:
    """None for the clean set, and the corruption that the summary calls the costliest."""
    severity = usual_severity(reports)
    if severity is None:
        return [None]
    ranked = losses(Shifts.of(report, name), k=recall_depths(reports)[-1], severity=severity)
    return [None, *(loss.condition for loss in ranked[:1])]
