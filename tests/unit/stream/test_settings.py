"""A worker's settings: every key by name, the environment above the file, ranges, and files."""

import json
from dataclasses import fields
from pathlib import Path

import pytest

from models.errors import InvalidInputError, SettingsError
from models.keys import Signer, save_signer
from models.mapping import Mapping, load_mapping
from models.schema import AttributeSpec, Schema
from stream.drift_policy import DriftPolicy
from stream.pipeline import Pipeline
from stream.pipeline_config import PipelineConfig
from stream.settings import (
    PREFIX,
    Membership,
    Settings,
    of_worker,
    pipeline_config,
    read_membership,
    read_settings,
)
from stream.share import Share

REQUIRED = {
    "MEMBER": "north",
    "BANK_BOOTSTRAP": "localhost:9092",
    "CONSORTIUM_BOOTSTRAP": "localhost:9093",
    "MAPPING_FILE": "mapping.toml",
    "CONSORTIUM_FILE": "consortium.toml",
    "KEY_FILE": "key.pem",
    "SECRET_FILE": "secret.hex",
    "STATE_DIR": "state",
}
SIGNER = Signer(bytes(range(32)))
AMALGAMATOR = Signer(bytes(range(1, 33)))
SECRET = bytes(range(100, 132))
RIVER = 'river {model = "river.linear_model.LogisticRegression"}'
MAPPING = Path(__file__).parents[3] / "deploy" / "mappings" / "simulated.toml"


def read(path: Path | None = None, **values: str) -> Settings:
    """Read settings with the required values in the environment."""
    environment = REQUIRED | values
    return read_settings(path, {PREFIX + name: text for name, text in environment.items()})


def as_text(value: object) -> str:
    """Return a value as a variable has it."""
    return json.dumps(value) if isinstance(value, bool | tuple) else str(value)


def a_file(folder: Path, *lines: str) -> Path:
    """Write a settings file with all that is required."""
    path = folder / "bank.toml"
    required = [f'{name.lower()} = "{text}"' for name, text in REQUIRED.items()]
    path.write_text("\n".join([*required, *lines]))
    return path


def test_what_has_no_default_is_enough_and_other_variables_are_left_alone() -> None:
    """Those of another service and of the system included."""
    environment = {PREFIX + name: text for name, text in REQUIRED.items()}
    more = {"PATH": "/bin", "AMALGAM_AMALGAMATOR_BOOTSTRAP": "x:1", "AMALGAM_STREAMX": "1"}
    settings = read_settings(None, environment | more)
    assert settings == Settings(
        member="north",
        bank_bootstrap="localhost:9092",
        consortium_bootstrap="localhost:9093",
        mapping_file=Path("mapping.toml"),
        consortium_file=Path("consortium.toml"),
        key_file=Path("key.pem"),
        secret_file=Path("secret.hex"),
        state_dir=Path("state"),
    )


def test_every_field_is_read_from_its_variable() -> None:
    """By writing the defaults out and reading them back."""
    defaults = read()
    written = {
        field.name.upper(): as_text(getattr(defaults, field.name)) for field in fields(defaults)
    }
    assert read(**written) == defaults


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("tick_s", "0.5", 0.5),
        ("cadence_s", "60", 60.0),
        ("health_port", "0", 0),
        ("mode", "replay", "replay"),
        ("alert_rate", "1e-3", 0.001),
        ("state_dir", "/var/x", Path("/var/x")),
        ("drift_watch", "false", False),
        ("families", "[]", ()),
        ("families", '["lightgbm"]', ("lightgbm",)),
        ("families", f"['{RIVER}', \"mlp\"]", (RIVER, "mlp")),
    ],
)
def test_a_value_of_the_environment_has_the_fields_type(
    name: str, text: str, value: object
) -> None:
    """Numbers as numbers, paths as paths."""
    found = getattr(read(**{name.upper(): text}), name)
    assert found == value
    assert type(found) is type(value) or isinstance(value, Path)


