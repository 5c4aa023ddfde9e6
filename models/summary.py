"""What a member publishes: cumulative, keyed contributions that merge by addition."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Part = Literal["histograms", "statistics", "evidence", "epoch"]


class ContributionKey(NamedTuple):
    """Newest per key wins; merged is the sum over keys."""

    member: str
    worker: str
    part: Part
    bucket: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Contribution:
    """One keyed, cumulative piece of what a member's worker has learnt.

    Parameters
    ----------
    key
        Who, which part, which bucket: ``evidence``: the UTC day (days since 1970) in which
        outcomes became known; ``statistics``: that day // the schema's bucket length;
        ``histograms`` and ``epoch``: 0.
    epoch
        Cadence index at publication (event or wall time // cadence).
    basis
        Number of the basis that ``statistics`` refer to; 0 for the other parts.
    n
        Matured transactions behind the numbers, >= 0.
    arrays
        Name -> array; the registered names, dtypes and shapes of each part:

        - ``histograms``: ``feature`` int16, ``is_fraud`` uint8, ``cell`` int16, ``count``
          uint32, all of shape (n_cells,), sorted by (feature, is_fraud, cell), no repeats.
        - ``statistics``: ``curvature`` float32 of shape (w * (w + 1) / 2,), the upper
          triangle row by row of A; ``gradient`` float64 of shape (w,), b.
        - ``evidence``: the fields of `models.entity_risk.EvidenceCells`.
        - ``epoch``: ``watermark_ms`` int64 (1,), ``n_contributions`` int64 (1,): closes the
          member's epoch; published last.
    """

    key: ContributionKey
    epoch: int
    basis: int
    n: int
    arrays: Mapping[str, NDArray[np.generic]]
