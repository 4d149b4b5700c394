"""Log lines as JSON: one object a line, whatever is logged and whoever logs it.

What must never be said is each caller's to keep: no body, key or image.
"""

import json
import logging
import sys
import threading
import time
from types import TracebackType

logger = logging.getLogger(__name__)


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

    Python's warnings too, what no code caught, and uvicorn's lines, whose loggers hand on to the root.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)
    logging.getLogger("faiss.loader").setLevel(logging.WARNING)  # which wheels it looked for in vain
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread
    sys.unraisablehook = _uncaught_and_ignored


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    logger.critical("the process ends: %r", error, exc_info=(kind, error, trace))


def _uncaught_in_thread(found: threading.ExceptHookArgs) -> None:
    if found.exc_value is None:  # the interpreter is being torn down
        return
    name = found.thread.name if found.thread else "unknown"
    where = (found.exc_type, found.exc_value, found.exc_traceback)
    logger.critical("thread %s ends: %r", name, found.exc_value, exc_info=where)


def _uncaught_and_ignored(found: "sys.UnraisableHookArgs") -> None:
    """What nobody could catch: of a destructor, say. The object itself is not told: it is half gone."""
    words = found.err_msg or "an exception was ignored"
    logger.error("%s: %r", words, found.exc_value, exc_info=found.exc_value)
