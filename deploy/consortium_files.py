"""Writes the files with which a consortium on one machine starts: keys, registry, settings.

Each bank keeps a directory of its own with its private key and settings; the pseudonym key is given
to every bank and never to the amalgamator.
"""

import json
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from amalgamator.registry import Member, Registry, format_registry
from models.families.registry import FamilySpec
from models.keys import Signer, Verifier, save_signer
from models.schema import AttributeSpec, attribute_lines
from stream.share import worker_names

_SECRET_BYTES = 32
SettingValue = float | str | bool | Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsortiumPlan:
    """What is to be written.

    Parameters
    ----------
    name
        Of the consortium; prefix of its topics.
    entity_kinds, attributes
        Kinds whose evidence is shared, and the attributes that become features.
    mappings
        Member -> its mapping file.
    bank_bootstrap, consortium_bootstrap
        Addresses of the clusters; the same where one broker serves both.
    is_replay
        Lockstep by event time, or live.
    bank_settings
        Further settings of every bank, e.g. ``{"tick_s": 3600}``.
    families
        Member -> its own models beside the scorecard; none where it is left out.
    uses_probes, uses_nets
        Whether members are asked probes, and whether their nets are merged.
    """

    name: str
    entity_kinds: Sequence[str]
    mappings: Mapping[str, Path]
    bank_bootstrap: str
    consortium_bootstrap: str
    is_replay: bool
    bank_settings: Mapping[str, SettingValue]
    attributes: tuple[AttributeSpec, ...] = ()
    families: Mapping[str, Sequence[FamilySpec]] = field(default_factory=dict)
    uses_probes: bool = False
    uses_nets: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsortiumFiles:
    """What was written: each bank's settings file, and the amalgamator's environment."""

    settings: Mapping[str, Path]
    amalgamator: Mapping[str, str]


def write_consortium(directory: Path, plan: ConsortiumPlan) -> ConsortiumFiles:
    """Make new keys and write every file below ``directory``; a pseudonym key there is kept."""
    amalgamator = new_signer(directory / "amalgamator" / "amalgamator.key")
    secret = directory / "pseudonyms.key"
    write_secret(secret)
    signers = {bank: new_signer(directory / bank / "bank.key") for bank in plan.mappings}
    registry = Registry(
        consortium=plan.name,
        entity_kinds=tuple(plan.entity_kinds),
        attributes=plan.attributes,
        members={
            bank: Member(
                name=bank,
                verifiers={signer.key_id: Verifier(signer.public_key)},
                workers=worker_names(_n_workers(plan), "0"),
            )
            for bank, signer in signers.items()
        },
    )
    registry_file = directory / "amalgamator" / "registry.toml"
    registry_file.write_text(format_registry(registry), encoding="utf-8")
    consortium_file = directory / "consortium.toml"
    key = Verifier(amalgamator.public_key)
    uses = {"uses_probes": plan.uses_probes, "uses_nets": plan.uses_nets}
    text = consortium_text(plan.name, plan.entity_kinds, plan.attributes, key, uses)
    consortium_file.write_text(text, encoding="utf-8")
    settings = {bank: _write_bank(directory, bank, plan) for bank in plan.mappings}
    environment = {
        "AMALGAM_AMALGAMATOR_BOOTSTRAP": plan.consortium_bootstrap,
        "AMALGAM_AMALGAMATOR_REGISTRY_FILE": str(registry_file),
        "AMALGAM_AMALGAMATOR_KEY_FILE": str(directory / "amalgamator" / "amalgamator.key"),
        "AMALGAM_AMALGAMATOR_MODE": "lockstep" if plan.is_replay else "live",
        "AMALGAM_AMALGAMATOR_HEALTH_PORT": "0",
    }
    environment |= {f"AMALGAM_AMALGAMATOR_{name.upper()}": "true" for name in uses if uses[name]}
    return ConsortiumFiles(settings=settings, amalgamator=environment)


def _n_workers(plan: ConsortiumPlan) -> int:
    written = plan.bank_settings.get("workers", 1)
    return written if isinstance(written, int) else 1


def new_signer(path: Path) -> Signer:
    """Make a private key and keep it in ``path``, mode 600."""
    path.parent.mkdir(parents=True, exist_ok=True)
    signer = Signer.generate()
    path.unlink(missing_ok=True)
    save_signer(signer, path)
    return signer


def write_secret(path: Path) -> None:
    """Make a pseudonym key in ``path``, mode 600, unless there is one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_hex(_SECRET_BYTES) + "\n", encoding="ascii")


def consortium_text(
    name: str,
    entity_kinds: Sequence[str],
    attributes: Sequence[AttributeSpec],
    amalgamator: Verifier,
    uses: Mapping[str, bool] | None = None,
) -> str:
    """Return the file that every member's worker reads; of ``uses`` what is true is written."""
    kinds = ", ".join(f'"{kind}"' for kind in entity_kinds)
    lines = [
        f'consortium = "{name}"',
        f"entity_kinds = [{kinds}]",
        f'amalgamator_keys = ["{amalgamator.public_key.hex()}"]',
        *(f"{name} = true" for name, is_used in (uses or {}).items() if is_used),
        *attribute_lines(attributes),
    ]
    return "\n".join(lines) + "\n"


def _write_bank(directory: Path, bank: str, plan: ConsortiumPlan) -> Path:
    shutil.copyfile(plan.mappings[bank], directory / bank / "mapping.toml")
    path = directory / bank / "bank.toml"
    values: dict[str, SettingValue] = {
        "member": bank,
        "bank_bootstrap": plan.bank_bootstrap,
        "consortium_bootstrap": plan.consortium_bootstrap,
        "mapping_file": "mapping.toml",
        "consortium_file": "../consortium.toml",
        "key_file": "bank.key",
        "secret_file": "../pseudonyms.key",
        "state_dir": "state",
        "mode": "replay" if plan.is_replay else "live",
        "health_port": 0,
        "families": plan.families.get(bank, ()),
        "changelog": not plan.is_replay,
        **plan.bank_settings,
    }
    path.write_text(settings_text(values), encoding="utf-8")
    return path


def settings_text(values: Mapping[str, SettingValue]) -> str:
    """Return settings as TOML; texts, lists of them, true and false are written as in JSON."""
    return "".join(
        f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in values.items()
    )
