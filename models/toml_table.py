"""Reading a TOML file strictly: every complaint names the file, the key and what is expected."""

import difflib
import math
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

from models.errors import SettingsError


def near_miss(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest known word, or nothing."""
    nearest = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""


def read_toml(path: Path) -> "TomlTable":
    """Return the root table of a file.

    Raises
    ------
    SettingsError
        If the file cannot be read or is not TOML.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: expected a readable file, got {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: expected TOML, got: {error}") from error
    return TomlTable(values, file=str(path))


class TomlTable:
    """One table of a TOML file; remembers which keys were asked for, so that others are refused.

    Parameters
    ----------
    values
        Keys and values of this table.
    file
        Name of the file, for messages.
    name
        Dotted name of the table, ``""`` for the root.
    """

    def __init__(self, values: Mapping[str, object], *, file: str, name: str = "") -> None:
        self.values = values
        self._file = file
        self._name = name
        self._known: set[str] = set()

    def error(self, key: str, expected: str, got: object) -> SettingsError:
        """Return the error of one key, to be raised."""
        return SettingsError(f"{self._file}: {self._dotted(key)}: expected {expected}, got {got}")

    def value(self, key: str) -> object:
        """Return what stands under a key, None when nothing does."""
        self._known.add(key)
        return self.values.get(key)

    def text(self, key: str, expected: str = "a non-empty text") -> str:
        """Return a required text."""
        found = self.optional_text(key, expected)
        if found is None:
            raise self._missing(key, expected)
        return found

    def optional_text(self, key: str, expected: str = "a non-empty text") -> str | None:
        """Return a text that may be left out."""
        found = self.value(key)
        if found is None or (isinstance(found, str) and found):
            return found
        raise self.error(key, expected, repr(found))

    def choice(self, key: str, allowed: tuple[str, ...], default: str | None = None) -> str:
        """Return one of the allowed words."""
        expected = "one of " + ", ".join(repr(word) for word in allowed)
        found = self.optional_text(key, expected) or default
        if found is None:
            raise self._missing(key, expected)
        if found not in allowed:
            raise self.error(key, expected, repr(found) + near_miss(found, allowed))
        return found

    def positive(self, key: str, expected: str) -> float:
        """Return a finite number above 0."""
        found = self.value(key)
        is_number = isinstance(found, int | float) and not isinstance(found, bool)
        if is_number and 0.0 < found < math.inf:  # type: ignore[operator]  # is_number narrows it
            return float(found)  # type: ignore[arg-type]  # is_number narrows it
        raise self.error(key, expected, repr(found))

    def table(self, key: str) -> "TomlTable":
        """Return a table below this one; an empty one when it is left out."""
        found = self.value(key)
        if found is None:
            found = {}
        if not isinstance(found, dict):
            raise self.error(key, f"a table [{self._dotted(key)}]", repr(found))
        return TomlTable(found, file=self._file, name=self._dotted(key))

    def required_table(self, key: str) -> "TomlTable":
        """Return a table that must be there."""
        if key not in self.values:
            raise self._missing(key, f"a table [{self._dotted(key)}]")
        return self.table(key)

    def finish(self) -> None:
        """Refuse keys that nobody asked for.

        Raises
        ------
        SettingsError
            If the table holds another key.
        """
        for key in self.values:
            if key not in self._known:
                known = ", ".join(sorted(self._known))
                hint = near_miss(key, self._known)
                raise self.error(key, f"one of the keys {known}", f"an unknown key{hint}")

    def _missing(self, key: str, expected: str) -> SettingsError:
        unknown = [name for name in self.values if name not in self._known]
        return self.error(key, expected, "nothing" + near_miss(key, unknown))

    def _dotted(self, key: str) -> str:
        return f"{self._name}.{key}" if self._name else key
