"""A bank's attributes of unknown scale: as written for its own scorecard, by rank for all others.

The log keeps such an attribute as it is written, and so the bank's own scorecard sees it, whose
bins are its own. For everybody else it is absent until its scale is found. At the end of each day
`AttributeScales.settle` looks at those of which enough values were seen: one that the consortium
knows is read by rank from then on, one of which it knows nothing gives the scale itself. A table
gets better as values grow by two fifths, up to a number beyond which it stands for good: one that
followed the stream would follow drift, and fraud.
"""

import logging
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from models.basis import Basis
from models.category_view import CategoryView
from models.histograms import N_CELLS
from models.scales import count_values, scale_table
from models.schema import Schema

log = logging.getLogger(__name__)
MIN_N = 500
"""Values with which a rank is right to some two per cent."""
ENOUGH_N = 100_000
"""Values after which a table is not made again: ranks are right to a sixth of a per cent."""
_GROWN = 1.4
_PENDING, _RANKED, _FIXED, _OWN = 0, 1, 2, 3
WAYS = MappingProxyType({_PENDING: "pending", _RANKED: "ranked", _FIXED: "ranked", _OWN: "own"})
"""How an attribute is read: not yet, by a table that may get better or stands, as it is written."""


class AttributeScales:
    """How the attributes of unknown scale are read.

    Parameters
    ----------
    schema
        The consortium's.
    unknown
        Names of the bank's numeric attributes whose scale is unknown; those that the schema lacks
        are left out, as their values are.
    min_n, enough_n
        Values that must be seen before a scale is found, and before it stands for good, > 0.
    """

    def __init__(
        self,
        schema: Schema,
        unknown: frozenset[str] = frozenset(),
        *,
        min_n: int = MIN_N,
        enough_n: int = ENOUGH_N,
    ) -> None:
        first = schema.n_features - schema.n_attributes
        place = {spec.name: j for j, spec in enumerate(schema.attributes) if spec.type == "number"}
        self._names = sorted(unknown & place.keys())
        self._columns = np.array([first + place[name] for name in self._names], np.int64)
        self._min_n, self._enough_n = min_n, enough_n
        k = len(self._names)
        self._ways = np.full(k, _PENDING, np.int64)
        self._found_n = np.zeros(k, np.int64)
        self._counts = np.zeros((k, N_CELLS), np.uint32)
        self._tables = np.full((k, N_CELLS), np.nan, np.float32)
        self._read = CategoryView(self._columns, self._tables)

    def count(self, rows: NDArray[np.float32]) -> None:
        """Count what was scored, as it is written.

        Parameters
        ----------
        rows
            float32 of shape (n, n_features).
        """
        if len(self._columns):
            count_values(rows, self._columns, self._counts)

    def in_consortium(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return rows in the consortium's scales; the same rows where there is nothing to do.

        Safe in another thread.

        Parameters
        ----------
        rows
            float32 of shape (n, n_features), as they are written.
        """
        return self._read.apply(rows)

    def in_own(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return rows of the consortium, such as probes, without what the bank writes otherwise."""
        columns = self._read.columns
        if not len(columns):
            return rows
        seen = rows.copy()
        seen[:, columns] = np.nan
        return seen

    def settle(self, basis: Basis | None) -> bool:
        """Find scales, or make them more exact, where enough values were seen since.

        Parameters
        ----------
        basis
            The consortium's in force; without one nothing is found.

        Returns
        -------
        bool
            Whether rows are read otherwise from now on.
        """
        if basis is None:
            return False
        found = [self._settle_one(k, basis) for k in range(len(self._names))]
        if any(found):
            self._tell_readers()
        return any(found)

    def _settle_one(self, k: int, basis: Basis) -> bool:
        way, n = int(self._ways[k]), int(self._counts[k].sum())
        wanted = min(max(self._min_n, _GROWN * int(self._found_n[k])), self._enough_n)
        if way in (_FIXED, _OWN) or n < wanted:
            return False
        cuts, ranks = basis.cuts_of(int(self._columns[k]))
        if len(cuts):
            self._tables[k] = scale_table(self._counts[k], cuts, ranks)
            self._ways[k] = _FIXED if n >= self._enough_n else _RANKED
            self._found_n[k] = n
            log.info("attribute %s read by rank: %d values, %d cuts", self._names[k], n, len(cuts))
        elif way == _PENDING:
            self._ways[k] = _OWN
            log.warning(
                "attribute %s of unknown scale: no other member has it, its own scale is taken",
                self._names[k],
            )
        else:
            return False
        return True

    def _tell_readers(self) -> None:
        """Have rows read anew; whoever reads them now goes on with what was before."""
        others = self._ways != _OWN
        self._read = CategoryView(self._columns[others], self._tables[others])

    def ways(self) -> dict[str, int]:
        """Return how many attributes are read in which of `WAYS`."""
        counted = dict.fromkeys(WAYS.values(), 0)
        for way in self._ways.tolist():
            counted[WAYS[way]] += 1
        return counted

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return the state as named arrays (views)."""
        out: dict[str, NDArray[np.generic]] = {}
        for k, name in enumerate(self._names):
            out[f"{name}/counts"], out[f"{name}/table"] = self._counts[k], self._tables[k]
            out[f"{name}/marks"] = np.array([self._ways[k], self._found_n[k]])
        return out

    def load(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Replace the state by what `arrays` gave; an attribute that it lacks begins anew."""
        for k, name in enumerate(self._names):
            if f"{name}/marks" in arrays:
                self._counts[k] = arrays[f"{name}/counts"]
                self._tables[k] = arrays[f"{name}/table"]
                self._ways[k], self._found_n[k] = np.asarray(arrays[f"{name}/marks"]).tolist()
        self._tell_readers()
