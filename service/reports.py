"""The evaluation report inside a bundle. Knows nothing of what is in it, nor of how it is shown."""

import logging
from pathlib import Path
from typing import Any

import orjson

logger = logging.getLogger(__name__)


def read_report(bundle_path: Path) -> dict[str, Any] | None:
    """None when there is none, or none that can be read: a report changes no answer."""
    try:
        report = orjson.loads((bundle_path / "report.json").read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        logger.warning("the report of %s cannot be read: %s", bundle_path, error)
        return None
    return report if isinstance(report, dict) else None
