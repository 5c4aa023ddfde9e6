"""What counts as drift, and what is said about it."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models.errors import InvalidInputError
from models.schema import Schema

Kind = Literal["calibration", "feature"]
Signal = Literal["ratio", "loss", "psi"]
KINDS: tuple[Kind, ...] = ("calibration", "feature")
MIN_MEMORY = 35
"""The longest window of a detector."""
_OF_OUTCOMES = ("fraud", "f_", "risk_", "legit_age", "last_label", "episode", "first_fraud")
_SLOW = ("spike",)
DETECTORS = ("adwin", "page_hinkley", "kswin")


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftPolicy:
    """What counts as drift and what follows.

    Parameters
    ----------
    calibration_detectors, feature_detectors
        Of ``adwin``, ``page_hinkley``, ``kswin``.
    settle_d
        Days from the first row, and from an expert's first point, that are not compared, >= 0;
        windows of 30 days must fill first.
    min_rows
        Rows of a day below which its features are not compared, > 0.
    min_frauds
        Frauds, the larger of seen and expected, that make a point of calibration, > 0.
    min_points
        Points of a reference before calibration is judged, > 0.
    psi_floor
        Stability index below which a feature is as it was, > 0; .1 is called slight, .25 large.
    ratio_floor
        Factor by which frauds over expected frauds must have changed, > 1.
    loss_floor
        Share of the expected log-loss by which the excess must have grown, > 0.
    memory
        Points of a series that detectors are made again from, at least ``MIN_MEMORY``.
    cooling_d
        Days that an expert forgets faster after an alarm, and in which a detector does not repeat
        itself, > 0.
    forgetting
        Factor on the rate of forgetting in that time, >= 1.
    blend_window
        Factor on the blend's window in that time, in (0, 1].

    Raises
    ------
    InvalidInputError
        If a field is outside its range.
    """

    calibration_detectors: tuple[str, ...] = ("page_hinkley",)
    feature_detectors: tuple[str, ...] = ("page_hinkley",)
    settle_d: int = 30
    min_rows: int = 100
    min_frauds: float = 5.0
    min_points: int = 14
    psi_floor: float = 0.1
    ratio_floor: float = 1.4
    loss_floor: float = 0.3
    memory: int = 60
    cooling_d: int = 14
    forgetting: float = 8.0
    blend_window: float = 0.5

    def __post_init__(self) -> None:
        known = {*self.calibration_detectors, *self.feature_detectors}
        if not known <= set(DETECTORS):
            raise InvalidInputError(f"detectors: expected of {DETECTORS}, got {sorted(known)}")
        if not self.memory >= MIN_MEMORY:
            raise InvalidInputError(f"memory: expected {MIN_MEMORY} or more, got {self.memory}")
        counts = (self.min_rows, self.min_points, self.cooling_d)
        if not all(count >= 1 for count in counts) or not self.settle_d >= 0:
            raise InvalidInputError(f"drift: expected counts above 0, got {counts}")
        floors = (self.min_frauds, self.psi_floor, self.ratio_floor - 1.0, self.loss_floor)
        if not all(0.0 < floor < np.inf for floor in floors):
            raise InvalidInputError("drift: expected floors above 0, ratio_floor above 1")
        if not 1.0 <= self.forgetting < np.inf or not 0.0 < self.blend_window <= 1.0:
            raise InvalidInputError("drift: expected forgetting >= 1, blend_window in (0, 1]")


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftAlarm:
    """Something is no longer as it was.

    Parameters
    ----------
    kind
        ``calibration`` or ``feature``.
    subject
        Position of the expert, or the feature's column in a row.
    detector
        Which one found it.
    signal
        In what: ``ratio`` of frauds to expected ones, ``loss``, ``psi``.
    day
        Days since 1970 UTC; the day that ended.
    magnitude
        ``ratio``: factor of the change; ``loss``: change as a share of the expected log-loss;
        ``psi``: the stability index.
    """

    kind: Kind
    subject: int
    detector: str
    signal: Signal
    day: int
    magnitude: float


def watched_columns(schema: Schema) -> NDArray[np.int64]:
    """Return the features that payments alone make.

    Counts and ages of frauds are left out: they move with every wave of fraud and with what others
    publish, and calibration is the place to see whether that matters. So are counts and ages of
    spikes, which take months to settle and say late what amounts and ratios say at once.
    """
    names = [name.rpartition(".")[2] for name in schema.feature_names]
    watched = [not name.startswith(_OF_OUTCOMES + _SLOW) for name in names]
    return np.flatnonzero(watched).astype(np.int64)
