"""What a bundle brings along about itself: its evaluation report, and what the gate required of it.

Neither changes an answer: what makes no sense is logged and left out.
"""

import logging
from pathlib import Path
from typing import Any

import orjson

from encoders.bundle import Bundle
from encoders.errors import GateNotPassed
from encoders.reading import reading
from encoders.verdict import Check, read_verdict

logger = logging.getLogger(__name__)


def read_report(bundle_path: Path) -> dict[str, Any] | None:
    """None when there is none, or none that makes sense. Raises Unreadable."""
    try:
        with reading(bundle_path):
            report = orjson.loads((bundle_path / "report.json").read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        logger.warning("the report of %s cannot be read: %s", bundle_path, error)
        return None
    return report if isinstance(report, dict) else None


def read_checks(bundle: Bundle) -> tuple[Check, ...]:
    """Each check of the gate; none where the bundle was never judged, or another one was. Raises Unreadable."""
    try:
        with reading(bundle.path):
            verdict = read_verdict(bundle)
    except GateNotPassed as error:
        logger.warning("the gate's checks are not told: %s", error)
        return ()
    return verdict.checks if verdict else ()
