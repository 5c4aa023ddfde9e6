"""`.env.example` lists every variable that a service reads, with its default."""

import json
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

import pytest

from amalgamator import settings as amalgamator
from stream import settings as stream

LINES = (Path(__file__).parents[3] / ".env.example").read_text(encoding="utf-8").splitlines()
SET = dict(line.split("=", 1) for line in LINES if line.startswith("AMALGAM_"))
DEFAULTS = dict(line[1:].split("=", 1) for line in LINES if line.startswith("#AMALGAM_"))
SERVICES = {stream.PREFIX: stream.Settings, amalgamator.PREFIX: amalgamator.Settings}
FIELDS = [(prefix + f.name.upper(), f) for prefix, cls in SERVICES.items() for f in fields(cls)]


@pytest.mark.parametrize(("key", "field"), FIELDS)
def test_a_setting_is_listed_with_its_default_or_as_one_to_set(key: str, field: Field[Any]) -> None:
    """What has no default stands without a '#'."""
    if field.default is MISSING:
        assert SET[key]
    else:
        listed = isinstance(field.default, bool | tuple)
        assert DEFAULTS[key] == (json.dumps(field.default) if listed else str(field.default))


def test_nothing_else_is_listed() -> None:
    """A variable that no service reads would stop it."""
    assert set(SET) | set(DEFAULTS) == {key for key, _ in FIELDS}
    assert len(SET) + len(DEFAULTS) == len(FIELDS)


def test_a_service_takes_the_example_whole() -> None:
    """Also with every default spelt out."""
    everything = {**DEFAULTS, **SET}
    assert stream.read_settings(None, everything).member == "rhinepay"
    assert amalgamator.read_settings(None, everything).bootstrap == "127.0.0.1:9092"
