"""The log of a disturbed run: one JSON line for everything that was done to it, or that it did."""

import json
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TextIO

Value = str | int | float | None


class FaultLog:
    """Appends lines with time, seconds since the start, what and to whom; from any thread.

    Parameters
    ----------
    path
        Of the file, which begins anew.
    now
        Wall clock.
    """

    def __init__(self, path: Path, now: Callable[[], datetime]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: TextIO = path.open("w", encoding="utf-8")
        self._now = now
        self._began = now()
        self._lock = threading.Lock()

    def write(self, what: str, target: str, **more: Value) -> None:
        """Append a line."""
        now = self._now()
        line = {
            "time": now.isoformat(timespec="milliseconds"),
            "seconds": round((now - self._began).total_seconds(), 2),
            "kind": what,
            "target": target,
            **{name: round(v, 4) if isinstance(v, float) else v for name, v in more.items()},
        }
        with self._lock:
            if not self._file.closed:
                self._file.write(json.dumps(line) + "\n")
                self._file.flush()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._file.close()
