"""TOML read strictly: what is there, what may be left out, and messages that name the place."""

from pathlib import Path
from typing import Any

import pytest

from models.errors import SettingsError
from models.toml_table import TomlTable, near_miss, read_toml


def table(**values: object) -> TomlTable:
    return TomlTable(values, file="bank.toml", name="amount")


def message_of(call: Any, *args: Any) -> str:
    """Return what the operator reads."""
    with pytest.raises(SettingsError) as caught:
        call(*args)
    return str(caught.value)


def test_the_root_of_a_file_holds_its_keys(tmp_path: Path) -> None:
    """Text is UTF-8."""
    path = tmp_path / "bank.toml"
    path.write_text('bank = "Zürich"\n[time]\nzone = "UTC"\n', encoding="utf-8")
    root = read_toml(path)
    assert root.text("bank") == "Zürich"
    assert root.table("time").text("zone") == "UTC"


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (None, "expected a readable file"),
        (b"a = ", "expected TOML"),
        (b"a = '\xff'", "expected TOML"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, content: bytes | None, part: str
) -> None:
    """Missing, not TOML, not UTF-8."""
    path = tmp_path / "bank.toml"
    if content is not None:
        path.write_bytes(content)
    assert message_of(read_toml, path).startswith(f"{path}: {part}")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    """As a mistyped mount may make one."""
    assert message_of(read_toml, tmp_path).startswith(f"{tmp_path}: expected a readable file")


def test_texts_are_returned() -> None:
    """An optional one may be left out."""
    assert table(unit="minor").text("unit") == "minor"
    assert table(unit="minor").optional_text("unit") == "minor"
    assert table().optional_text("unit") is None


@pytest.mark.parametrize("bad", ["", 3, True, 1.5, ["minor"], {"a": 1}])
def test_other_values_are_no_text(bad: object) -> None:
    """Neither where it is required nor where it may be left out."""
    expected = f"bank.toml: amount.unit: expected a unit, got {bad!r}"
    assert message_of(table(unit=bad).text, "unit", "a unit") == expected
    assert message_of(table(unit=bad).optional_text, "unit", "a unit") == expected


def test_a_missing_text_names_a_key_that_looks_like_it() -> None:
    """Out of those nobody has asked for."""
    slip = table(unt="minor", scale="x")
    assert message_of(slip.text, "unit", "a unit") == (
        "bank.toml: amount.unit: expected a unit, got nothing; did you mean 'unt'?"
    )
    slip.value("unt")
    assert message_of(slip.text, "unit", "a unit").endswith("got nothing")


def test_keys_of_the_root_have_no_prefix() -> None:
    """A table's name stands before a dot only where there is one."""
    root = TomlTable({}, file="bank.toml")
    assert message_of(root.text, "bank").startswith("bank.toml: bank: expected")
    inner = TomlTable({"b": {}}, file="bank.toml", name="a").table("b")
    assert message_of(inner.text, "c").startswith("bank.toml: a.b.c: expected")


def test_a_choice_is_one_of_the_words_or_the_default() -> None:
    """The word wins over the default."""
    words = ("decimal", "minor")
    assert table(unit="minor").choice("unit", words) == "minor"
    assert table(unit="minor").choice("unit", words, "decimal") == "minor"
    assert table().choice("unit", words, "decimal") == "decimal"


@pytest.mark.parametrize(
    ("values", "end"),
    [
        ({"unit": "minr"}, "got 'minr'; did you mean 'minor'?"),
        ({"unit": "xyz"}, "got 'xyz'"),
        ({"unit": 2}, "got 2"),
        ({}, "got nothing"),
    ],
)
def test_another_word_is_refused(values: dict[str, object], end: str) -> None:
    """With the words that are allowed and the nearest of them."""
    text = message_of(table(**values).choice, "unit", ("decimal", "minor"))
    assert text == f"bank.toml: amount.unit: expected one of 'decimal', 'minor', {end}"


@pytest.mark.parametrize(("value", "number"), [(1, 1.0), (0.089, 0.089), (10**30, 1e30)])
def test_a_positive_number_is_a_float(value: float, number: float) -> None:
    """Whole or not."""
    found = table(rate=value).positive("rate", "a rate")
    assert (found, type(found)) == (number, float)


@pytest.mark.parametrize(
    "bad", [0, 0.0, -1, float("nan"), float("inf"), float("-inf"), True, "1", None, [1]]
)
def test_other_values_are_no_positive_number(bad: object) -> None:
    """NaN, infinity and a boolean included, and nothing at all."""
    text = message_of(table(rate=bad).positive, "rate", "a rate")
    assert text == f"bank.toml: amount.rate: expected a rate, got {bad!r}"


def test_a_table_may_be_left_out_unless_required() -> None:
    """What is left out is an empty one."""
    assert table().table("time").values == {}
    assert table(time={"zone": "UTC"}).required_table("time").values == {"zone": "UTC"}
    text = message_of(table(tiem={}).required_table, "time")
    assert text.endswith("expected a table [amount.time], got nothing; did you mean 'tiem'?")


@pytest.mark.parametrize("bad", ["x", 3, [{}], False])
def test_other_values_are_no_table(bad: object) -> None:
    """Also where an empty one would do."""
    expected = f"bank.toml: amount.time: expected a table [amount.time], got {bad!r}"
    assert message_of(table(time=bad).table, "time") == expected
    assert message_of(table(time=bad).required_table, "time") == expected


def test_finish_refuses_keys_that_nobody_asked_for() -> None:
    """The message lists those that were, sorted, and the nearest."""
    some = table(unit="minor", colour="red")
    some.optional_text("unit")
    some.value("scale")
    assert message_of(some.finish) == (
        "bank.toml: amount.colour: expected one of the keys scale, unit, got an unknown key"
    )
    slip = table(scael=1)
    slip.value("scale")
    assert message_of(slip.finish).endswith("an unknown key; did you mean 'scale'?")


def test_finish_accepts_what_was_asked_for_in_any_way() -> None:
    """Every way of reading a key counts."""
    some = table(a="x", b="y", c="z", d=1, e={}, f={}, g=0)
    some.text("a")
    some.optional_text("b")
    some.choice("c", ("z",))
    some.positive("d", "a number")
    some.table("e")
    some.required_table("f")
    some.value("g")
    some.finish()


@pytest.mark.parametrize(
    ("word", "hint"), [("teminal", "; did you mean 'terminal'?"), ("xyz", ""), ("", "")]
)
def test_near_misses_are_offered_and_far_ones_are_not(word: str, hint: str) -> None:
    """Out of the words that are known."""
    assert near_miss(word, iter(["merchant", "terminal"])) == hint