def test_the_environment_wins_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    """Key by key."""
    path = a_file(tmp_path, "tick_s = 60", "cadence_s = 120.0", "health_port = 1")
    environment = {PREFIX + "TICK_S": "30", PREFIX + "MEMBER": "south"}
    settings = read_settings(path, environment)
    assert (settings.tick_s, settings.cadence_s, settings.health_port) == (30.0, 120.0, 1)
    assert settings.member == "south"
    assert settings.checkpoint_s == Settings.__dataclass_fields__["checkpoint_s"].default


def test_lists_and_truths_are_read_from_the_file(tmp_path: Path) -> None:
    """As TOML has them."""
    path = a_file(tmp_path, f"families = ['{RIVER}', 'lightgbm']", "drift_watch = false")
    settings = read_settings(path, {})
    assert settings.families == (RIVER, "lightgbm")
    assert settings.drift_watch is False


def test_paths_in_a_file_are_relative_to_it_and_those_outside_are_not(tmp_path: Path) -> None:
    """So a folder with everything in it can be moved."""
    settings = read_settings(a_file(tmp_path), {PREFIX + "KEY_FILE": "k.pem"})
    assert settings.mapping_file == tmp_path / "mapping.toml"
    assert settings.key_file == Path("k.pem")


@pytest.mark.parametrize("name", REQUIRED)
def test_a_missing_value_is_refused_by_its_variable(name: str) -> None:
    """Each of those without a default."""
    rest = {PREFIX + key: text for key, text in REQUIRED.items() if key != name}
    with pytest.raises(SettingsError, match=f"{PREFIX}{name}: expected a value, got none"):
        read_settings(None, rest)


@pytest.mark.parametrize(
    ("name", "nearest"), [("CADENCE", "CADENCE_S"), ("ALERTRATE", "ALERT_RATE"), ("tick_s", "")]
)
def test_an_unknown_variable_is_refused_with_the_nearest_known_one(name: str, nearest: str) -> None:
    """A slip of the pen does not run with defaults."""
    hint = f"; did you mean '{PREFIX}{nearest}'" if nearest else ""
    with pytest.raises(SettingsError, match=f"{PREFIX}{name}: unknown setting.*{hint}"):
        read(**{name: "1"})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("cadence = 1", "cadence: unknown setting; did you mean 'cadence_s'"),
        ("zzz = 1", "zzz: unknown setting$"),
        ('tick_s = "10"', "tick_s: expected a number, got '10'"),
        ("health_port = 1.0", "health_port: expected a whole number, got 1.0"),
        ("health_port = true", "health_port: expected a whole number, got True"),
        ("mode = 1", "mode: expected a text, got 1"),
        ("drift_watch = 1", "drift_watch: expected true or false, got 1"),
        ('families = "lightgbm"', "families: expected a list of texts, got 'lightgbm'"),
        (
            'families = ["lightgbm", 1]',
            r"families: expected a list of texts, got \['lightgbm', 1\]",
        ),
        ("answer_probes = true", "answer_probes: unknown setting; did you mean 'answers_probes'"),
        ('runs_scorecard = "no"', "runs_scorecard: expected true or false, got 'no'"),
        ("tick_s = 10\ntick_s = 20", "expected TOML"),
    ],
)
def test_a_wrong_line_of_the_file_is_refused_by_file_and_key(
    tmp_path: Path, line: str, message: str
) -> None:
    """Types are not guessed."""
    path = a_file(tmp_path, line)
    with pytest.raises(SettingsError, match=f"{path}: {message}"):
        read_settings(path, {})


