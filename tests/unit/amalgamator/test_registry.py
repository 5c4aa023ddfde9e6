"""The registry file: round trip, and errors that name file and key."""

from dataclasses import replace

import pytest

from amalgamator.registry import format_registry, parse_registry
from models.errors import SettingsError
from models.schema import AttributeSpec
from tests.consortium import MEMBERS, member_of, registry_of, signer_of

KEY = signer_of("alpha").public_key.hex()
GOOD = f"""
consortium = "c"
entity_kinds = ["terminal"]
[members.alpha]
public_keys = ["{KEY}"]
workers = ["0", "1"]
"""


def test_a_registry_comes_back_from_its_file() -> None:
    """Every field of every member."""
    registry = registry_of()
    alpha = replace(
        member_of("alpha", ["0", "1"]), share=0.25, weight=0.5, revoked=frozenset({"ab"})
    )
    registry = replace(registry, members={**registry.members, "alpha": alpha})
    assert parse_registry(format_registry(registry)) == registry


def test_names_with_quotes_and_dots_come_back() -> None:
    """A member's name is text, not TOML."""
    name = 'a."b"\\c'
    registry = replace(registry_of(), members={name: member_of(name)})
    assert parse_registry(format_registry(registry)) == registry


def test_attributes_come_back_from_the_file() -> None:
    """Names with dots too; a registry without them says nothing of them."""
    attributes = (AttributeSpec("a.b", "text"), AttributeSpec("c", "number"))
    registry = replace(registry_of(), attributes=attributes)
    assert parse_registry(format_registry(registry)) == registry
    assert "attributes" not in format_registry(registry_of())
    assert parse_registry(GOOD).attributes == ()


def test_share_and_weight_default_to_one() -> None:
    """A new bank needs a key and a worker."""
    member = parse_registry(GOOD).members["alpha"]
    assert (member.share, member.weight, member.revoked) == (1.0, 1.0, frozenset())


def test_workers_are_listed_sorted_and_without_the_expelled() -> None:
    """A member whose every key is revoked does not count."""
    registry = registry_of()
    beta = registry.members["beta"]
    expelled = replace(beta, revoked=frozenset(beta.verifiers))
    registry = replace(registry, members={**registry.members, "beta": expelled})
    assert registry.workers() == (("alpha", "0"), ("gamma", "0"))
    assert [member.name for member in registry_of().active()] == sorted(MEMBERS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("consortium = ", "here.toml: expected TOML"),
        (GOOD + "color = 1", "here.toml: members.alpha: color: unknown key"),
        ("colour = 1\n" + GOOD, "here.toml: colour: unknown key"),
        (GOOD.replace('consortium = "c"', ""), "here.toml: consortium: expected a str"),
        (GOOD.replace('"terminal"', "7"), "entity_kinds: expected a list of texts"),
        (GOOD.replace(f'"{KEY}"', '"ab"'), "members.alpha: public_keys"),
        (GOOD.replace(f'"{KEY}"', ""), "at least one public key"),
        (GOOD.replace('"0", "1"', ""), "at least one public key and one worker"),
        (GOOD + '[attributes]\nage = "whole"', "here.toml: attributes.age: expected 'number'"),
        (GOOD + '[attributes]\n"a b" = "text"', "here.toml: attributes: expected names"),
        ("attributes = 1\n" + GOOD, "here.toml: attributes: expected a dict"),
        (GOOD + "share = 0.0", "share in \\(0, 1\\]"),
        (GOOD + "share = nan", "share in \\(0, 1\\]"),
        (GOOD + "weight = nan", "weight in \\[0, 1\\]"),
        (GOOD + "weight = 2", "weight in \\[0, 1\\]"),
        (GOOD + 'weight = "much"', "members.alpha: weight: expected a number"),
    ],
)
def test_a_wrong_registry_is_refused_by_file_and_key(text: str, message: str) -> None:
    """The message is enough to correct it."""
    with pytest.raises(SettingsError, match=message):
        parse_registry(text, "here.toml")
