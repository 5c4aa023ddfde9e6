"""`amalgam state` on the real store of a small bank: looked at, damaged, put aside, read anew."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from typer.testing import CliRunner

from deploy import cli, state_command
from deploy.bank_formats import BankFormat
from deploy.consortium_files import ConsortiumPlan, write_consortium
from models.errors import UnavailableError
from models.features.accounts import DAY_MS, HOUR_MS
from models.mapping import load_mapping
from models.topics import BankTopics
from stream.anew import read_marker
from stream.outbox import Outbox
from stream.pipeline_state import dump
from stream.settings import pipeline_config, read_membership, read_settings
from stream.store import StateStore
from stream.take_up import Taken, shell_arrays, take_up
from stream.telemetry import Telemetry
from stream.worker import BankWorker
from tests.store_files import change_manifest, change_page, with_fields
from tests.unit.stream.small_bank import payments

ROOT = Path(__file__).parents[3]
MAPPING = ROOT / "deploy" / "mappings" / "simulated.toml"
TOPICS = BankTopics("north")
TRANSACTIONS, LABELS = (TOPICS.transactions, 0), (TOPICS.labels, 0)


@dataclass(frozen=True)
class Record:
    """A record as a Kafka client gives it."""

    value: bytes
    offset: int
    topic: str
    partition: int = 0
    headers: tuple[tuple[str, bytes], ...] = ()


def chunks() -> list[list[Record]]:
    """Return what two partitions hold, cut by day: transactions, then labels said that day."""
    batch, labels = payments(0)
    labels.sort(key=lambda label: label.labelled_at_ms)
    form = BankFormat(load_mapping(MAPPING))
    raw = form.transactions(batch)
    said = [form.label(label, "A") for label in labels]
    day = batch.event_time_ms // DAY_MS
    day_said = np.array([label.labelled_at_ms for label in labels]) // DAY_MS
    out = []
    for one in np.unique(day).tolist():
        out.append(
            [Record(raw[i], i, TRANSACTIONS[0]) for i in np.flatnonzero(day == one).tolist()]
        )
        mine = np.flatnonzero(day_said == one).tolist()
        out.append([Record(said[i], i, LABELS[0]) for i in mine])
    return [chunk for chunk in out if chunk]


CHUNKS = chunks()


def new_outbox(membership) -> Outbox:
    """Return an empty one on a fixed clock."""
    return Outbox(membership.consortium, membership.schema, membership.signer, lambda: 1)


def run(settings_file: Path, records: list[list[Record]]) -> Taken:
    """Run a worker without Kafka from what its store holds; store at each chunk's end."""
    settings = read_settings(settings_file, {})
    membership = read_membership(settings)
    config = pipeline_config(settings, membership, load_mapping(settings.mapping_file))
    store = StateStore(settings.state_dir / "state")
    anew = read_marker(settings.state_dir)
    taken = take_up(store.load(), config, new_outbox(membership), anew=anew)
    worker = BankWorker(
        taken.pipeline, load_mapping(MAPPING), TOPICS, Telemetry(CollectorRegistry())
    )
    offsets = dict(taken.offsets)
    for chunk in records:
        place = (chunk[0].topic, 0)
        fresh = [record for record in chunk if record.offset >= offsets.get(place, 0)]
        if fresh and place == LABELS:
            worker.learn(fresh)
        elif fresh:
            worker.score(fresh, clock_ms=2**42)
        offsets[place] = chunk[-1].offset + 1
        state = dump(taken.pipeline)
        arrays = {**state.arrays, **shell_arrays(taken.outbox, None, {})}
        store.save(arrays, state.meta, offsets, state.touched)
    store.close()
    return taken


