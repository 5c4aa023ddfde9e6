"""Decimals of minor units as ISO 4217's list of active codes has them."""

import re

import pytest

from models import currencies
from models.currencies import EXPONENTS, exponent_of
from models.errors import InvalidInputError

# columns "Alphabetic Code" and "Minor unit" of ISO 4217, list one
PUBLISHED = {
    "AED": 2, "AUD": 2, "BHD": 3, "BIF": 0, "BOV": 2, "BRL": 2, "CAD": 2, "CHE": 2, "CHF": 2,
    "CHW": 2, "CLF": 4, "CLP": 0, "CNY": 2, "COU": 2, "CZK": 2, "DJF": 0, "DKK": 2, "EUR": 2,
    "GBP": 2, "GNF": 0, "HKD": 2, "HUF": 2, "IDR": 2, "ILS": 2, "INR": 2, "IQD": 3, "ISK": 0,
    "JOD": 3, "JPY": 0, "KMF": 0, "KRW": 0, "KWD": 3, "LYD": 3, "MGA": 2, "MRU": 2, "MXN": 2,
    "MXV": 2, "NOK": 2, "NZD": 2, "OMR": 3, "PLN": 2, "PYG": 0, "RON": 2, "RWF": 0, "SEK": 2,
    "SGD": 2, "SLE": 2, "STN": 2, "THB": 2, "TND": 3, "TRY": 2, "TWD": 2, "UGX": 0, "USD": 2,
    "XCG": 2,
    "USN": 2, "UYI": 0, "UYU": 2, "UYW": 4, "UZS": 2, "VED": 2, "VES": 2, "VND": 0, "VUV": 0,
    "XAF": 0, "XCD": 2, "XOF": 0, "XPF": 0, "ZAR": 2, "ZMW": 2, "ZWG": 2,
}  # fmt: skip


def test_decimals_are_those_published() -> None:
    """Every code with none, three or four decimals, and the usual ones with two."""
    assert {code: exponent_of(code) for code in PUBLISHED} == PUBLISHED
    unusual = {code for code, exponent in EXPONENTS.items() if exponent != 2}
    assert unusual == {code for code, exponent in PUBLISHED.items() if exponent != 2}


def test_codes_are_three_capitals_and_stand_in_one_list() -> None:
    """A code in two lists would silently take the decimals of the later."""
    lists = (
        currencies._NO_DECIMALS,
        currencies._TWO_DECIMALS,
        currencies._THREE_DECIMALS,
        currencies._FOUR_DECIMALS,
    )
    written = " ".join(lists).split()
    assert sorted(written) == sorted(EXPONENTS)
    assert all(re.fullmatch("[A-Z]{3}", code) for code in EXPONENTS)


@pytest.mark.parametrize(
    "code", ["XAU", "ANG", "XDR", "XXX", "XTS", "DEM", "HRK", "SLL", "ZWL", "eur", "EURO", "", "€"]
)
def test_other_codes_are_refused(code: str) -> None:
    """Metals and tests have no minor unit, withdrawn ones are not active, case matters."""
    with pytest.raises(InvalidInputError, match="expected an ISO 4217 code") as caught:
        exponent_of(code)
    assert repr(code) in str(caught.value)


def test_a_near_miss_is_named() -> None:
    """One letter too many is likely a slip."""
    with pytest.raises(InvalidInputError, match="did you mean 'EUR'"):
        exponent_of("EURO")
