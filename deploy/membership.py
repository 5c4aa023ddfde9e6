"""Founding a consortium and joining it: the files that each side needs, and who is admitted."""

from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from amalgamator.registry import (
    Member,
    Registry,
    format_member,
    format_registry,
    parse_registry,
)
from deploy.consortium_files import consortium_text, new_signer, settings_text, write_secret
from models.errors import InvalidInputError, SettingsError
from models.keys import Verifier
from models.schema import AttributeSpec, Schema, attribute_specs
from models.toml_table import read_toml
from models.topics import BankTopics, ConsortiumTopics
from stream.share import worker_names


def bank_init(name: str, directory: Path) -> list[str]:
    """Write a new bank's files and return what to do next.

    Raises
    ------
    InvalidInputError
        If the folder has files already.
    """
    topics = BankTopics(name)
    _must_be_new(directory)
    signer = new_signer(directory / "bank.key")
    example = resources.files("deploy") / "demo_banks" / "nordbank.toml"
    text = example.read_text(encoding="utf-8").replace("nordbank", name)
    (directory / "mapping.toml").write_text(text, encoding="utf-8")
    settings = settings_text(
        {
            "member": name,
            "bank_bootstrap": "127.0.0.1:9092",
            "consortium_bootstrap": "127.0.0.1:9092",
            "mapping_file": "mapping.toml",
            "consortium_file": "consortium.toml",
            "key_file": "bank.key",
            "secret_file": "pseudonyms.key",
            "state_dir": "state",
            "changelog": True,
            "health_port": 9463,
        }
    )
    (directory / "bank.toml").write_text(settings, encoding="utf-8")
    return [
        f"wrote {directory}/bank.toml, mapping.toml and bank.key",
        f"public key for the consortium's registry: {signer.public_key.hex()}",
        "next: put consortium.toml and pseudonyms.key (from the other members) beside them, "
        "say in mapping.toml where your records keep their fields, "
        f"and send them to {topics.transactions}",
        f"then: amalgam bank run {directory}/bank.toml",
    ]


def read_attributes(written: Sequence[str], file: Path | None = None) -> tuple[AttributeSpec, ...]:
    """Return the attributes of options ``NAME=number`` or ``NAME=text`` and of a file.

    Parameters
    ----------
    written
        The options.
    file
        TOML with a table ``[attributes]``, as in consortium.toml.

    Raises
    ------
    InvalidInputError
        If an attribute is named twice, or a name or type is another than allowed.
    """
    types: dict[str, object] = {}
    if file is not None:
        root = read_toml(file)
        types |= root.required_table("attributes").values
        root.finish()
    for text in written:
        name, _, kind = text.rpartition("=")
        if name in types:
            raise InvalidInputError(f"--attribute: expected each name once, got {name!r} again")
        types[name] = kind
    return attribute_specs(types)


def consortium_init(
    name: str,
    kinds: Sequence[str],
    directory: Path,
    attributes: tuple[AttributeSpec, ...] = (),
) -> list[str]:
    """Write a new consortium's files and return what to do next.

    Raises
    ------
    InvalidInputError
        If the folder has files already, or a name does not fit into topics and files.
    """
    ConsortiumTopics(name)
    for kind in Schema(entity_kinds=tuple(kinds), attributes=attributes).entity_kinds:
        if not kind.isidentifier():
            raise InvalidInputError(f"--entity-kind: expected letters and digits, got {kind!r}")
    _must_be_new(directory)
    signer = new_signer(directory / "amalgamator.key")
    write_secret(directory / "pseudonyms.key")
    registry = Registry(
        consortium=name, entity_kinds=tuple(kinds), members={}, attributes=attributes
    )
    (directory / "registry.toml").write_text(format_registry(registry), encoding="utf-8")
    text = consortium_text(name, kinds, attributes, Verifier(signer.public_key))
    (directory / "consortium.toml").write_text(text, encoding="utf-8")
    settings = settings_text(
        {
            "bootstrap": "127.0.0.1:9092",
            "registry_file": "registry.toml",
            "key_file": "amalgamator.key",
        }
    )
    (directory / "amalgamator.toml").write_text(settings, encoding="utf-8")
    return [
        f"wrote {directory}/amalgamator.toml and .key, registry.toml, consortium.toml, "
        "pseudonyms.key",
        "give consortium.toml to every member; hand pseudonyms.key to the members and then delete "
        "it here: who runs the amalgamator must not have it",
        f"for each member: amalgam amalgamator admit {directory}/registry.toml NAME PUBLIC_KEY",
        f"then: amalgam amalgamator run {directory}/amalgamator.toml",
    ]


def admit(registry_file: Path, name: str, public_key: str, *, workers: int = 1) -> None:
    """Add a member with its workers, called 0 and so on, to a registry's file.

    Raises
    ------
    SettingsError
        If the file is no registry.
    InvalidInputError
        If it has such a member, the key is none, or there is no worker.
    """
    BankTopics(name)  # its name is the prefix of topics
    text = _registry_text(registry_file)
    if name in parse_registry(text, str(registry_file)).members:
        raise InvalidInputError(f"{registry_file}: {name} is a member already")
    verifier = Verifier.from_hex(public_key)
    if workers < 1:
        raise InvalidInputError(f"--workers: expected 1 or more, got {workers}")
    names = worker_names(workers, "0")
    member = Member(name=name, verifiers={verifier.key_id: verifier}, workers=names)
    registry_file.write_text(text + format_member(member), encoding="utf-8")


def _registry_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"{path}: expected a registry, got {error.strerror}") from error


def _must_be_new(directory: Path) -> None:
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise InvalidInputError(f"{directory}: expected a new or empty folder")