def contents(file: Path) -> tuple[dict[str, bytes], bytes, dict[tuple[str, int], int]]:
    """Return everything in a store but whether it was begun anew."""
    store = StateStore(read_settings(file, {}).state_dir / "state")
    held = store.load()
    store.close()
    assert held is not None
    arrays = {k: v.tobytes() for k, v in held.arrays.items() if k != "outbox/first_seq"}
    return arrays, held.meta, dict(held.offsets)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return the folder of a consortium whose bank has read everything."""
    folder = tmp_path_factory.mktemp("bank")
    plan = ConsortiumPlan(
        name="eu",
        entity_kinds=("terminal", "merchant"),
        mappings={"north": MAPPING},
        bank_bootstrap="127.0.0.1:1",
        consortium_bootstrap="127.0.0.1:1",
        is_replay=False,
        bank_settings={
            "tick_s": 3_600, "label_horizon_s": 172_800, "alert_rate": 0.05, "drift_watch": False,
        },
    )  # fmt: skip
    write_consortium(folder, plan)
    run(folder / "north" / "bank.toml", CHUNKS)
    return folder


@pytest.fixture
def bank(whole, tmp_path, monkeypatch):
    """Return the settings file of a copy."""
    shutil.copytree(whole, tmp_path / "eu")
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path / "eu" / "north" / "bank.toml"


def files(bank: Path) -> Path:
    """Return where a store lies."""
    return bank.parent / "state" / "state"


def invoke(*words):
    """Run a command line; an error that is not ours fails the test."""
    return CliRunner().invoke(cli.app, [str(word) for word in words], catch_exceptions=False)


def flip(bank):
    """Change one bit of one page of one array."""
    change_page(files(bank), "log/features", 1, byte=100)


def delete(bank):
    """Cut the last page off."""
    path = files(bank) / "pages"
    os.truncate(path, path.stat().st_size - 1)


def truncate(bank):
    """Cut the manifest."""
    change_manifest(files(bank), lambda sealed: sealed[:-3])


def age(bank):
    """Make it a store of a version that is not read any more."""
    change_manifest(files(bank), with_fields(version=2))


DAMAGES = {
    flip: "array 'log/features', page 1: its bytes have changed",
    delete: " bytes, got ",
    truncate: "expected a manifest of version 4",
    age: "expected version 4, got 2",
}


def resave(bank, **arrays):
    """Store a state whose bytes are sound and whose numbers are not."""
    store = StateStore(bank.parent / "state" / "state")
    held = store.load()
    offsets = arrays.pop("offsets", held.offsets)
    changed = {name.replace("__", "/"): array for name, array in arrays.items()}
    store.save({**held.arrays, **changed}, held.meta, offsets)
    store.close()


def test_show_tells_what_the_pipeline_holds_and_no_name(bank):
    """As a table and as JSON; counts are those of what was sent."""
    taken = run(bank, [])
    pipeline = taken.pipeline
    batch, _ = payments(0)
    told = json.loads(invoke("state", "show", bank, "--json").output)
    assert (told["member"], told["worker"], told["release"]) == ("north", "0", 0)
    assert told["schema"] == pipeline.config.schema.hash
    assert told["accounts"] == len(set(batch.account_id))
    assert told["entities"] == {
        kind: len({text for text in batch.entities[kind] if text is not None})
        for kind in ("terminal", "merchant")
    }
    assert sum(told["rows"].values()) == len(batch)
    horizon_ms = pipeline.tick_ms - 2 * DAY_MS
    assert told["rows"]["matured"] >= int((batch.event_time_ms <= horizon_ms).sum()) > 0
    assert told["watermark"].startswith(str(np.datetime64(int(batch.event_time_ms[-1]), "ms")))
    assert np.datetime64(told["tick"].removesuffix("+00:00")).astype(int) % HOUR_MS == 0
    assert told["offsets"] == {
        "north.labels/0": sum(len(c) for c in CHUNKS if c[0].topic == LABELS[0]),
        "north.transactions/0": len(batch),
    }
    assert told["labels_parked"] == len(pipeline.labels.parked)
    assert told["experts"].keys() == set(pipeline.panel.names)
    assert told["arrays"]["log/features"]["shape"] == list(pipeline.log.features.shape)
    assert told["arrays"]["log/features"]["size_bytes"] == pipeline.log.features.nbytes
    assert told["threshold"] is None  # no expert has weights yet
    table = invoke("state", "show", bank).output
    for word in ("watermark", "entities terminal", "experts own", "offsets north.labels/0"):
        assert word in table
    said = table + json.dumps(told)
    assert not [name for name in (*batch.account_id, *batch.transaction_id) if name in said]


def test_the_threshold_is_that_of_the_next_payment(bank):
    """As a probability: half of the scores were above 0, and one in twenty may alert."""
    pipeline = run(bank, []).pipeline
    budget = pipeline.judge.budget
    scores = np.random.default_rng(1).permutation(np.linspace(-5.0, 5.0, 1_000))
    budget.choose(scores, np.full(1_000, pipeline.watermark_ms // DAY_MS * DAY_MS))
    resave(bank, **{f"judge__budget__{k}": v for k, v in budget.arrays().items()})
    told = json.loads(invoke("state", "show", bank, "--json").output)
    log_odds = np.log(told["threshold"] / (1.0 - told["threshold"]))
    assert log_odds == pytest.approx(np.quantile(scores, 0.95), abs=0.5)


def test_a_sound_store_verifies_and_nothing_is_written(bank):
    """Exit code 0; also while a worker has it open."""
    before = contents(bank)
    store = StateStore(bank.parent / "state" / "state")
    result = invoke("state", "verify", bank)
    store.close()
    assert (result.exit_code, result.output) == (0, "the state is sound\n")
    assert contents(bank) == before


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda one: one.__name__)
def test_damage_is_found_and_named(bank, damage):
    """One line a fault, exit code 1; `show` refuses such a store in one line."""
    damage(bank)
    result = invoke("state", "verify", bank)
    assert result.exit_code == 1
    (line,) = result.output.splitlines()
    assert DAMAGES[damage] in line
    shown = invoke("state", "show", bank)
    assert shown.exit_code == 2
    assert DAMAGES[damage] in shown.output


def test_numbers_that_contradict_each_other_are_found(bank):
    """With sound bytes: order of rows, places in other tables, repeated accounts, offsets."""
    state = dump(run(bank, []).pipeline)
    log = {
        name: state.arrays[f"log/{name}"].copy() for name in ("arrival_ms", "account", "outcome")
    }
    keys = state.arrays["accounts/keys"].copy()
    log["arrival_ms"][[5, 6]] = log["arrival_ms"][[5, 6]] - [0, DAY_MS]
    log["account"][3] = len(keys)
    log["outcome"][0] = 0
    keys[1] = keys[0]
    resave(
        bank,
        offsets={TRANSACTIONS: -1},
        log__arrival_ms=log["arrival_ms"],
        log__account=log["account"],
        log__outcome=log["outcome"],
        accounts__keys=keys,
    )
    result = invoke("state", "verify", bank)
    assert result.exit_code == 1
    for said in (
        "array 'offsets': north.transactions/0: expected 0 or more",
        "array 'log/arrival_ms': expected rows in the order of time, got 1 others",
        "array 'log/account': expected rows of the accounts, got 1 others",
        "array 'log/known_ms': expected -1 where no outcome is known, else its time, got 1 others",
        "array 'log/outcome': expected none to wait before the first that waits",
        "array 'accounts/keys': expected each account once",
    ):
        assert said in result.output
    assert str(len(keys)) not in result.output.replace("got 1 others", "")


def test_arrays_of_other_types_or_shapes_are_found(bank):
    """Where the pipeline would have taken them as they are, and where it could not."""
    state = dump(run(bank, []).pipeline)
    resave(bank, log__scores=state.arrays["log/scores"][:, :1].copy())
    assert "array 'log/scores': expected float32 of shape" in invoke("state", "verify", bank).output
    resave(bank, log__scores=state.arrays["log/scores"][:-1].copy())
    result = invoke("state", "verify", bank)
    assert (result.exit_code, result.output) == (
        1, "state: part 'log': expected arrays of other shapes or types\n",
    )  # fmt: skip


def test_a_worker_stops_at_a_damaged_store_with_three_and_one_line(bank):
    """It names what helps; nothing is asked of a broker; the store stays as it is."""
    flip(bank)
    command = [sys.executable, "-m", "stream", "--settings", str(bank)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    (line,) = (done.stdout + done.stderr).splitlines()
    said = json.loads(line)["message"]
    assert DAMAGES[flip] in said
    for word in ("verify", "rebuild"):
        assert f"`amalgam state {word} {bank}`" in said


def test_a_rebuild_asks_first_and_keeps_what_it_puts_aside(bank):
    """Without --yes nothing is done; the marker names the partitions that had been read."""
    flip(bank)
    result = invoke("state", "rebuild", bank, "--offline")
    assert result.exit_code == 2
    assert "say --yes" in result.output
    folder = bank.parent / "state"
    assert [one.name for one in folder.iterdir()] == ["state"]
    result = invoke("state", "rebuild", bank, "--offline", "--yes")
    assert result.exit_code == 0, result.output
    (kept,) = folder.glob("state.aside-*Z")
    assert str(kept) in result.output
    assert (kept / "manifest").exists()
    anew = read_marker(folder)
    assert anew is not None
    assert anew.places == (LABELS, TRANSACTIONS)
    assert invoke("state", "rebuild", bank, "--offline", "--yes").exit_code == 2


def test_a_store_that_is_to_be_restored_is_put_aside_without_a_marker(bank):
    """So that the next start takes the changelog; a bank without one is refused."""
    folder = bank.parent / "state"
    text = bank.read_text()
    bank.write_text(text.replace("changelog = true", "changelog = false"))
    result = invoke("state", "rebuild", bank, "--from-changelog", "--offline", "--yes")
    assert result.exit_code == 2
    assert "changelog: expected true for --from-changelog" in result.output
    assert (folder / "state").exists()
    bank.write_text(text)
    result = invoke("state", "rebuild", bank, "--from-changelog", "--offline", "--yes")
    assert result.exit_code == 0, result.output
    assert "the next start reads the changelog" in result.output
    assert read_marker(folder) is None
    assert not (folder / "state").exists()


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda one: one.__name__)
def test_reading_anew_after_a_rebuild_gives_the_same_state(bank, damage):
    """To the bit, with the same offsets, for the same records in the same chunks."""
    before = contents(bank)
    damage(bank)
    assert invoke("state", "rebuild", bank, "--offline", "--yes").exit_code == 0
    taken = run(bank, CHUNKS)
    assert taken.outbox.is_anew
    assert taken.offsets == ({} if damage in (truncate, age) else {LABELS: 0, TRANSACTIONS: 0})
    assert contents(bank) == before
    assert invoke("state", "verify", bank).exit_code == 0


HOLDER = """
import sys
from pathlib import Path
from stream.store import StateStore
store = StateStore(Path(sys.argv[1]))
print("open", flush=True)
sys.stdin.read()
"""


def test_a_rebuild_refuses_while_a_worker_has_the_store_open(bank):
    """Nothing moves; once that worker is gone it works."""
    path = bank.parent / "state" / "state"
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True
    ) as child:
        assert child.stdout.readline() == "open\n"
        result = invoke("state", "rebuild", bank, "--offline", "--yes")
        child.stdin.close()
        assert child.wait() == 0
    assert result.exit_code == 2
    assert "held by another process" in result.output
    assert path.exists()
    assert read_marker(bank.parent / "state") is None
    assert invoke("state", "rebuild", bank, "--offline", "--yes").exit_code == 0


def test_a_rebuild_tells_what_retention_has_taken(bank, monkeypatch):
    """By the earliest offsets of the partitions that were read."""
    asked = []

    def earliest(settings, places):
        asked.append(places)
        return {TRANSACTIONS: 1_200, LABELS: 0}

    monkeypatch.setattr(state_command, "earliest_offsets", earliest)
    result = invoke("state", "rebuild", bank)
    assert asked == [(LABELS, TRANSACTIONS)]
    assert "north.transactions/0: offsets below 1,200 are no longer on the broker" in result.output
    assert "lost, here and, taken back, in the consortium" in result.output
    monkeypatch.setattr(state_command, "earliest_offsets", lambda *_: {TRANSACTIONS: 0, LABELS: 0})
    assert "nothing is lost" in invoke("state", "rebuild", bank).output


@pytest.mark.slow
def test_a_broker_that_does_not_answer_is_said_and_nothing_is_done(bank, monkeypatch):
    """The way out is named."""
    monkeypatch.setattr(state_command, "_TIMEOUT_MS", 500)
    settings = read_settings(bank, {})
    with pytest.raises(UnavailableError, match="--offline"):
        state_command.plan_rebuild(settings, is_offline=False)


def test_a_worker_in_replay_is_not_rebuilt(bank):
    """Its epochs are closed; the reason is told."""
    bank.write_text(bank.read_text().replace('mode = "live"', 'mode = "replay"'))
    result = invoke("state", "rebuild", bank, "--offline", "--yes")
    assert result.exit_code == 2
    assert "in lockstep" in result.output
    assert (bank.parent / "state" / "state").exists()


def test_without_a_store_it_is_said(bank):
    """By all three."""
    shutil.rmtree(bank.parent / "state")
    for words, code in ((("show",), 2), (("verify",), 1), (("rebuild", "--offline"), 2)):
        result = invoke("state", words[0], bank, *words[1:])
        assert result.exit_code == code
        assert "found none" in result.output
