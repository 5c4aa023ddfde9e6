"""Feature rows as they were scored, kept as files beside the outcome of their run."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.errors import InvalidInputError
from models.features.accounts import N_FEATURES as N_ACCOUNT
from stream.pipeline import Pipeline

_PARTS = ("features", "own", "blend")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class KeptRows:
    """Rows of a run in the order of the file, NaN where none was scored.

    Parameters
    ----------
    features
        float32 of shape (n, n_features), with the consortium's evidence.
    own
        float32 of shape (n, n_own): the entity features from the bank's own evidence alone.
    blend
        float64 of shape (n,): log-odds.
    """

    features: NDArray[np.float32]
    own: NDArray[np.float32]
    blend: NDArray[np.float64]

    def shared_rows(self, index: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the features of some rows, with the consortium's evidence."""
        return self.features[index]

    def own_rows(self, index: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the features of some rows as the bank would see them alone."""
        rows = self.features[index]
        rows[:, N_ACCOUNT : N_ACCOUNT + self.own.shape[1]] = self.own[index]
        return rows


class RowCollector:
    """Takes feature rows from pipelines right after they were scored.

    Parameters
    ----------
    n
        Rows of the file.
    """

    def __init__(self, n: int) -> None:
        self._n = n
        self._features: NDArray[np.float32] | None = None
        self._own: NDArray[np.float32] | None = None

    def take(self, pipeline: Pipeline, rows: NDArray[np.int64]) -> None:
        """Copy the last rows of a pipeline's log to their places in the file."""
        newest = pipeline.log.newest(len(rows))
        features, own = newest.features, newest.own
        if self._features is None or self._own is None:
            self._features = np.full((self._n, features.shape[1]), np.nan, np.float32)
            self._own = np.full((self._n, own.shape[1]), np.nan, np.float32)
        self._features[rows] = features
        self._own[rows] = own

    def rows(self, blend: NDArray[np.float64]) -> KeptRows:
        """Return what was collected, with the scores of the same rows."""
        if self._features is None or self._own is None:
            raise InvalidInputError("expected scored rows, got none")
        return KeptRows(features=self._features, own=self._own, blend=blend)


def _paths(folder: Path, run: str) -> dict[str, Path]:
    return {part: folder / f"{run}.{part}.npy" for part in _PARTS}


def are_kept(folder: Path, run: str) -> bool:
    """Return whether a run's rows lie in a folder."""
    return all(path.exists() for path in _paths(folder, run).values())


def keep_rows(folder: Path, run: str, rows: KeptRows) -> None:
    """Write a run's rows."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, path in _paths(folder, run).items():
        np.save(path, getattr(rows, part))


def kept_rows(folder: Path, run: str) -> KeptRows:
    """Return what `keep_rows` wrote, read as it is needed."""
    arrays = {
        part: np.load(path, mmap_mode="r", allow_pickle=False)
        for part, path in _paths(folder, run).items()
    }
    return KeptRows(**arrays)
