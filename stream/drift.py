"""Drift of one bank: do the experts' scores still mean what they say, are the features as before.

A pure machine fed with rows, which it counts, and asked at the end of each day of event time.

*Calibration*, per expert: a point a day (or as many days as it takes to gather a few frauds) of
(frauds - expected) and of log-loss above the expected one, each in its standard deviations under
calibrated scores and then in those of quiet days. A score is compared with its own outcome, so
nights and weekends need no care.

*Features*, one by one: the population stability index of a day against the same weekday of the
second to fifth week before. What lies below a floor counts as nothing.

Detectors find the change; an alarm needs besides that it is large enough to matter. After an alarm
a new reference is gathered, so one change gives one alarm, and an expert whose calibration broke
forgets faster for a while.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import cast

import numpy as np
from numpy.typing import NDArray

from models.drift_counts import (
    ENTROPY,
    EXCESS,
    EXCESS_VARIANCE,
    EXPECTED,
    FRAUDS,
    N_COARSE,
    N_SUMS,
    VARIANCE,
    add_outcomes,
    count_coarse,
    stability_index,
)
from models.errors import StateError
from models.named_arrays import under
from stream.drift_policy import DETECTORS, DriftAlarm, DriftPolicy, Kind, Signal
from stream.drift_tracks import Detector, Tracks

_SIGNALS: tuple[Signal, ...] = ("ratio", "loss")
DETECTORS_HOME = "stream.drift_detectors"  # brings river, which is loaded when first needed
_WEEKS = range(2, 6)  # back: a change that takes weeks must not hide in its own reference
_RING = 35
_DAY = N_SUMS  # column of a point, after the sums
_N_POINTS = 84
_LAG = 7
_RECENT = 7
_MAX_POINT = 4.0
_MAX_EXCESS = 3.0
_MAD_TO_SD = 1.4826


class DriftWatch:
    """State of one worker's watch.

    Parameters
    ----------
    policy
        See `DriftPolicy`.
    columns
        int64 of shape (n_columns,): which features of a row are watched, see
        `stream.drift_policy.watched_columns`.
    experts
        Names, in the order of the columns of scores.

    Attributes
    ----------
    psi
        float64 of shape (n_columns,): of the last day, NaN where it was not compared.
    """

    def __init__(
        self, policy: DriftPolicy, columns: NDArray[np.int64], experts: Sequence[str]
    ) -> None:
        self._policy = policy
        self._columns = columns.astype(np.int64)
        self.experts = tuple(experts)
        n, n_features = len(self.experts), len(columns)
        self._open = np.zeros((n_features, N_COARSE), np.uint32)
        self._days = np.zeros((_RING, n_features, N_COARSE), np.uint32)
        self._day_of = np.full(_RING, -1, np.int64)
        self._sums = np.zeros((n, N_SUMS))
        self._points = np.zeros((n, _N_POINTS, N_SUMS + 1))
        self._n_points = np.zeros(n, np.int64)
        self._feature_start = np.full(n_features, -1, np.int64)
        self._expert_start = np.full(n, -1, np.int64)
        self._quiet_until: dict[Kind, NDArray[np.int64]] = {
            "calibration": np.full((n * len(_SIGNALS), len(DETECTORS)), -1, np.int64),
            "feature": np.full((n_features, len(DETECTORS)), -1, np.int64),
        }
        self._found = np.full((n * len(_SIGNALS), len(DETECTORS)), -1, np.int64)
        self._cool_until = np.full(n, -1, np.int64)
        self._day = -1
        self.psi = np.full(n_features, np.nan)
        self._tracks = {
            "calibration": self._new_tracks("calibration", n * len(_SIGNALS)),
            "feature": self._new_tracks("feature", n_features),
        }

    def _new_tracks(self, kind: Kind, n: int) -> Tracks:
        of_kind = self._policy.calibration_detectors
        if kind == "feature":
            of_kind = self._policy.feature_detectors
        return Tracks(n, of_kind, lambda name: _new_detector(kind, name), self._policy.memory)

    def observe_scored(self, rows: NDArray[np.float32]) -> None:
        """Count scored rows into the open day; O(n_columns) a row, compiled.

        Parameters
        ----------
        rows
            float32 of shape (n, n_features); NaN is absent.
        """
        count_coarse(self._open, rows, self._columns)

    def observe_matured(self, scores: NDArray[np.float64], is_fraud: NDArray[np.bool_]) -> None:
        """Add outcomes that became known in the open day, in order.

        Parameters
        ----------
        scores
            Of shape (n, n_experts): log-odds as given when the rows were scored, NaN for none.
        is_fraud
            bool of shape (n,).
        """
        add_outcomes(self._sums, scores.astype(np.float64), is_fraud)

    def end_day(self, day: int) -> list[DriftAlarm]:
        """Close the open day, which was ``day`` since 1970 UTC; return what is no longer as it was.

        Days end in ascending order; days without rows may be left out.
        """
        self._day = day
        alarms = self._end_features(day)
        for expert in range(len(self.experts)):
            alarms += self._end_expert(expert, day)
        return alarms

    def _end_features(self, day: int) -> list[DriftAlarm]:
        alarms: list[DriftAlarm] = []
        self.psi[:] = np.nan
        n_rows = int(self._open[:1].sum())
        if n_rows and self._feature_start.max(initial=-1) < 0:
            self._feature_start[:] = day + self._policy.settle_d
        if n_rows >= self._policy.min_rows:
            for feature in range(len(self._open)):
                alarms += self._compare(feature, day)
            self._days[day % _RING] = self._open
            self._day_of[day % _RING] = day
        self._open[:] = 0
        return alarms

    def _compare(self, feature: int, day: int) -> list[DriftAlarm]:
        weekdays = [(day - 7 * back) % _RING for back in _WEEKS]
        first = int(self._feature_start[feature])
        oldest = max(first, day - _RING)
        slots = [slot for slot in weekdays if oldest <= self._day_of[slot] < day]
        if len(slots) < 2:
            return []
        reference = self._days[slots, feature].sum(axis=0, dtype=np.int64)
        index = stability_index(reference, self._open[feature])
        self.psi[feature] = index
        excess = min(max(index / self._policy.psi_floor - 1.0, 0.0), _MAX_EXCESS)
        alarms = [
            DriftAlarm(
                kind="feature",
                subject=int(self._columns[feature]),
                detector=detector,
                signal="psi",
                day=day,
                magnitude=index,
            )
            for detector in self._tracks["feature"].push(feature, excess)
            if excess > 0.0 and self._is_new("feature", feature, detector)
        ]
        if alarms:
            self._feature_start[feature] = day + 1
        return alarms

    def _is_new(self, kind: Kind, series: int, detector: str) -> bool:
        """Return whether a detector may speak about a series again, and note that it does."""
        quiet_until = self._quiet_until[kind][series]
        which = DETECTORS.index(detector)
        if self._day < quiet_until[which]:
            return False
        quiet_until[which] = self._day + self._policy.cooling_d
        return True

    def _end_expert(self, expert: int, day: int) -> list[DriftAlarm]:
        sums = self._sums[expert]
        if max(sums[FRAUDS], sums[EXPECTED]) < self._policy.min_frauds:
            return []
        n = int(self._n_points[expert])
        if n == _N_POINTS:
            self._points[expert, :-1] = self._points[expert, 1:].copy()
            n -= 1
        self._points[expert, n] = [*sums, day]
        self._n_points[expert] = n + 1
        sums[:] = 0.0
        if self._expert_start[expert] < 0:
            self._expert_start[expert] = day + self._policy.settle_d
        alarms = [alarm for k in range(len(_SIGNALS)) for alarm in self._judge(expert, k)]
        if alarms:
            self._expert_start[expert] = day + 1
            self._cool_until[expert] = day + self._policy.cooling_d
        return alarms

    def _judge(self, expert: int, signal: int) -> list[DriftAlarm]:
        held = self._points[expert, : self._n_points[expert]]
        before = held[:-_LAG]
        reference = before[before[:, _DAY] >= self._expert_start[expert]]
        if len(reference) < self._policy.min_points:
            return []
        usual = _in_deviations(reference, signal)
        middle = float(np.median(usual))
        spread = max(_MAD_TO_SD * float(np.median(np.abs(usual - middle))), 1.0)
        newest = (float(_in_deviations(held[-1:], signal)[0]) - middle) / spread
        series = expert * len(_SIGNALS) + signal
        point = min(max(newest, -_MAX_POINT), _MAX_POINT)
        for detector in self._tracks["calibration"].push(series, point):
            self._found[series, DETECTORS.index(detector)] = self._day
        magnitude, is_large = self._change(reference, held[-_RECENT:], signal)
        fresh = np.flatnonzero(
            (self._found[series] >= 0) & (self._found[series] > self._day - _LAG)
        )
        return [
            DriftAlarm(
                kind="calibration",
                subject=expert,
                detector=DETECTORS[which],
                signal=_SIGNALS[signal],
                day=self._day,
                magnitude=magnitude,
            )
            for which in fresh.tolist()
            if is_large and self._is_new("calibration", series, DETECTORS[which])
        ]

    def _change(
        self, reference: NDArray[np.float64], recent: NDArray[np.float64], signal: int
    ) -> tuple[float, bool]:
        """Return how much has changed, and whether that is enough to matter."""
        if _SIGNALS[signal] == "ratio":
            factor = _ratio(recent) / _ratio(reference)
            return factor, max(factor, 1.0 / factor) >= self._policy.ratio_floor
        grown = _excess_share(recent) - _excess_share(reference)
        return grown, grown >= self._policy.loss_floor  # a smaller loss is no trouble

    def calibration_ratio(self, expert: int) -> float:
        """Return frauds over expected frauds of an expert's last week of points, NaN for none."""
        held = self._points[expert, : self._n_points[expert]]
        return _ratio(held[-_RECENT:]) if len(held) else float("nan")

    def psi_max(self) -> float:
        """Return the largest stability index of the last day, NaN where none was compared."""
        return float(np.nanmax(self.psi)) if np.isfinite(self.psi).any() else float("nan")

    def forgetting(self, expert: int) -> float:
        """Return the factor on an expert's rate of forgetting: 1 when quiet."""
        return self._policy.forgetting if self._day < self._cool_until[expert] else 1.0

    def blend_window(self) -> float:
        """Return the factor on the blend's window: 1 when quiet, less while an expert cools."""
        is_cooling = bool(np.any(self._day < self._cool_until))
        return self._policy.blend_window if is_cooling else 1.0

    def _plain(self) -> dict[str, NDArray[np.generic]]:
        return {
            "open": self._open,
            "days": self._days,
            "day_of": self._day_of,
            "sums": self._sums,
            "points": self._points,
            "n_points": self._n_points,
            "feature_start": self._feature_start,
            "expert_start": self._expert_start,
            "quiet_calibration": self._quiet_until["calibration"],
            "quiet_feature": self._quiet_until["feature"],
            "found": self._found,
            "cool_until": self._cool_until,
            "psi": self.psi,
        }

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the state as named arrays (views)."""
        out = self._plain() | {"day": np.array([self._day], np.int64)}
        for kind, tracks in self._tracks.items():
            out |= {f"{kind}/{name}": array for name, array in tracks.arrays().items()}
        return out

    def load(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Replace the state by what `arrays` gave.

        Raises
        ------
        StateError
            If it is of other features, experts or settings.
        """
        for name, array in self._plain().items():
            if arrays[name].shape != array.shape:
                raise StateError(
                    f"drift/{name}: expected shape {array.shape}, got {arrays[name].shape}"
                )
            array[...] = arrays[name]
        self._day = int(np.asarray(arrays["day"], np.int64)[0])
        for kind, tracks in self._tracks.items():
            tracks.load(under(f"{kind}/", arrays))


def _new_detector(kind: Kind, name: str) -> Detector:
    make = cast("Callable[[str, str], Detector]", import_module(DETECTORS_HOME).RiverDetector)
    return make(kind, name)


def _in_deviations(points: NDArray[np.float64], signal: int) -> NDArray[np.float64]:
    """Return points in standard deviations that calibrated scores would show."""
    if _SIGNALS[signal] == "ratio":
        above, variance = points[:, FRAUDS] - points[:, EXPECTED], points[:, VARIANCE]
    else:
        above, variance = points[:, EXCESS], points[:, EXCESS_VARIANCE]
    scaled: NDArray[np.float64] = above / np.sqrt(np.maximum(variance, 1e-9))
    return scaled


def _ratio(points: NDArray[np.float64]) -> float:
    return float((points[:, FRAUDS].sum() + 1.0) / (points[:, EXPECTED].sum() + 1.0))


def _excess_share(points: NDArray[np.float64]) -> float:
    return float(points[:, EXCESS].sum() / max(points[:, ENTROPY].sum(), 1e-9))
