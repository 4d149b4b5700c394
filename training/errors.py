"""The exceptions of `training`, all under `encoders.errors.TwinlensError`.

TwinlensError
└── TrainingError              anything that stops a training or evaluation command
    ├── PairsError             a set of pairs cannot be read
    │   ├── BadSpec            the one-line spec itself: unknown format, option or value
    │   ├── MissingFile        a file that the spec names is not there
    │   ├── MissingColumn      the file lacks a field that its format, or the spec, promises
    │   ├── BadRow             one row breaks the format; carries file, row and value
    │   ├── EmptyPairSet       nothing is left to train or evaluate on
    │   └── UnreadableImage    an image's bytes cannot be read back
    ├── EvaluationError        a set or an encoder that gives nothing to measure
    │   └── BadReport          not a retrieval report, or one of a newer format
    ├── RecipeError            a recipe that is not valid, or does not fit its towers
    ├── PolicyError            a gate's policy that is not valid, or lacks a bundle to compare with
    ├── BlendError             bundles whose weights cannot be averaged
    ├── CheckpointError        a run's folder that cannot be resumed
    ├── AdaptationError        a domain that a bundle cannot be adapted to, or not by that method
    ├── BankError              pairs that make no query bank, or a strength that cannot be
    ├── ShortQueriesError      sets that say too little of short queries
    ├── SeenError              what a bundle has seen cannot be told from the sets that it names
    ├── CalibrationError       nothing that a calibration could be fitted or measured on
    ├── Diverged               the loss is no longer a finite number
    └── StartIsBetter          a run whose own validation finds nothing better than what it began from
"""

from pathlib import Path

from encoders.errors import TwinlensError

LONGEST_VALUE_SHOWN = 120


class TrainingError(TwinlensError):
    pass


class PairsError(TrainingError):
    pass


class BadSpec(PairsError):
    pass


class MissingFile(PairsError):
    pass


class MissingColumn(PairsError):
    pass


class BadRow(PairsError):
    """One row that breaks its format. `row` counts from 1, as an editor or `sed -n` does."""

    def __init__(self, file: Path, row: int, *, value: object, problem: str) -> None:
        self.file, self.row, self.value = file, row, value
        shown = value if isinstance(value, str) else repr(value)
        if len(shown) > LONGEST_VALUE_SHOWN:
            shown = shown[:LONGEST_VALUE_SHOWN] + "…"
        super().__init__(f"{file}, row {row}: {problem}: {shown!r}")


class EmptyPairSet(PairsError):
    pass


class UnreadableImage(PairsError):
    pass


class RecipeError(TrainingError):
    pass


class BlendError(TrainingError):
    pass


class PolicyError(TrainingError):
    pass


class CheckpointError(TrainingError):
    pass


class AdaptationError(TrainingError):
    pass


class BankError(TrainingError):
    pass


class ShortQueriesError(TrainingError):
    pass


class SeenError(TrainingError):
    pass


class CalibrationError(TrainingError):
    pass


class Diverged(TrainingError):
    pass


class StartIsBetter(TrainingError):
    pass


class EvaluationError(TrainingError):
    pass


class BadReport(EvaluationError):
    pass
