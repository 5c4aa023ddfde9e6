"""Accounts go to banks by seeded shares, each account to one bank, the same on every run."""

import numpy as np
import pytest

from deploy.splits import HANDBOOK, Split, parse_split
from models.errors import InvalidInputError

SHARES = (0.40, 0.25, 0.15, 0.12, 0.08)


def test_handbook_is_the_published_draw():
    """Customer i of 5,000 goes where NumPy's generator 7 draws the i-th of the five shares."""
    drawn = np.random.default_rng(7).choice(5, size=5_000, p=[0.40, 0.25, 0.15, 0.12, 0.08])
    ids = [str(i) for i in range(5_000)]
    assert parse_split("handbook").banks(ids).tolist() == drawn.tolist()


def test_handbook_is_written_out_as_any_other_split():
    """The word and its text mean the same seed and shares."""
    assert parse_split("handbook") == parse_split(HANDBOOK) == Split(7, SHARES)


def test_numbered_accounts_are_drawn_by_their_number():
    """Which other accounts are there, and how often and in which order, changes nothing."""
    split = Split(11, SHARES)
    drawn = np.random.default_rng(11).choice(5, size=300, p=SHARES)
    rows = ["299", "7", "7", "41", "0", "299"]
    assert split.banks(rows).tolist() == [drawn[int(text)] for text in rows]


def test_named_accounts_are_drawn_in_the_order_of_their_texts():
    """One text that is no number makes all of them texts: "10" then comes before "9"."""
    rows = ["9", "card-b", "10", "card-a", "9"]
    ordered = sorted(set(rows))
    drawn = np.random.default_rng(3).choice(2, size=4, p=(0.5, 0.5))
    expected = [drawn[ordered.index(text)] for text in rows]
    assert ordered == ["10", "9", "card-a", "card-b"]
    assert Split(3, (0.5, 0.5)).banks(rows).tolist() == expected


def test_each_account_belongs_to_one_bank():
    """All rows of an account are in the same bank, so that banks share none."""
    rng = np.random.default_rng(1)
    ids = [f"A{i:04d}" for i in rng.integers(500, size=3_000)]
    bank = Split(5, SHARES).banks(ids)
    accounts = [{text for text, at in zip(ids, bank, strict=True) if at == i} for i in range(5)]
    assert sum(map(len, accounts)) == len(set().union(*accounts)) == len(set(ids))


def test_shares_of_accounts_are_those_asked_for():
    """Within four standard errors of a share over 20,000 accounts."""
    n = 20_000
    found = np.bincount(Split(2, SHARES).banks([f"A{i:05d}" for i in range(n)]), minlength=5) / n
    errors = [4 * np.sqrt(share * (1 - share) / n) for share in SHARES]
    assert (np.abs(found - SHARES) < errors).all()


def test_same_seed_gives_the_same_banks_and_another_others():
    """The split is a function of seed, shares and accounts alone."""
    ids = [f"A{i:03d}" for i in range(400)]
    first = Split(8, SHARES).banks(ids)
    assert np.array_equal(first, Split(8, SHARES).banks(ids))
    assert not np.array_equal(first, Split(9, SHARES).banks(ids))


def test_no_rows_have_no_banks():
    """An empty file splits into nothing, as int64."""
    found = Split(8, SHARES).banks([])
    assert (found.shape, found.dtype) == ((0,), np.int64)


def test_names_count_from_one():
    """One name a share, in their order."""
    assert Split(1, (0.2, 0.3, 0.5)).names == ("bank-1", "bank-2", "bank-3")


def test_split_is_read_from_its_text():
    """Seed before the colon, shares after it."""
    assert parse_split("12:0.5,0.25,0.25") == Split(12, (0.5, 0.25, 0.25))
    assert parse_split("0:1") == Split(0, (1.0,))


@pytest.mark.parametrize(
    "text", ["", "7", "7:", "x:1", "1.5:1", "7:0.5;0.5", "7:0.5,0.5,", ":0.5,0.5", "Handbook"]
)
def test_text_of_another_form_is_refused(text):
    """The message says the form and quotes what came."""
    with pytest.raises(InvalidInputError, match=r"SEED:SHARE,SHARE") as caught:
        parse_split(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    "text", ["7:0.5,0.6", "7:0.5", "7:1.5,-0.5", "7:0,1", "7:nan,1", "7:inf,0.5", "7:0.5,0.499999"]
)
def test_shares_that_are_none_are_refused(text):
    """Not positive, no numbers, or another sum than 1."""
    with pytest.raises(InvalidInputError, match="positive shares that sum to 1"):
        parse_split(text)


def test_long_card_numbers_are_drawn_in_the_order_of_their_texts():
    """A draw for every number up to a card's would not fit into any memory."""
    cards = [f"40001234123412{i:02}" for i in range(40)]
    found = Split(1, (0.5, 0.5)).banks(cards)
    expected = np.random.default_rng(1).choice(2, size=40, p=(0.5, 0.5))
    assert found.tolist() == expected.tolist()
