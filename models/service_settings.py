"""Reading a service's settings: a TOML file and the environment above it, into a frozen dataclass.

The fields of the dataclass are the keys: ``fold_every_s`` in the file is ``PREFIXFOLD_EVERY_S`` in
the environment. Types are text, number, true or false, path and list of texts; a list is written
alike in both, as ``["a", "b"]``. A field without a default is required.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import TypeVar, get_origin, get_type_hints

from models.errors import SettingsError
from models.toml_table import near_miss, read_toml

SettingsT = TypeVar("SettingsT")
_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    tuple: "a list of texts",
    Path: "a path",
}
_WRITTEN: Mapping[type, tuple[type, ...]] = {
    int: (int,),
    float: (int, float),
    bool: (bool,),
    tuple: (list,),
}


def read_service_settings(
    kind: type[SettingsT], prefix: str, path: Path | None, environment: Mapping[str, str]
) -> SettingsT:
    """Return the settings of a file and an environment, which wins.

    Paths in the file are relative to the file.

    Parameters
    ----------
    kind
        A dataclass of text, float, int, bool, `Path` and ``tuple[str, ...]`` fields; it checks
        ranges itself.
    prefix
        Of the variables, e.g. ``AMALGAM_STREAM_``; variables without it are left alone.
    path
        TOML; None: the environment alone.

    Raises
    ------
    SettingsError
        If a key is unknown (the nearest known one is named), missing, or of another type; the
        message names it.
    """
    types = _types(kind)
    values = _from_file(path, types) if path is not None else {}
    known = [prefix + name.upper() for name in types]
    for key, text in sorted(environment.items()):
        if key.startswith(prefix):
            if key not in known:
                raise SettingsError(f"{key}: unknown setting{near_miss(key, known)}")
            name = key.removeprefix(prefix).lower()
            values[name] = _parsed(key, text, types[name])
    for each in fields(kind):  # type: ignore[arg-type]  # a dataclass, as documented
        if each.name not in values and each.default is MISSING:
            raise SettingsError(f"{_place(each.name, prefix, path)}: expected a value, got none")
    return kind(**values)


def _place(name: str, prefix: str, path: Path | None) -> str:
    variable = prefix + name.upper()
    return f"{path}: {name} ({variable})" if path is not None else variable


def _types(kind: type) -> dict[str, type]:
    """Return how each field is read; what is none of `_WORDS` is text."""
    hints = get_type_hints(kind)
    plain = {name: get_origin(hint) or hint for name, hint in hints.items()}
    return {name: hint if hint in _WORDS else str for name, hint in plain.items()}


def _from_file(path: Path, types: Mapping[str, type]) -> dict[str, object]:
    values: dict[str, object] = {}
    for name, found in read_toml(path).values.items():
        if name not in types:
            raise SettingsError(f"{path}: {name}: unknown setting{near_miss(name, types)}")
        wanted = types[name]
        if not _is_of(wanted, found):
            raise SettingsError(f"{path}: {name}: expected {_word(wanted)}, got {found!r}")
        values[name] = path.parent / str(found) if wanted is Path else wanted(found)
    return values


def _is_of(wanted: type, found: object) -> bool:
    """Return whether what TOML has is of a kind; true is no number, and a list is of texts."""
    texts = found if isinstance(found, list) else []
    return type(found) in _WRITTEN.get(wanted, (str,)) and all(type(x) is str for x in texts)


def _parsed(key: str, text: str, wanted: type) -> object:
    try:
        if wanted not in (bool, tuple):
            return wanted(text)
        root = tomllib.loads(f"value = {text}")  # as it would stand in the file
    except ValueError as error:
        raise SettingsError(f"{key}: expected {_word(wanted)}, got {text!r}") from error
    if len(root) > 1 or not _is_of(wanted, root["value"]):
        raise SettingsError(f"{key}: expected {_word(wanted)}, got {text!r}")
    return wanted(root["value"])


def _word(wanted: type) -> str:
    return _WORDS.get(wanted, "a text")
