"""The schema: names, crosses that exist, a hash that changes with any meaning."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import schema as module
from models.errors import InvalidInputError
from models.schema import ACCOUNT_FEATURES, ENTITY_FEATURES, Schema

KINDS = st.lists(st.text(min_size=1, max_size=3), unique=True, max_size=16).map(tuple)


@given(kinds=KINDS)
def test_columns_are_the_account_s_then_each_kind_s(kinds: tuple[str, ...]) -> None:
    """20 and 12 for each kind, in the order of the kinds."""
    names = Schema(entity_kinds=kinds).feature_names
    assert len(names) == 20 + 12 * len(kinds)
    assert names[:20] == ACCOUNT_FEATURES
    for k, kind in enumerate(kinds):
        own = names[20 + 12 * k : 32 + 12 * k]
        assert own == tuple(f"{kind}.{feature}" for feature in ENTITY_FEATURES)


@pytest.mark.parametrize("kinds", [(), ("terminal",), ("terminal", "merchant", "device")])
def test_crosses_pair_features_that_exist(kinds: tuple[str, ...]) -> None:
    """13 of the account and 11 of each kind, no pair twice, none with itself or two kinds."""
    schema = Schema(entity_kinds=kinds)
    crosses = schema.crosses
    assert len(crosses) == 13 + 11 * len(kinds)
    assert {name for pair in crosses for name in pair} <= set(schema.feature_names)
    assert len({frozenset(pair) for pair in crosses}) == len(crosses)
    for pair in crosses:
        assert len(set(pair)) == 2
        assert len({name.rpartition(".")[0] for name in pair} - {""}) <= 1


def test_feature_names_do_not_repeat() -> None:
    """Neither in a table of names nor once kinds are put before."""
    names = Schema(entity_kinds=("terminal", "merchant")).feature_names
    assert len(set(names)) == len(names)


@given(one=KINDS, two=KINDS)
def test_the_hash_tells_kinds_and_their_order_apart(
    one: tuple[str, ...], two: tuple[str, ...]
) -> None:
    """Equal for the same kinds, 16 hexadecimal digits, different for others."""
    first, second = Schema(entity_kinds=one), Schema(entity_kinds=two)
    assert re.fullmatch("[0-9a-f]{16}", first.hash)
    assert first.hash == Schema(entity_kinds=one).hash
    assert (first.hash == second.hash) == (one == two)
    if len(one) > 1:
        assert Schema(entity_kinds=one[::-1]).hash != first.hash


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ACCOUNT_FEATURES", ACCOUNT_FEATURES[::-1]),
        ("ACCOUNT_FEATURES", ACCOUNT_FEATURES[:-1]),
        ("ENTITY_FEATURES", (*ENTITY_FEATURES, "age")),
        ("ACCOUNT_CROSSES", module.ACCOUNT_CROSSES[:-1]),
        ("ENTITY_CROSSES", tuple((b, a) for a, b in module.ENTITY_CROSSES)),
        ("ENTITY_AMOUNT_CROSS", ("f_30d", "log_amount")),
    ],
)
def test_the_hash_changes_with_every_table(
    monkeypatch: pytest.MonkeyPatch, name: str, value: object
) -> None:
    """Of names and of crosses, their order included."""
    before = Schema(entity_kinds=("terminal",)).hash
    monkeypatch.setattr(module, name, value)
    assert Schema(entity_kinds=("terminal",)).hash != before


@pytest.mark.parametrize(
    "kinds", [("terminal", "terminal"), ("",), ("ip", ""), tuple(f"k{i}" for i in range(17))]
)
def test_kinds_that_repeat_are_empty_or_too_many_are_refused(kinds: tuple[str, ...]) -> None:
    """The message shows what came; sixteen are fine."""
    with pytest.raises(InvalidInputError, match="at most 16 distinct names") as caught:
        Schema(entity_kinds=kinds)
    assert repr(kinds) in str(caught.value)
    assert Schema(entity_kinds=tuple(f"k{i}" for i in range(16))).entity_kinds[15] == "k15"
