"""Every code that may be a reason of an alert has words."""

import pytest

from deploy.feature_words import feature_words
from models.schema import ACCOUNT_FEATURES, ENTITY_FEATURES, Schema

SCHEMA = Schema(entity_kinds=("terminal", "device"))


@pytest.mark.parametrize("code", SCHEMA.feature_names)
def test_every_feature_is_put_into_words(code):
    """Who it is of, a colon, and words that are not its code."""
    owner, colon, words = feature_words(code).partition(": ")
    assert colon
    assert owner == (code.partition(".")[0] if "." in code else "account")
    assert words
    assert "_" not in words


def test_no_two_features_share_their_words():
    """Else a reader could not tell them apart."""
    assert len({feature_words(code) for code in ACCOUNT_FEATURES}) == len(ACCOUNT_FEATURES)
    codes = [f"terminal.{name}" for name in ENTITY_FEATURES]
    assert len({feature_words(code) for code in codes}) == len(codes)


def test_cross_of_one_owner_names_it_once():
    """The second side of the same terminal is not introduced again."""
    words = feature_words("terminal.f_7d x terminal.n_7d")
    assert words == f"{feature_words('terminal.f_7d')} × known outcomes in 7 days"


def test_cross_of_two_owners_names_both():
    """Also where the account comes first."""
    for first, second in (("terminal.f_7d", "log_amount"), ("gap_d", "device.risk_1d")):
        expected = f"{feature_words(first)} × {feature_words(second)}"
        assert feature_words(f"{first} x {second}") == expected


def test_unknown_code_is_shown_as_it_is():
    """A newer member's feature is better than nothing."""
    assert feature_words("novelty") == "account: novelty"
    assert feature_words("terminal.novelty") == "terminal: novelty"


def test_attribute_is_told_by_its_name():
    """Dots and all."""
    assert feature_words("attribute.a.b x gap_d").startswith("attribute: a.b × account: ")
