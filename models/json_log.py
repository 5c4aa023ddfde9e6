"""A service's log: one JSON object a line on standard output."""

import json
import logging
import sys
from collections.abc import Mapping


class JsonFormatter(logging.Formatter):
    """Time, level, logger, message, and the traceback where there is one.

    Parameters
    ----------
    more
        What every line says besides, e.g. whose it is where several write to one stream.
    """

    def __init__(self, more: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._more = dict(more or {})

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        line = {
            "time": self.formatTime(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **self._more,
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def log_as_json(
    level: str, quieter: Mapping[str, int], more: Mapping[str, str] | None = None
) -> None:
    """Send the process's log to standard output.

    Parameters
    ----------
    level
        Of our own loggers, e.g. ``INFO``.
    quieter
        Logger -> level, for libraries that talk more.
    more
        See `JsonFormatter`.
    """
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter(more))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name, least in quieter.items():
        logging.getLogger(name).setLevel(least)
