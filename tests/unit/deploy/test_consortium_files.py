"""The written files start a consortium: they parse, they fit together, and keys stay private."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from amalgamator.registry import parse_registry
from amalgamator.settings import read_settings as read_amalgamator_settings
from deploy.consortium_files import (
    ConsortiumPlan,
    new_signer,
    settings_text,
    write_consortium,
    write_secret,
)
from models.keys import Verifier, load_signer
from models.mapping import load_mapping
from models.schema import AttributeSpec
from stream.settings import read_membership, read_settings

MAPPINGS = Path(__file__).parents[3] / "deploy" / "demo_banks"
BANKS = ("nordbank", "polkabank")
KINDS = ("terminal", "device")


def plan(**changes):
    """Return the plan of a consortium of two banks."""
    values = {
        "name": "test",
        "entity_kinds": KINDS,
        "mappings": {bank: MAPPINGS / f"{bank}.toml" for bank in BANKS},
        "bank_bootstrap": "bank:1",
        "consortium_bootstrap": "consortium:2",
        "is_replay": True,
        "bank_settings": {"tick_s": 3_600.0, "cadence_s": 86_400.0, "alert_rate": 0.02},
    }
    return ConsortiumPlan(**(values | changes))


@pytest.fixture
def files(tmp_path):
    """Return what was written below ``tmp_path``."""
    return write_consortium(tmp_path, plan())


def test_amalgamator_and_banks_are_told_alike_what_the_consortium_uses(tmp_path):
    """Nothing is written of what is not used; attributes stay a table of their own."""
    attributes = (AttributeSpec("channel", "text"),)
    for probes, nets in ((False, False), (True, False), (False, True), (True, True)):
        uses = {"uses_probes": probes, "uses_nets": nets}
        written = write_consortium(tmp_path, plan(attributes=attributes, **uses))
        amalgamator = read_amalgamator_settings(None, written.amalgamator)
        membership = read_membership(read_settings(written.settings["nordbank"], {}))
        for one in (amalgamator, membership):
            assert (one.uses_probes, one.uses_nets) == (probes, nets)
        assert membership.schema.attributes == attributes
        assert ("uses_" in (tmp_path / "consortium.toml").read_text()) == (probes or nets)


def test_an_amalgamator_that_asks_probes_without_torch_is_stopped_by_one_line(tmp_path):
    """As by any wrong setting: exit status 2, before it connects."""
    program = (
        "import os, sys; sys.modules['torch'] = None; sys.argv = ['amalgamator']; "
        "from amalgamator.__main__ import main; sys.exit(main())"
    )
    written = write_consortium(tmp_path, plan(uses_probes=True, uses_nets=True))
    environment = os.environ | written.amalgamator
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == "amalgamator: probes: expected torch to be installed\n"


def is_private(path):
    """Return whether its owner alone may read and write a file."""
    return path.stat().st_mode & 0o777 == 0o600


def test_private_keys_and_the_pseudonym_key_are_their_owners_alone(files, tmp_path):
    """Mode 600 for each, and no other file holds one."""
    keys = sorted(tmp_path.rglob("*.key"))
    assert [str(path.relative_to(tmp_path)) for path in keys] == [
        "amalgamator/amalgamator.key", "nordbank/bank.key", "polkabank/bank.key", "pseudonyms.key",
    ]  # fmt: skip
    assert all(is_private(path) for path in keys)
    secrets = [path.read_text(encoding="ascii").strip() for path in keys]
    for path in set(tmp_path.rglob("*.*")) - set(keys):
        text = path.read_text(encoding="utf-8")
        assert not any(secret in text for secret in secrets)


def test_every_bank_starts_from_its_settings(files):
    """They are read, name its own mapping and keys, and agree on the consortium."""
    assert list(files.settings) == list(BANKS)
    secrets = set()
    for bank, path in files.settings.items():
        settings = read_settings(path, {})
        membership = read_membership(settings)
        assert (settings.member, settings.mode) == (bank, "replay")
        assert (settings.tick_s, settings.cadence_s, settings.alert_rate) == (3_600, 86_400, 0.02)
        assert settings.bank_bootstrap == "bank:1"
        assert settings.consortium_bootstrap == "consortium:2"
        assert load_mapping(settings.mapping_file) == load_mapping(MAPPINGS / f"{bank}.toml")
        assert membership.consortium == "test"
        assert membership.schema.entity_kinds == KINDS
        secrets.add(membership.secret)
    (secret,) = secrets
    assert len(secret) == 32


def test_amalgamator_starts_from_its_environment(files):
    """It is read as its settings, and lies in lockstep with banks in replay."""
    settings = read_amalgamator_settings(None, files.amalgamator)
    assert settings.bootstrap == "consortium:2"
    assert settings.mode == "lockstep"
    assert settings.health_port == 0
    assert settings.registry_file.is_file()


def test_keys_on_all_sides_belong_together(files):
    """The registry knows each bank's public key, and each bank the amalgamator's."""
    settings = read_amalgamator_settings(None, files.amalgamator)
    registry = parse_registry(settings.registry_file.read_text(encoding="utf-8"))
    amalgamator = load_signer(settings.key_file)
    assert registry.consortium == "test"
    assert registry.entity_kinds == KINDS
    assert registry.workers() == (("nordbank", "0"), ("polkabank", "0"))
    for bank, path in files.settings.items():
        membership = read_membership(read_settings(path, {}))
        (verifier,) = registry.members[bank].verifiers.values()
        assert verifier.verify(membership.signer.sign(b"summary"), b"summary")
        (theirs,) = membership.amalgamator
        assert theirs.verify(amalgamator.sign(b"release"), b"release")


def test_keys_are_drawn_anew(tmp_path):
    """No two parties of one consortium or of two share one."""
    for name in ("one", "two"):
        write_consortium(tmp_path / name, plan())
    texts = [path.read_bytes() for path in tmp_path.rglob("*.key")]
    assert len(texts) == len(set(texts)) == 8


def test_amalgamator_does_not_get_the_pseudonym_key(files):
    """It lies outside its folder and its environment does not name it."""
    secret = next(iter(files.settings.values())).parent.parent / "pseudonyms.key"
    folder = read_amalgamator_settings(None, files.amalgamator).key_file.parent
    assert sorted(path.name for path in folder.iterdir()) == ["amalgamator.key", "registry.toml"]
    assert not any(str(secret) in value for value in files.amalgamator.values())


def test_live_banks_meet_a_live_amalgamator(tmp_path):
    """Lockstep is for replays alone."""
    files = write_consortium(tmp_path, plan(is_replay=False))
    assert read_amalgamator_settings(None, files.amalgamator).mode == "live"
    modes = {read_settings(path, {}).mode for path in files.settings.values()}
    assert modes == {"live"}


def test_pseudonym_key_is_never_replaced(tmp_path):
    """All that was learnt is filed under it; a new one is 32 bytes in hexadecimal."""
    path = tmp_path / "new" / "pseudonyms.key"
    write_secret(path)
    text = path.read_text(encoding="ascii")
    assert is_private(path)
    assert len(bytes.fromhex(text.strip())) == 32
    write_secret(path)
    assert path.read_text(encoding="ascii") == text


def test_new_signer_is_the_one_in_the_file(tmp_path):
    """What is returned and what is read sign alike."""
    path = tmp_path / "new" / "bank.key"
    signer = new_signer(path)
    assert is_private(path)
    assert Verifier(signer.public_key).verify(load_signer(path).sign(b"x"), b"x")


def test_settings_text_is_toml_of_the_same_values():
    """Texts with quotes, backslashes and signs, lists of them, truths, numbers as they are."""
    values = {
        "text": 'a "b" \\ é',
        "list": ["lightgbm", 'river {model = "x"}'],
        "empty": [],
        "on": True,
        "whole": 7,
        "rate": 2.5,
        "small": 1e-05,
    }
    assert tomllib.loads(settings_text(values)) == values


def test_each_bank_gets_its_own_families(tmp_path):
    """And one that is left out none."""
    families = {"nordbank": ("lightgbm", 'river {model = "river.naive_bayes.GaussianNB"}')}
    files = write_consortium(tmp_path, plan(families=families))
    found = {bank: read_settings(path, {}).families for bank, path in files.settings.items()}
    assert found == {"nordbank": families["nordbank"], "polkabank": ()}


def test_attributes_are_the_same_on_both_sides(tmp_path):
    """Registry and consortium.toml; the schema's hash agrees."""
    attributes = (AttributeSpec("a.1", "text"), AttributeSpec("b", "number"))
    files = write_consortium(tmp_path, plan(attributes=attributes))
    registry = parse_registry((tmp_path / "amalgamator" / "registry.toml").read_text())
    membership = read_membership(read_settings(files.settings["nordbank"], {}))
    assert registry.attributes == membership.schema.attributes == attributes
