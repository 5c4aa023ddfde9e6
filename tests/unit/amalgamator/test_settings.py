"""Settings: defaults, every key, and errors that name the variable."""

from dataclasses import fields
from pathlib import Path

import pytest

from amalgamator.policy import BasisPolicy, FoldConfig, ProbePolicy
from amalgamator.settings import PREFIX, Settings, fold_config, read_settings
from models.errors import SettingsError
from models.schema import Schema

REQUIRED = {
    "AMALGAM_AMALGAMATOR_BOOTSTRAP": "localhost:9092",
    "AMALGAM_AMALGAMATOR_REGISTRY_FILE": "registry.toml",
    "AMALGAM_AMALGAMATOR_KEY_FILE": "key.pem",
}


def test_three_values_are_enough() -> None:
    """The rest has defaults; other programs' variables are left alone."""
    settings = read_settings(None, REQUIRED | {"PATH": "/bin", "AMALGAM_STREAM_X": "1"})
    assert settings.ridge == FoldConfig(schema=Schema(entity_kinds=())).ridge
    assert settings.basis_growth == BasisPolicy().growth
    assert settings == Settings(
        bootstrap="localhost:9092",
        registry_file=Path("registry.toml"),
        key_file=Path("key.pem"),
    )


def test_every_field_is_read_from_its_variable() -> None:
    """By printing the defaults and reading them back."""
    defaults = read_settings(None, REQUIRED)
    values = {field.name: getattr(defaults, field.name) for field in fields(defaults)}
    environment = {
        PREFIX + name.upper(): str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in values.items()
    }
    assert read_settings(None, environment) == defaults
    changed = read_settings(None, environment | {"AMALGAM_AMALGAMATOR_FOLD_EVERY_S": "2.5"})
    assert changed.fold_every_s == 2.5


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("FOLD_EVRY_S", "1", "unknown setting; did you mean 'AMALGAM_AMALGAMATOR_FOLD_EVERY_S"),
        ("fold_every_s", "1", "unknown setting"),
        ("MODE", "fast", "MODE: expected live or lockstep"),
        ("BOOTSTRAP", "", "BOOTSTRAP: expected host:port"),
        ("FOLD_EVERY_S", "soon", "FOLD_EVERY_S: expected a number, got 'soon'"),
        ("FOLD_EVERY_S", "nan", "FOLD_EVERY_S: expected a number above 0"),
        ("FOLD_EVERY_S", "inf", "FOLD_EVERY_S: expected a number above 0"),
        ("POLL_S", "0", "POLL_S: expected a number above 0"),
        ("POLL_S", "500", "DEADLINE_S: expected more than poll_s"),
        ("CLOCK_TOLERANCE_S", "-1", "CLOCK_TOLERANCE_S: expected 0 or more"),
        ("PRIOR_LOGIT", "nan", "PRIOR_LOGIT: expected a finite number"),
        ("MAX_DAYS_AHEAD", "-2", "MAX_DAYS_AHEAD: expected -1 or more"),
        ("MAX_ENVELOPE_BYTES", "10", "MAX_ENVELOPE_BYTES: expected 1024 or more"),
        ("HEALTH_PORT", "70000", "HEALTH_PORT: expected 0..65535"),
        ("BASIS_GROWTH", "1", "BASIS_GROWTH: expected a number above 1"),
        ("RIDGE", "0", "RIDGE: expected a number above 0"),
        ("USES_PROBES", "yes", "USES_PROBES: expected true or false, got 'yes'"),
        ("USES_NETS", "1", "USES_NETS: expected true or false, got '1'"),
        ("USES_NET", "true", "unknown setting; did you mean 'AMALGAM_AMALGAMATOR_USES_NETS'"),
        ("PROBES_N", "0", r"PROBES_\*: probes: expected n in 1.."),
        ("PROBES_N", "many", "PROBES_N: expected a whole number, got 'many'"),
        ("PROBES_GRACE_D", "14", r"PROBES_\*: .*1 <= grace_d < renew_d, got 40000, 14 and 14"),
        ("PROBES_EPOCHS", "0", r"PROBES_\*: probes: expected epochs"),
    ],
)
def test_a_wrong_value_is_refused_by_name(name: str, value: str, message: str) -> None:
    """The message says what was expected."""
    with pytest.raises(SettingsError, match=message):
        read_settings(None, REQUIRED | {PREFIX + name: value})


