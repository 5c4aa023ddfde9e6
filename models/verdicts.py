"""Which values of a bank's own records mean fraud, and which legitimate."""

from dataclasses import dataclass

from models.toml_table import TomlTable

_FRAUD_BY_DEFAULT = frozenset({"true", "1"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdicts:
    """Which written values mean fraud and which legitimate.

    Parameters
    ----------
    fraud
        Values of fraud, as text in lower case.
    legit
        Values of legitimate, likewise; None: every other one.
    written
        What to write for legitimate and for fraud when records are made.
    """

    fraud: frozenset[str] = _FRAUD_BY_DEFAULT
    legit: frozenset[str] | None = None
    written: tuple[str | int, str | int] = (False, True)


def read_verdicts(table: TomlTable) -> Verdicts:
    """Return what the ``[label]`` table of a mapping says of its values.

    Raises
    ------
    SettingsError
        If a list is none, or a value stands for both.
    """
    fraud = _written_values(table, "fraud_values", [True, 1])
    legit = _written_values(table, "legit_values", [])
    is_open = table.value("legit_values") is None
    words = frozenset(map(_word, fraud))
    shared = words & frozenset(map(_word, legit))
    if shared:
        raise table.error("legit_values", "none of the fraud_values", repr(sorted(shared)))
    return Verdicts(
        fraud=words,
        legit=None if is_open else frozenset(map(_word, legit)),
        written=(False if is_open else legit[0], fraud[0]),
    )


def _word(value: str | int) -> str:
    return str(value).lower()


def _written_values(table: TomlTable, key: str, default: list[str | int]) -> list[str | int]:
    found = table.value(key)
    if found is None:
        return default
    if not isinstance(found, list) or not found:
        raise table.error(key, "a list of texts, whole numbers or booleans", repr(found))
    if not all(isinstance(value, str | int) for value in found):
        raise table.error(key, "a list of texts, whole numbers or booleans", repr(found))
    return found
