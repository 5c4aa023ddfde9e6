"""The foreign data set: shares, rates, absences, what a mapping reads, and that pooling pays."""

import lightgbm as lgb
import numpy as np
import pyarrow.parquet as pq
import pytest

from deploy.backtest import BacktestConfig, run_backtest
from deploy.foreign import (
    DAY_MS,
    ENTITY_KINDS,
    ForeignConfig,
    bank_shares,
    foreign_payments,
    write_foreign,
)
from models.errors import InvalidInputError
from models.evaluation import average_precision
from models.mapping import load_mapping
from models.tables import read_table
from models.words import Words

CONFIG = ForeignConfig(n_rows=30_000, n_attributes=60, seed=3)
PAYMENTS = foreign_payments(CONFIG)


def absent(column):
    """Return where an attribute is absent."""
    return column.codes < 0 if isinstance(column, Words) else np.isnan(column)


ABSENT = {name: absent(column) for name, column in PAYMENTS.attributes.items()}


def test_every_column_has_a_value_for_every_row():
    """Names in order, numbers as float32 and finite, texts of 2 to 200 words, instants in order."""
    n = CONFIG.n_rows
    assert list(PAYMENTS.attributes) == [f"a{i:03d}" for i in range(1, 61)]
    for name, column in PAYMENTS.attributes.items():
        assert len(column) == n
        if isinstance(column, Words):
            assert 2 <= len(column.words) <= 200
            assert column.codes.max() < len(column.words)
        else:
            assert column.dtype == np.float32
            assert np.isfinite(column[~ABSENT[name]]).all()
    kinds = {type(column) for column in PAYMENTS.attributes.values()}
    assert kinds == {np.ndarray, Words}
    assert len(PAYMENTS.entities) == len(ENTITY_KINDS)
    assert (np.diff(PAYMENTS.event_time_ms) >= 0).all()
    span_d = (PAYMENTS.event_time_ms[-1] - PAYMENTS.event_time_ms[0]) / DAY_MS
    assert 140 < span_d <= 150
    assert PAYMENTS.amount.min() > 0


def test_banks_have_their_shares_and_few_frauds():
    """The largest a third, the smallest a fiftieth, sixteen times less; 1 to 4 % frauds each."""
    shares = bank_shares(8)
    assert shares.sum() == pytest.approx(1.0)
    assert shares[0] / shares[-1] == pytest.approx(16.0)
    assert 0.3 < shares[0] < 0.4
    assert 0.015 < shares[-1] < 0.035
    counts = np.bincount(PAYMENTS.bank, minlength=8)
    deviation = np.sqrt(shares * (1 - shares) * CONFIG.n_rows)
    assert (np.abs(counts - shares * CONFIG.n_rows) < 5 * deviation).all()
    for b in range(8):
        rate = PAYMENTS.is_fraud[PAYMENTS.bank == b].mean()
        noise = 4 * np.sqrt(0.04 * 0.96 / counts[b])
        assert 0.012 - noise < rate < 0.038 + noise
    assert 0.01 <= PAYMENTS.is_fraud.mean() <= 0.04


def test_an_account_is_of_one_bank_and_pays_a_few_times():
    """Six times on average, by construction; some never."""
    pairs = set(zip(PAYMENTS.account.tolist(), PAYMENTS.bank.tolist(), strict=True))
    accounts = len(set(PAYMENTS.account.tolist()))
    assert len(pairs) == accounts
    assert 5.9 < CONFIG.n_rows / accounts < 8.0