def test_the_fold_gets_what_is_set() -> None:
    """Rates, windows, the basis, probes and nets; the defaults are the fold's own."""
    schema = Schema(entity_kinds=("terminal",))
    assert fold_config(read_settings(None, REQUIRED), schema) == FoldConfig(schema=schema)
    given = {
        "RIDGE": "3",
        "HALF_LIFE_D": "60",
        "PRIOR_LOGIT": "-5",
        "BUCKET_DAYS": "7",
        "EVIDENCE_DAYS": "9",
        "KAPPA": "3",
        "N_FORMER": "1",
        "BASIS_MIN_N": "100",
        "BASIS_MIN_FRAUDS": "4",
        "BASIS_GROWTH": "2",
        "USES_PROBES": "true",
        "USES_NETS": "true",
        "PROBES_N": "500",
        "PROBES_RENEW_D": "9",
        "PROBES_GRACE_D": "2",
        "PROBES_EPOCHS": "3",
        "PROBES_MIN_FRAUDS": "8",
        "PROBES_SEED": "6",
    }
    settings = read_settings(None, REQUIRED | {PREFIX + k: v for k, v in given.items()})
    assert fold_config(settings, schema) == FoldConfig(
        schema=schema,
        ridge=3.0,
        half_life_d=60.0,
        prior_logit=-5.0,
        bucket_days=7,
        evidence_days=9,
        kappa=3.0,
        n_former=1,
        basis=BasisPolicy(min_n=100, min_frauds=4, growth=2.0),
        probes=ProbePolicy(n=500, renew_d=9, grace_d=2, epochs=3, min_frauds=8, seed=6),
        merges_nets=True,
    )


@pytest.mark.parametrize("name", sorted(REQUIRED))
def test_a_missing_value_is_refused_by_name(name: str) -> None:
    """Each of the three."""
    with pytest.raises(SettingsError, match=f"{name}: expected a value"):
        read_settings(None, {key: value for key, value in REQUIRED.items() if key != name})


def test_the_environment_wins_over_the_file_and_paths_are_relative_to_it(tmp_path: Path) -> None:
    """A deployment overrides one value without another file."""
    file = tmp_path / "amalgamator.toml"
    file.write_text(
        'bootstrap = "a:1"\nregistry_file = "r.toml"\nkey_file = "/k"\nfold_every_s = 3\n'
    )
    settings = read_settings(file, {PREFIX + "BOOTSTRAP": "b:2"})
    assert settings == Settings(
        bootstrap="b:2",
        registry_file=tmp_path / "r.toml",
        key_file=Path("/k"),
        fold_every_s=3.0,
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("fold_evry_s = 1", "fold_evry_s: unknown setting; did you mean 'fold_every_s'"),
        ('fold_every_s = "1"', "fold_every_s: expected a number, got '1'"),
        ("health_port = 1.5", "health_port: expected a whole number, got 1.5"),
        ("uses_probes = 1", "uses_probes: expected true or false, got 1"),
        ("probes_renw_d = 7", "probes_renw_d: unknown setting; did you mean 'probes_renew_d'"),
        ("health_port = true", "health_port: expected a whole number, got True"),
        ("mode = 1", "mode: expected a text, got 1"),
        ("", r"bootstrap \(AMALGAM_AMALGAMATOR_BOOTSTRAP\): expected a value"),
    ],
)
def test_a_wrong_line_of_the_file_is_refused_by_file_and_key(
    tmp_path: Path, line: str, message: str
) -> None:
    """Types of a file are not guessed."""
    file = tmp_path / "amalgamator.toml"
    file.write_text(line + "\n")
    with pytest.raises(SettingsError, match=f"{file.name}: {message}"):
        read_settings(file, {})
