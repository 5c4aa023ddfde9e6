"""What comes of scoring a batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from models.records import Alert
from stream.label_join import Rejected


class Segment(NamedTuple):
    """What comes of rows between two ticks; see `Scored`."""

    scores: NDArray[np.float64]
    logit: NDArray[np.float64]
    alert: NDArray[np.bool_]
    alerts: list[Alert]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scored:
    """The outcome of one batch.

    Parameters
    ----------
    accepted
        int64 of shape (n,): positions in the batch that were scored, in order.
    experts
        Their names, as `stream.panel.Panel` has them.
    scores
        float64 of shape (n, n_experts): log-odds, NaN for none.
    logit
        float64 of shape (n,): the blend.
    alert
        bool of shape (n,).
    alerts
        One per True in ``alert``.
    rejected
        Rows that were not scored, and why.
    release
        Number of the release that scored the last row, 0 for none.
    """

    accepted: NDArray[np.int64]
    experts: tuple[str, ...]
    scores: NDArray[np.float64]
    logit: NDArray[np.float64]
    alert: NDArray[np.bool_]
    alerts: list[Alert]
    rejected: list[Rejected]
    release: int

    @classmethod
    def of(
        cls,
        segments: Sequence[Segment],
        *,
        accepted: NDArray[np.int64],
        experts: tuple[str, ...],
        rejected: list[Rejected],
        release: int,
    ) -> Self:
        """Return what came of segments, one after the other."""
        none = Segment(np.empty((0, len(experts))), np.empty(0), np.empty(0, np.bool_), [])
        held = segments or [none]
        return cls(
            accepted=accepted,
            experts=experts,
            scores=np.concatenate([each.scores for each in held]),
            logit=np.concatenate([each.logit for each in held]),
            alert=np.concatenate([each.alert for each in held]),
            alerts=[one for each in held for one in each.alerts],
            rejected=rejected,
            release=release,
        )