def test_entities_are_few_in_most_rows():
    """A tenth of the numbers takes at least a quarter of the rows."""
    for entity in PAYMENTS.entities:
        named = entity[entity >= 0]
        counts = np.sort(np.bincount(named))[::-1]
        assert counts[: len(counts) // 10].sum() > len(named) / 4


def test_half_the_attributes_are_mostly_missing_and_banks_lack_some():
    """By bank, and by what is not seen."""
    shares = np.array([is_absent.mean() for is_absent in ABSENT.values()])
    assert 0.3 < (shares > 0.5).mean() < 0.7
    assert (shares < 0.3).sum() > 15
    lacking = [
        (name, b)
        for name, is_absent in ABSENT.items()
        for b in range(8)
        if is_absent[PAYMENTS.bank == b].all()
    ]
    assert lacking
    assert len({name for name, _ in lacking}) < 30


def test_the_same_seed_gives_the_same_payments():
    """To the bit; another seed gives others."""
    small = ForeignConfig(n_rows=2_000, n_attributes=7, seed=5)
    one, two = foreign_payments(small), foreign_payments(small)
    for name, column in one.attributes.items():
        other = two.attributes[name]
        left, right = (x.codes if isinstance(x, Words) else x for x in (column, other))
        np.testing.assert_array_equal(left, right)
    np.testing.assert_array_equal(one.is_fraud, two.is_fraud)
    np.testing.assert_array_equal(one.amount, two.amount)
    different = foreign_payments(ForeignConfig(n_rows=2_000, n_attributes=7, seed=6))
    assert not np.array_equal(one.amount, different.amount)


def test_the_mapping_reads_the_file_without_a_refused_row(tmp_path):
    """Everything comes back: numbers to the bit, texts, entities, frauds, banks."""
    config = ForeignConfig(n_rows=4_000, n_attributes=25, seed=2)
    mapping = load_mapping(write_foreign(config, tmp_path / "foreign.parquet"))
    table = read_table(tmp_path / "foreign.parquet", mapping)
    made = foreign_payments(config)
    assert table.errors == []
    rows = table.source_rows
    np.testing.assert_array_equal(table.is_fraud, made.is_fraud[rows])
    assert table.bank == [f"bank-{b + 1}" for b in made.bank[rows].tolist()]
    np.testing.assert_array_equal(table.batch.event_time_ms, made.event_time_ms[rows])
    for name, column in made.attributes.items():
        read = table.batch.attributes[name]
        if isinstance(column, Words):
            assert read.tolist() == column[rows].tolist()
        else:
            np.testing.assert_array_equal(read, column[rows])
    for kind, entity in zip(ENTITY_KINDS, made.entities, strict=True):
        expected = [None if i < 0 else f"{kind}-{i}" for i in entity[rows].tolist()]
        assert table.batch.entities[kind] == expected


def test_a_back_test_takes_the_attributes_as_features(tmp_path):
    """Of the file alone, by its mapping; a run to the end with finite scores."""
    config = ForeignConfig(n_rows=1_500, n_attributes=6, n_banks=2, n_days=20, seed=2)
    mapping = write_foreign(config, tmp_path / "foreign.parquet")
    config = BacktestConfig(file=tmp_path / "foreign.parquet", mapping=mapping, cadence_s=86_400.0)
    result = run_backtest(config, lambda _: None)
    assert np.isfinite(result.amalgamated).all()
    assert len(result.is_fraud) == 1_500


@pytest.mark.parametrize(
    ("name", "value"),
    [("n_rows", 799), ("n_attributes", 0), ("n_attributes", 1000), ("n_banks", 1), ("n_days", 0),
     ("seed", -1)],
)  # fmt: skip
def test_numbers_out_of_range_are_refused(name, value):
    """By name, with the range."""
    with pytest.raises(InvalidInputError, match=f"{name}: expected"):
        ForeignConfig(**{name: value})


def test_columns_of_the_file_are_small(tmp_path):
    """Numbers as float32, texts coded."""
    write_foreign(ForeignConfig(n_rows=1_000, n_attributes=20), tmp_path / "f.parquet")
    schema = pq.read_schema(tmp_path / "f.parquet")
    kinds = {str(schema.field(f"a{i:03d}").type) for i in range(1, 21)}
    assert kinds == {"float", "dictionary<values=string, indices=int32, ordered=0>"}


@pytest.mark.slow
def test_pooled_rows_teach_more_than_the_smallest_bank_s():
    """LightGBM on the first two thirds of time, judged on the last of the smallest bank."""
    payments = foreign_payments(ForeignConfig(n_rows=60_000, n_attributes=60, seed=1))
    x = np.column_stack(
        [c.codes if isinstance(c, Words) else c for c in payments.attributes.values()]
    ).astype(np.float32)
    is_early = payments.event_time_ms < payments.event_time_ms[40_000]
    is_own = payments.bank == 7
    scores = []
    for rows in (is_early, is_early & is_own):
        model = lgb.train(
            {"objective": "binary", "num_threads": 1, "verbose": -1, "max_bin": 63, "seed": 1},
            lgb.Dataset(x[rows], payments.is_fraud[rows].astype(int)),
            40,
        )
        judged = is_own & ~is_early
        scores.append(average_precision(payments.is_fraud[judged], model.predict(x[judged])))
    pooled, alone = scores
    assert pooled > alone + 0.05