def test_an_absent_file_is_refused_by_name(tmp_path: Path) -> None:
    """With what the system says."""
    with pytest.raises(SettingsError, match=r"gone\.toml: expected a readable file"):
        read_settings(tmp_path / "gone.toml", {})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"MEMBER": ""}, "MEMBER.*non-empty"),
        ({"WORKER": ""}, "WORKER.*non-empty"),
        ({"MODE": "fast"}, "MODE.*live or replay"),
        ({"TICK_S": "soon"}, "TICK_S: expected a number, got 'soon'"),
        ({"TICK_S": "0"}, "TICK_S.*above 0"),
        ({"TICK_S": "7"}, "TICK_S.*divisor of a day"),
        ({"TICK_S": "0.000244140625"}, "TICK_S.*whole milliseconds"),
        ({"CADENCE_S": "-1"}, "CADENCE_S.*above 0"),
        ({"CADENCE_S": "nan"}, "CADENCE_S.*above 0"),
        ({"LATENESS_S": "inf"}, "LATENESS_S.*above 0"),
        ({"STATISTICS_S": "0"}, "STATISTICS_S.*above 0"),
        ({"CHECKPOINT_S": "0"}, "CHECKPOINT_S.*above 0"),
        ({"CHECKPOINT_SHARE": "0"}, r"CHECKPOINT_SHARE.*share in \(0, 1\]"),
        ({"CHECKPOINT_SHARE": "1.1"}, r"CHECKPOINT_SHARE.*share in \(0, 1\]"),
        ({"LABEL_HORIZON_S": "100", "RETENTION_S": "100"}, "RETENTION_S.*more than"),
        ({"MODE": "replay", "TICK_S": "60", "CADENCE_S": "90"}, "CADENCE_S.*multiple of tick_s"),
        ({"ALERT_RATE": "0"}, r"ALERT_RATE.*share in \(0, 1\)"),
        ({"ALERT_RATE": "1"}, r"ALERT_RATE.*share in \(0, 1\)"),
        ({"ALERT_RATE": "nan"}, r"ALERT_RATE.*share in \(0, 1\)"),
        ({"DRIFT_WATCH": "yes"}, "DRIFT_WATCH: expected true or false, got 'yes'"),
        ({"DRIFT_WATCH": "1"}, "DRIFT_WATCH: expected true or false, got '1'"),
        ({"DRIFT_WATCH": "true\nx = 1"}, "DRIFT_WATCH: expected true or false"),
        ({"FAMILIES": "lightgbm"}, "FAMILIES: expected a list of texts, got 'lightgbm'"),
        ({"FAMILIES": "[1]"}, r"FAMILIES: expected a list of texts, got '\[1\]'"),
        ({"SEED": "-1"}, r"SEED.*0\.\.2\^31 - 1"),
        ({"SEED": "2147483648"}, r"SEED.*0\.\.2\^31 - 1"),
        ({"PROPOSE_TREES": "-1"}, r"PROPOSE_TREES.*0\.\.128"),
        ({"PROPOSE_TREES": "129"}, r"PROPOSE_TREES.*0\.\.128"),
        ({"PROPOSE_TREES": "65", "FAMILIES": '["lightgbm", "mlp"]'}, r"PROPOSE_TREES.*0\.\.128"),
        (
            {"RUNS_SCORECARD": "false"},
            "RUNS_SCORECARD.*true for a bank without families, got false",
        ),
        ({"RUNS_SCORECARD": "0"}, "RUNS_SCORECARD: expected true or false, got '0'"),
        ({"ANSWERS_PROBES": "yes"}, "ANSWERS_PROBES: expected true or false, got 'yes'"),
        ({"HEALTH_PORT": "65536"}, r"HEALTH_PORT.*0\.\.65535"),
        ({"HEALTH_PORT": "8.5"}, "HEALTH_PORT: expected a whole number"),
    ],
)
def test_a_value_out_of_range_is_refused_by_its_variable(
    values: dict[str, str], message: str
) -> None:
    """The message says what was expected."""
    with pytest.raises(SettingsError, match=message):
        read(**values)


def test_a_live_worker_may_publish_at_any_cadence() -> None:
    """Steps matter in replay alone."""
    assert read(TICK_S="60", CADENCE_S="90").cadence_s == 90.0


def test_the_secrets_place_is_not_shown() -> None:
    """Settings are logged at the start."""
    assert "secret" not in repr(read())


