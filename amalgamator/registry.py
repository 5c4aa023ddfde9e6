"""The members of a consortium: their workers, public keys, and which keys are revoked."""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from models.errors import InvalidInputError, SettingsError
from models.keys import Verifier
from models.schema import AttributeSpec, attribute_lines, attribute_specs

_TOP_KEYS = {"consortium", "entity_kinds", "attributes", "members"}
_MEMBER_KEYS = {"public_keys", "workers", "share", "weight", "revoked"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One institution.

    Parameters
    ----------
    name
        As in its envelopes.
    verifiers
        Its public keys by key id; two while it replaces one.
    workers
        Names of its workers, at least one.
    share
        Its part of the consortium's transactions in (0, 1], as agreed on joining.
    weight
        Factor on its counts and statistics in every merge, in [0, 1].
    revoked
        Key ids whose envelopes are refused; a member without another key is out.
    """

    name: str
    verifiers: Mapping[str, Verifier]
    workers: tuple[str, ...]
    share: float = 1.0
    weight: float = 1.0
    revoked: frozenset[str] = field(default_factory=frozenset)

    @property
    def is_expelled(self) -> bool:
        """Whether every key is revoked, so that the member's sums are left out."""
        return self.verifiers.keys() <= self.revoked


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """Who may speak in a consortium.

    Parameters
    ----------
    consortium
        Its name.
    entity_kinds, attributes
        Kinds and attributes of `models.schema.Schema`.
    members
        By name.
    """

    consortium: str
    entity_kinds: tuple[str, ...]
    members: Mapping[str, Member]
    attributes: tuple[AttributeSpec, ...] = ()

    def active(self) -> tuple[Member, ...]:
        """Return the members that count, sorted by name."""
        return tuple(
            self.members[name]
            for name in sorted(self.members)
            if not self.members[name].is_expelled
        )

    def workers(self) -> tuple[tuple[str, str], ...]:
        """Return (member, worker) of all that count, sorted."""
        return tuple(
            (member.name, worker) for member in self.active() for worker in sorted(member.workers)
        )


def parse_registry(text: str, source: str = "registry") -> Registry:
    """Read a registry in TOML.

    Parameters
    ----------
    text
        ``consortium``, ``entity_kinds``, perhaps a table ``[attributes]`` with ``number`` or
        ``text`` for each name, and a table ``[members.NAME]`` for each member with
        ``public_keys`` (hexadecimal), ``workers``, and perhaps ``share``, ``weight``, ``revoked``.
    source
        Where it came from, for messages.

    Raises
    ------
    SettingsError
        If a key is unknown, missing or of another type; the message names file and key.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{source}: expected TOML; {error}") from error
    _check_keys(table, _TOP_KEYS, source)
    members = _expect({"members": {}} | table, "members", dict, source)
    return Registry(
        consortium=_expect(table, "consortium", str, source),
        entity_kinds=_texts(table, "entity_kinds", source),
        attributes=_attributes(table, source),
        members={
            name: _parse_member(name, _expect(members, name, dict, f"{source}: members"), source)
            for name in members
        },
    )


def format_registry(registry: Registry) -> str:
    """Return the TOML that `parse_registry` reads."""
    lines = [
        f"consortium = {_quoted(registry.consortium)}",
        f"entity_kinds = {_list(registry.entity_kinds)}",
        *attribute_lines(registry.attributes),
    ]
    lines += [line for member in registry.members.values() for line in _member_lines(member)]
    return "\n".join(lines) + "\n"


def format_member(member: Member) -> str:
    """Return a member's table, to be appended to a registry's file."""
    return "\n".join(_member_lines(member)) + "\n"


def _member_lines(member: Member) -> list[str]:
    return [
        "",
        f"[members.{_quoted(member.name)}]",
        f"public_keys = {_list(v.public_key.hex() for v in member.verifiers.values())}",
        f"workers = {_list(member.workers)}",
        f"share = {member.share!r}",
        f"weight = {member.weight!r}",
        f"revoked = {_list(sorted(member.revoked))}",
    ]


def _attributes(table: dict[str, Any], source: str) -> tuple[AttributeSpec, ...]:
    try:
        return attribute_specs(_expect({"attributes": {}} | table, "attributes", dict, source))
    except SettingsError:
        raise
    except InvalidInputError as error:
        raise SettingsError(f"{source}: {error}") from error


def _parse_member(name: str, table: dict[str, Any], source: str) -> Member:
    where = f"{source}: members.{name}"
    _check_keys(table, _MEMBER_KEYS, where)
    try:
        keys = [Verifier.from_hex(text) for text in _texts(table, "public_keys", where)]
    except InvalidInputError as error:
        raise SettingsError(f"{where}: public_keys: {error}") from error
    workers = _texts(table, "workers", where)
    share, weight = (_number(table, key, where) for key in ("share", "weight"))
    if not keys or not workers:
        raise SettingsError(f"{where}: expected at least one public key and one worker")
    if not 0.0 < share <= 1.0 or not 0.0 <= weight <= 1.0:
        raise SettingsError(f"{where}: expected share in (0, 1] and weight in [0, 1]")
    return Member(
        name=name,
        verifiers={key.key_id: key for key in keys},
        workers=workers,
        share=share,
        weight=weight,
        revoked=frozenset(_texts(table, "revoked", where)) if "revoked" in table else frozenset(),
    )


def _check_keys(table: Mapping[str, object], known: set[str], where: str) -> None:
    unknown = sorted(set(table) - known)
    if unknown:
        raise SettingsError(
            f"{where}: {unknown[0]}: unknown key; expected one of {', '.join(sorted(known))}"
        )


def _expect(table: Mapping[str, Any], key: str, kind: type, where: str) -> Any:
    value = table.get(key)
    if not isinstance(value, kind):
        raise SettingsError(f"{where}: {key}: expected a {kind.__name__}")
    return value


def _texts(table: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    values = _expect(table, key, list, where)
    if not all(isinstance(value, str) and value for value in values):
        raise SettingsError(f"{where}: {key}: expected a list of texts")
    return tuple(values)


def _number(table: Mapping[str, Any], key: str, where: str) -> float:
    value = table.get(key, 1.0)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SettingsError(f"{where}: {key}: expected a number")
    return float(value)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _list(texts: Iterable[str]) -> str:
    return "[" + ", ".join(_quoted(text) for text in texts) + "]"
