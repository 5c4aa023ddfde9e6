"""Processor and wall time of a process from a fifth of its records to the last.

Standard library only: it runs in the peers' environment too.
"""

import json
import sys
import time

WARM_SHARE = 0.2


class Stopwatch:
    """Counts records; what the first fifth took (start, connections, caches) is left out.

    Parameters
    ----------
    n_records
        How many there will be.
    """

    def __init__(self, n_records: int) -> None:
        self._n_records = n_records
        self._n = 0
        self._next = int(n_records * WARM_SHARE)
        self._marks: list[tuple[int, float, float]] = []

    @property
    def is_done(self) -> bool:
        """Whether all records were counted."""
        return len(self._marks) == 2

    def count(self, n: int = 1) -> None:
        """Count records that were just processed."""
        self._n += n
        if self._n >= self._next and not self.is_done:
            self._marks.append((self._n, time.process_time(), time.perf_counter()))
            self._next = self._n_records

    def report(self) -> None:
        """Write one line of JSON: records, processor seconds and wall seconds between the marks."""
        (n_first, cpu_first_s, wall_first_s), (n_last, cpu_last_s, wall_last_s) = self._marks
        found = {
            "records": n_last - n_first,
            "cpu_s": cpu_last_s - cpu_first_s,
            "wall_s": wall_last_s - wall_first_s,
        }
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()