def member_files(folder: Path, *, secret: str = SECRET.hex(), more: str = "") -> Settings:
    """Write what a membership is read from; return settings that name the files."""
    save_signer(SIGNER, folder / "key.pem")
    (folder / "secret.hex").write_text(secret)
    (folder / "consortium.toml").write_text(
        'consortium = "demo"\nentity_kinds = ["terminal", "device"]\n'
        f'amalgamator_keys = ["{AMALGAMATOR.public_key.hex()}"]\n{more}'
    )
    return read_settings(a_file(folder), {})


def test_a_membership_is_read_from_its_files(tmp_path: Path) -> None:
    """Agreement, keys and pseudonym key; the last two are not shown."""
    membership = read_membership(member_files(tmp_path, secret=SECRET.hex() + "\n"))
    assert membership.consortium == "demo"
    assert membership.schema == Schema(entity_kinds=("terminal", "device"))
    assert [verifier.key_id for verifier in membership.amalgamator] == [AMALGAMATOR.key_id]
    assert membership.signer.public_key == SIGNER.public_key
    assert membership.secret == SECRET
    assert "secret" not in repr(membership)
    assert "signer" not in repr(membership)


def test_attributes_of_the_agreement_are_features(tmp_path: Path) -> None:
    """By name, whatever the order in the file; none without the table."""
    more = '[attributes]\n"b.2" = "text"\na-1 = "number"\n'
    membership = read_membership(member_files(tmp_path, more=more))
    expected = (AttributeSpec("a-1", "number"), AttributeSpec("b.2", "text"))
    assert membership.schema.attributes == expected


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ('[attributes]\nage = "whole"', r"consortium\.toml: attributes\.age: expected 'number'"),
        ("[attributes]\nage = 1", r"consortium\.toml: attributes\.age: expected 'number'"),
        ("attributes = 1", r"consortium\.toml: attributes: expected a table"),
        ("uses_probes = 1", r"consortium\.toml: uses_probes: expected true or false, got 1"),
        ('uses_nets = "yes"', r"consortium\.toml: uses_nets: expected true or false, got 'yes'"),
        ("use_nets = true", r"toml: use_nets: unknown key; did you mean 'uses_nets'"),
        ('[attributes]\n"é" = "text"', r"consortium\.toml: attributes: expected names"),
    ],
)
def test_wrong_keys_of_the_agreement_are_refused_by_file_and_name(
    tmp_path: Path, more: str, message: str
) -> None:
    """Before anything is connected."""
    with pytest.raises(SettingsError, match=message):
        read_membership(member_files(tmp_path, more=more))


