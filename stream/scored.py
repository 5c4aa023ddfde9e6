"""What comes of scoring a batch."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.records import Alert
from stream.label_join import Rejected


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
