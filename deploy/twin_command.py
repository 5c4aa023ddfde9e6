"""What ``amalgam twin`` does: banks' summaries of a file, their twin, a synthetic stream of it.

Of the rows before the cut each bank makes histograms and moments, which are added; the twin is
built from the sums alone. Rows whose outcome was known after the cut serve to judge it.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deploy.bank_rows import read_bank_rows
from deploy.progress import OnShare
from deploy.twin_fidelity import Fidelity, measure
from deploy.twin_rows import FeatureRows, feature_rows
from deploy.twin_stream import StreamPlan, synthetic_table, write_table
from models.basis import Basis, encode
from models.basis_builder import build_basis
from models.copula import Moments, bin_scores, is_sampled
from models.errors import InvalidInputError
from models.features.accounts import DAY_MS
from models.histograms import add_rows, empty_counts
from models.twin import Twin, build_twin

_BLOCK = 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TwinConfig:
    """What is made.

    Parameters
    ----------
    file, mapping, split, bank_column
        As for `deploy.bank_rows.read_bank_rows`.
    output
        Parquet file to write.
    n
        Synthetic transactions; None: as many as the twin was made of.
    seed
        Of everything drawn, >= 0.
    rate
        Synthetic transactions a day; None: as in the file.
    fraud_share
        In [0, 1]; None: as in the file.
    cut
        Day since 1970: earlier rows make the twin, later ones judge it; None: after three quarters
        of the file's days.
    label_delay_d
        Days until a fraud is reported.

    Raises
    ------
    InvalidInputError
        If a number is outside its range.
    """

    file: Path
    mapping: Path
    output: Path
    split: str | None = None
    bank_column: str | None = None
    n: int | None = None
    seed: int = 1
    rate: float | None = None
    fraud_share: float | None = None
    cut: int | None = None
    label_delay_d: float = 7.0

    def __post_init__(self) -> None:
        if not (self.seed >= 0 and (self.n is None or self.n >= 1)):
            raise InvalidInputError("twin: expected a seed >= 0 and at least 1 transaction")
        if not (self.fraud_share is None or 0.0 <= self.fraud_share <= 1.0):
            raise InvalidInputError(f"fraud share: expected in [0, 1], got {self.fraud_share}")
        if not 0.0 < self.label_delay_d < np.inf:
            raise InvalidInputError(f"label delay: expected days > 0, got {self.label_delay_d}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TwinResult:
    """What came of it: rows written, frauds among them, names of the features, fidelity."""

    n: int
    n_frauds: int
    n_real: int
    names: tuple[str, ...]
    fidelity: Fidelity


def run_twin(config: TwinConfig, on_progress: OnShare) -> TwinResult:
    """Make the twin, write its stream and measure it.

    Raises
    ------
    InvalidInputError
        If the file has no labels or banks, or no fraud before the cut.
    """
    data = read_bank_rows(
        config.file, config.mapping, split=config.split, bank_column=config.bank_column
    )
    delay_ms = round(config.label_delay_d * DAY_MS)
    rows = feature_rows(data, delay_ms=delay_ms, on_progress=on_progress)
    return twin_of_rows(config, rows, n_banks=len(data.names))


def twin_of_rows(config: TwinConfig, rows: FeatureRows, *, n_banks: int) -> TwinResult:
    """Do what `run_twin` does once the features are there."""
    day = rows.event_ms // DAY_MS
    cut = config.cut
    if cut is None:
        cut = int(day.min() + 3 * (day.max() + 1 - day.min()) // 4)
    train = np.flatnonzero(day < cut)
    later = np.flatnonzero(day >= cut + config.label_delay_d)
    if not rows.is_fraud[train].any():
        raise InvalidInputError("twin: expected frauds before the cut, got none")
    twin, basis = twin_of_banks(rows, train, n_banks)
    rng = np.random.default_rng(config.seed)
    n = len(train) if config.n is None else config.n
    sample = twin.sample(n, rng, config.fraud_share)
    rate = len(train) / (cut - int(day.min())) if config.rate is None else config.rate
    plan = StreamPlan(start_day=cut, rate=rate)
    write_table(synthetic_table(sample, rows.schema, plan, rng), config.output)
    fidelity = measure(
        basis,
        (rows.features[train], rows.is_fraud[train]),
        (sample.rows, sample.is_fraud),
        (rows.features[later], rows.is_fraud[later]),
    )
    return TwinResult(
        n=n,
        n_frauds=int(np.count_nonzero(sample.is_fraud)),
        n_real=len(train),
        names=rows.schema.feature_names,
        fidelity=fidelity,
    )


def twin_of_banks(rows: FeatureRows, train: NDArray[np.int64], n_banks: int) -> tuple[Twin, Basis]:
    """Return the twin of the banks' added summaries, and the basis of its moments.

    Parameters
    ----------
    rows
        Of all banks.
    train
        Which rows count.
    n_banks
        Banks are 0 .. n_banks - 1.
    """
    n_features = len(rows.schema.feature_names)
    mine = [train[rows.bank[train] == i] for i in range(n_banks)]
    merged = np.zeros(empty_counts(n_features).shape, np.int64)
    for of_bank in mine:
        counts = empty_counts(n_features)
        add_rows(counts, rows.features[of_bank], rows.is_fraud[of_bank])
        merged += counts
    basis = build_basis(merged, rows.schema, 1)
    moments = Moments.empty(n_features)
    for of_bank in mine:
        moments = moments.merged(_moments(rows, of_bank, basis))
    return build_twin(merged, moments, basis), basis


def _moments(rows: FeatureRows, index: NDArray[np.int64], basis: Basis) -> Moments:
    moments, scores = Moments.empty(basis.n_features), bin_scores(basis)
    for start in range(0, len(index), _BLOCK):
        block = index[start : start + _BLOCK]
        active = encode(basis, rows.features[block])
        sampled = is_sampled(rows.hashes[block])
        moments.add(active, scores, rows.is_fraud[block], sampled=sampled)
    return moments