@pytest.mark.parametrize("secret", ["", "00" * 31, "zz" * 32, "0" * 63])
def test_a_short_or_garbled_pseudonym_key_is_refused_without_showing_it(
    tmp_path: Path, secret: str
) -> None:
    """32 bytes in hexadecimal at least; the message names the file."""
    settings = member_files(tmp_path, secret=secret)
    with pytest.raises(SettingsError, match=r"secret\.hex: expected") as caught:
        read_membership(settings)
    assert not secret or secret not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('consortium = "demo"', "", r"consortium\.toml: consortium: expected"),
        ('["terminal", "device"]', "[]", r"consortium\.toml: entity_kinds: expected a list"),
        ('["terminal", "device"]', "[1]", r"consortium\.toml: entity_kinds: expected a list"),
        ('consortium = "demo"', 'consortium = "demo"\nx = 1', r"consortium\.toml: x: unknown key"),
    ],
)
def test_a_wrong_agreement_is_refused_by_file_and_key(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    """Before anything is connected."""
    settings = member_files(tmp_path)
    text = settings.consortium_file.read_text()
    settings.consortium_file.write_text(text.replace(old, new))
    with pytest.raises(SettingsError, match=message):
        read_membership(settings)


def test_a_key_that_is_none_is_refused(tmp_path: Path) -> None:
    """As input that is wrong."""
    settings = member_files(tmp_path)
    text = settings.consortium_file.read_text()
    settings.consortium_file.write_text(text.replace(AMALGAMATOR.public_key.hex(), "abc"))
    with pytest.raises(InvalidInputError, match="public key"):
        read_membership(settings)


def test_the_agreement_says_whether_probes_and_nets_are_used(tmp_path: Path) -> None:
    """Neither, unless it says so."""
    settings = member_files(tmp_path)
    text = settings.consortium_file.read_text()
    membership = read_membership(settings)
    assert (membership.uses_probes, membership.uses_nets) == (False, False)
    for probes, nets in ((True, False), (False, True)):
        more = f"uses_probes = {str(probes).lower()}\nuses_nets = {str(nets).lower()}\n"
        settings.consortium_file.write_text(text + more)
        membership = read_membership(settings)
        assert (membership.uses_probes, membership.uses_nets) == (probes, nets)


def a_membership(**changes: object) -> Membership:
    """Return one that no file was read for."""
    values: dict[str, object] = {
        "consortium": "demo",
        "schema": Schema(entity_kinds=("terminal",)),
        "amalgamator": (),
        "signer": SIGNER,
        "secret": SECRET,
    }
    return Membership(**(values | changes))  # type: ignore[arg-type]  # names are the fields'


def a_mapping(folder: Path, rate: str) -> Mapping:
    """Return a mapping of one currency at a rate, with an attribute as little known as that."""
    text = MAPPING.read_text(encoding="utf-8")
    path = folder / "mapping.toml"
    if rate == '"unknown"':
        age = 'age = { path = "age", type = "number", scale = "unknown" }'
        text = text.replace("[attributes]", f"[attributes]\n{age}")
    path.write_text(text.replace("EUR = 1.0", f"EUR = {rate}"), encoding="utf-8")
    return load_mapping(path)


def test_the_pipeline_gets_milliseconds() -> None:
    """Every duration, and the rate."""
    settings = read(
        TICK_S="0.5",
        LABEL_HORIZON_S="100",
        RETENTION_S="200.25",
        STATISTICS_S="300",
        LATENESS_S="1.5",
        ALERT_RATE="0.02",
        WORKER="3",
    )
    membership = a_membership()
    config = pipeline_config(settings, membership, load_mapping(MAPPING))
    assert isinstance(config, PipelineConfig)
    assert (config.member, config.worker, config.schema) == ("north", "3", membership.schema)
    assert config.secret == SECRET
    assert (config.tick_ms, config.label_horizon_ms, config.retention_ms) == (500, 100_000, 200_250)
    assert (config.statistics_cadence_ms, config.admission.lateness_ms) == (300_000, 1_500)
    assert config.judging.budget.rate == 0.02


def test_the_pipeline_gets_families_seed_trees_and_drift(tmp_path: Path) -> None:
    """As they are set; by default the scorecard is alone and watched."""
    known, unknown = a_mapping(tmp_path, "1.0"), a_mapping(tmp_path, '"unknown"')
    usual = pipeline_config(read(), a_membership(), known)
    assert (usual.families, usual.seed, usual.drift) == ((), 0, DriftPolicy())
    assert usual.is_unit_known
    settings = read(
        FAMILIES=json.dumps(["lightgbm", RIVER]),
        SEED="7",
        PROPOSE_TREES="0",
        DRIFT_WATCH="false",
    )
    config = pipeline_config(settings, a_membership(), unknown)
    assert (config.families, config.seed, config.drift) == (("lightgbm", RIVER), 7, None)
    assert config.proposing.n_trees == 0
    assert not config.is_unit_known
    assert config.unknown_scales == {"age"}
    assert usual.unknown_scales == frozenset()
    assert Pipeline(config).panel.names == ("own", "merged", "lightgbm", "river")


@pytest.mark.parametrize(
    ("families", "message"),
    [
        (["lightgmb"], r"family: expected one of .* got 'lightgmb'; did you mean 'lightgbm'\?"),
        (["lightgbm {n_trees = 0}"], "n_trees: expected 1 or more"),
        (["lightgbm {n_tree = 1}"], "got 'n_tree'; did you mean 'n_trees'"),
        (["lightgbm {"], "expected a TOML inline table"),
        (["river"], "expected all of its keys"),
        ([RIVER, "lightgbm", RIVER], "expected one family of a kind, got several of river$"),
    ],
)
def test_a_wrong_family_is_refused_by_its_key(families: list[str], message: str) -> None:
    """In one line, before anything is connected."""
    settings = read(FAMILIES=json.dumps(families))
    with pytest.raises(SettingsError, match=message) as caught:
        pipeline_config(settings, a_membership(), load_mapping(MAPPING))
    assert str(caught.value).startswith(f"families ({PREFIX}FAMILIES): ")
    assert "\n" not in str(caught.value)


def test_the_pipeline_gets_what_the_bank_does_and_what_the_consortium_uses() -> None:
    """By default the scorecard runs and nothing else; the agreement adds experts."""
    mapping = load_mapping(MAPPING)
    usual = pipeline_config(read(), a_membership(), mapping)
    assert usual.runs_scorecard
    assert (usual.answers_probes, usual.uses_probes, usual.uses_nets) == (False, False, False)
    settings = read(FAMILIES='["lightgbm"]', RUNS_SCORECARD="false", ANSWERS_PROBES="true")
    config = pipeline_config(settings, a_membership(uses_probes=True, uses_nets=True), mapping)
    assert not config.runs_scorecard
    assert (config.answers_probes, config.uses_probes, config.uses_nets) == (True, True, True)
    assert Pipeline(config).panel.names == ("own", "merged", "lightgbm", "student", "mlp_merged")
    assert not usual.uses_personal
    personal = pipeline_config(read(PERSONAL_WEIGHTS="true"), a_membership(uses_nets=True), mapping)
    assert Pipeline(personal).panel.names == ("own", "merged", "personal", "mlp_merged")


def test_answers_without_probes_are_refused_before_anything_is_connected() -> None:
    """By the bank's key, with the line of the agreement that would allow them."""
    settings = read(ANSWERS_PROBES="true")
    with pytest.raises(
        SettingsError, match=r"ANSWERS_PROBES\): expected false.*uses_probes = true"
    ):
        pipeline_config(settings, a_membership(), load_mapping(MAPPING))


def test_a_wide_schema_without_a_scorecard_is_refused() -> None:
    """There is no other sign of the basis that the bank encodes for."""
    attributes = tuple(AttributeSpec(f"a{i:03}", "number") for i in range(250))
    wide = a_membership(schema=Schema(entity_kinds=("terminal",), attributes=attributes))
    settings = read(FAMILIES='["lightgbm"]', RUNS_SCORECARD="false")
    with pytest.raises(InvalidInputError, match="runs_scorecard: expected true"):
        pipeline_config(settings, wide, load_mapping(MAPPING))


def test_one_worker_has_any_name_and_several_are_numbered() -> None:
    """The share of each is what the transport reads."""
    assert read(WORKER="east").share == Share(0, 1)
    assert read(WORKER="2", WORKERS="3").share == Share(2, 3)


@pytest.mark.parametrize(
    ("worker", "workers"), [("east", "2"), ("2", "2"), ("00", "2"), ("-1", "3")]
)
def test_a_name_outside_the_numbers_of_the_workers_is_refused(worker: str, workers: str) -> None:
    """The message says which there are."""
    with pytest.raises(SettingsError, match=rf"WORKER\): expected 0\.\.{int(workers) - 1} where"):
        read(WORKER=worker, WORKERS=workers)


def test_a_bank_has_at_least_one_worker() -> None:
    """Nobody would read its stream."""
    with pytest.raises(SettingsError, match=r"WORKERS\): expected 1 or more"):
        read(WORKERS="0")


def test_a_worker_of_a_host_has_its_name_and_a_folder_of_it() -> None:
    """One that the bank does not have is refused."""
    one = of_worker(read(WORKERS="3"), "2")
    assert (one.worker, one.state_dir, one.share) == ("2", Path("state/2"), Share(2, 3))
    with pytest.raises(SettingsError, match="WORKER"):
        of_worker(one, "3")
