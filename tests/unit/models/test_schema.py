"""The schema: names, crosses that exist, a hash that changes with any meaning."""

import re
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import schema as module
from models.errors import InvalidInputError
from models.schema import (
    ACCOUNT_FEATURES,
    ENTITY_FEATURES,
    AttributeSpec,
    Schema,
    attribute_lines,
    attribute_specs,
)

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


ATTRIBUTES = st.dictionaries(
    st.text("aZ09_.-", min_size=1, max_size=4), st.sampled_from(["number", "text"]), max_size=5
).map(attribute_specs)


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ((), "0cb1bd935d1bbe94"),
        (("terminal",), "45902ed80d3497f3"),
        (("terminal", "merchant", "device"), "df7c74771d399ce7"),
    ],
)
def test_the_hash_without_attributes_is_that_of_version_0_1(
    kinds: tuple[str, ...], expected: str
) -> None:
    """Members that have none need not move together."""
    assert Schema(entity_kinds=kinds).hash == expected


@given(attributes=ATTRIBUTES)
def test_attributes_are_the_last_columns(attributes: tuple[AttributeSpec, ...]) -> None:
    """Named after them; the text ones are categories, nothing else is."""
    schema = Schema(entity_kinds=("terminal",), attributes=attributes)
    n = len(attributes)
    assert schema.n_attributes == n
    assert schema.n_features == len(schema.feature_names) == 32 + n
    assert schema.feature_names[32:] == tuple(f"attribute.{spec.name}" for spec in attributes)
    expected = [False] * 32 + [spec.type == "text" for spec in attributes]
    assert schema.is_category.tolist() == expected
    assert schema.is_category.dtype == bool
    assert schema.crosses == Schema(entity_kinds=("terminal",)).crosses


@given(one=ATTRIBUTES, two=ATTRIBUTES)
def test_the_hash_tells_attributes_and_types_apart(
    one: tuple[AttributeSpec, ...], two: tuple[AttributeSpec, ...]
) -> None:
    """Equal for the same ones in the same order alone."""
    hashes = [Schema(entity_kinds=("ip",), attributes=specs).hash for specs in (one, two, one)]
    assert hashes[0] == hashes[2]
    assert (hashes[0] == hashes[1]) == (one == two)


def test_the_hash_changes_with_a_type() -> None:
    """A number that becomes a category means something else."""
    number, text = (
        Schema(entity_kinds=(), attributes=attribute_specs({"a": kind}))
        for kind in ("number", "text")
    )
    assert number.hash != text.hash != Schema(entity_kinds=()).hash


@pytest.mark.parametrize("name", ["", "x" * 65, "a b", "é", "a\n", "a=b", '"', "٣"])
def test_names_that_are_no_names_are_refused(name: str) -> None:
    """They stand in files and messages as they are."""
    with pytest.raises(InvalidInputError, match="ASCII letters") as caught:
        AttributeSpec(name, "number")
    assert repr(name) in str(caught.value)
    assert AttributeSpec("Z" * 64, "text").name == "Z" * 64


@pytest.mark.parametrize("kind", ["", "Number", 1, None])
def test_types_are_number_and_text(kind: object) -> None:
    """The message names the attribute."""
    with pytest.raises(InvalidInputError, match=r"attributes\.age: expected 'number' or 'text'"):
        attribute_specs({"age": kind})


def test_attributes_that_repeat_or_are_too_many_are_refused() -> None:
    """1,024 are fine; a kind that is named like them is not."""
    specs = tuple(AttributeSpec(f"a{i}", "number") for i in range(1025))
    assert Schema(entity_kinds=(), attributes=specs[:1024]).n_features == 20 + 1024
    for wrong in (specs, (specs[0], AttributeSpec("a0", "text"))):
        with pytest.raises(InvalidInputError, match="at most 1024 distinct names"):
            Schema(entity_kinds=(), attributes=wrong)
    with pytest.raises(InvalidInputError, match="no kind 'attribute'"):
        Schema(entity_kinds=("attribute",), attributes=specs[:1])
    assert Schema(entity_kinds=("attribute",)).n_features == 32


@given(attributes=ATTRIBUTES)
def test_attributes_come_back_from_toml(attributes: tuple[AttributeSpec, ...]) -> None:
    """In the order of their names, whatever the order in the file."""
    lines = attribute_lines(attributes)
    table = tomllib.loads("\n".join(lines)).get("attributes", {})
    assert attribute_specs(table) == attributes
    assert attribute_specs(dict(reversed(table.items()))) == attributes
    assert [spec.name for spec in attributes] == sorted(spec.name for spec in attributes)
