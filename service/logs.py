"""Log lines as JSON: one object a line, whatever is logged and whoever logs it.

Knows nothing of what is said. What must never be said is each caller's to keep: no body, key or picture.
"""

import json
import logging
import sys
import time


class JsonLines(logging.Formatter):
    """One JSON object a log line: when, level, logger, message, and what `extra={"fields": …}` adds.

    An exception goes into `traceback`, its line breaks escaped as JSON has them: still one line.
    """

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _said(record),
        }
        for name, value in getattr(record, "fields", {}).items():
            line.setdefault(name, value)  # a field never takes the place of what every line has
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        # Ends of line beyond ASCII, and surrogates that no UTF-8 has, must not break a reader of lines.
        return json.dumps(line, default=str)


def _said(record: logging.LogRecord) -> str:
    """The message; of a call with the wrong number of arguments the template, since a log line never fails."""
    try:
        return record.getMessage()
    except (TypeError, ValueError, KeyError):
        return f"{record.msg} {record.args!r}"


def log_as_json(level: str) -> None:
    """Send every log line of the process to standard error as JSON; only the command calls this.

    Python's warnings too, and uvicorn's lines, whose loggers hand on to the root.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)
