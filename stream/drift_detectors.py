"""River's change detectors, set for series with a point a day; the worker's only home of river.

Imported by `stream.drift` when a worker watches for drift, and not before: river brings scipy and
takes two seconds.
"""

from collections.abc import Callable
from typing import Any

from river.drift import ADWIN, KSWIN, PageHinkley

from models.errors import InvalidInputError

_ADWIN: Callable[..., Any] = ADWIN  # its constructor alone has no types
_SEED = 1  # of KSWIN's draws from its own window: the same series gives the same alarms

_MAKERS: dict[tuple[str, str], Callable[[], Any]] = {
    # values in standard deviations of quiet days: a shift of one is found, of a half is not;
    # on drawn normal values each cries at most once in 1,000 quiet days
    ("calibration", "page_hinkley"): lambda: PageHinkley(
        min_instances=7, delta=0.5, threshold=8.0, alpha=1.0
    ),
    ("calibration", "adwin"): lambda: _ADWIN(
        delta=0.3, clock=1, min_window_length=3, grace_period=10
    ),
    ("calibration", "kswin"): lambda: KSWIN(alpha=0.005, window_size=35, stat_size=10, seed=_SEED),
    # 0 on quiet days, up to 3 on others: two days of 3 are a drift, one is a holiday
    ("feature", "page_hinkley"): lambda: PageHinkley(
        min_instances=7, delta=0.25, threshold=3.0, alpha=1.0
    ),
    ("feature", "adwin"): lambda: _ADWIN(delta=0.05, clock=1, min_window_length=2, grace_period=10),
    ("feature", "kswin"): lambda: KSWIN(alpha=0.005, window_size=21, stat_size=7, seed=_SEED),
}


class RiverDetector:
    """One of river's detectors on one series.

    Parameters
    ----------
    kind
        ``calibration`` or ``feature``.
    name
        ``adwin``, ``page_hinkley`` or ``kswin``.

    Raises
    ------
    InvalidInputError
        If there is no such detector.
    """

    def __init__(self, kind: str, name: str) -> None:
        if (kind, name) not in _MAKERS:
            known = ", ".join(sorted({detector for _, detector in _MAKERS}))
            raise InvalidInputError(f"detector: expected one of {known}, got {name!r}")
        self._detector = _MAKERS[kind, name]()

    def update(self, value: float) -> bool:
        """Take the next point; return whether the series has changed."""
        self._detector.update(value)
        return bool(self._detector.drift_detected)
