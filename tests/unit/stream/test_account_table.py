"""Accounts: a row for each, under a keyed hash, growing and coming back as they were."""

import hashlib

import numpy as np
import pytest

from models.features.accounts import DAY_MS, N_FEATURES, new_accounts, observe
from stream.account_table import AccountTable

SECRET = b"s" * 32
T = 20_000 * DAY_MS


def paid(table: AccountTable, names: list[str], seed: int) -> np.ndarray:
    """Let accounts pay; return the features."""
    rng = np.random.default_rng(seed)
    n = len(names)
    at_ms = T + seed * DAY_MS + np.sort(rng.integers(0, DAY_MS, n))
    out = np.empty((n, N_FEATURES), np.float32)
    table.observe(table.rows(names), at_ms, rng.uniform(1, 100, n), out)
    return out


def test_rows_are_given_in_order_of_first_sight() -> None:
    """And stay; within a call and over calls."""
    table = AccountTable(SECRET)
    assert table.rows(["b", "a", "b"]).tolist() == [0, 1, 0]
    assert table.rows(["c", "a"]).tolist() == [2, 1]
    assert table.size == 3
    assert table.rows([]).tolist() == []


def test_thousands_of_accounts_keep_their_state_while_the_table_grows() -> None:
    """Each row is as if it had been alone."""
    table = AccountTable(SECRET)
    names = [f"a{i}" for i in range(3_000)]
    first = paid(table, ["a7"], 0)
    table.rows(names)
    second = paid(table, ["a7"], 1)
    alone = AccountTable(SECRET)
    assert paid(alone, ["a7"], 0).tobytes() == first.tobytes()
    assert paid(alone, ["a7"], 1).tobytes() == second.tobytes()
    assert table.size == 3_000
    assert len(set(table.rows(names).tolist())) == 3_000


def test_rows_are_stored_under_a_keyed_hash_and_never_by_name() -> None:
    """BLAKE2b of 8 bytes with the secret as its key; another secret gives another one."""
    table = AccountTable(SECRET)
    table.rows(["card-4711"])
    digest = hashlib.blake2b(b"card-4711", digest_size=8, key=SECRET).digest()
    assert table.arrays()["keys"].tobytes() == digest
    other = AccountTable(b"t" * 32)
    other.rows(["card-4711"])
    assert other.arrays()["keys"].tobytes() != digest
    assert not any(b"4711" in array.tobytes() for array in table.arrays().values())


@pytest.mark.parametrize("n", [0, 1, 1_024, 1_500])
def test_a_restored_table_goes_on_where_it_stopped(n: int) -> None:
    """Old accounts are found again under their names; new ones get the next rows."""
    names = [f"a{i}" for i in range(n)]
    table = AccountTable(SECRET)
    paid(table, names, 0)
    arrays = {name: array.copy() for name, array in table.arrays().items()}
    restored = AccountTable(SECRET)
    restored.load(arrays)
    later = [*names[::-2], "new", *(f"b{i}" for i in range(1_100))]
    assert paid(restored, later, 1).tobytes() == paid(table, later, 1).tobytes()
    assert restored.rows(later).tolist() == table.rows(later).tolist()
    for name, array in table.arrays().items():
        assert restored.arrays()[name].tobytes() == array.tobytes()


def test_frauds_reach_the_account_that_paid() -> None:
    """As the kernel on a plain state does, and no other row."""
    table = AccountTable(SECRET)
    table.rows(["a", "b"])
    table.learn_frauds(np.array([1]), np.array([T]), np.array([T + DAY_MS]))
    out = np.empty((2, N_FEATURES), np.float32)
    at_ms = np.full(2, T + 2 * DAY_MS)
    table.observe(table.rows(["a", "b"]), at_ms, np.ones(2), out)
    plain = np.empty((1, N_FEATURES), np.float32)
    observe(new_accounts(1), np.zeros(1, np.int64), at_ms[:1], np.ones(1), plain)
    assert out[0].tobytes() == plain[0].tobytes()
    assert out[1, 11] == pytest.approx(np.log1p(1.0))
    assert out[1, 17] == pytest.approx(2.0)
