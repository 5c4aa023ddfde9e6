"""What the commands do: files of banks and consortia, labels and payments in a bank's format."""

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pyarrow.parquet as pq
import pytest

from amalgamator.registry import parse_registry
from amalgamator.settings import read_settings as read_amalgamator_settings
from deploy import commands
from deploy.commands import (
    ReplayRequest,
    SimulateRequest,
    day_of,
    local_bootstrap,
    replay_file,
    send_label,
    simulate_file,
    simulate_stream,
    tail_alerts,
)
from deploy.membership import admit, bank_init, consortium_init
from deploy.replay import Sent
from models.decoding import LabelDecoder, TransactionDecoder
from models.errors import InvalidInputError, SettingsError, UnavailableError
from models.keys import Signer, load_signer
from models.mapping import load_mapping
from stream.settings import read_membership, read_settings
from tests.unit.deploy.small_backtest import MAPPING
from tests.unit.deploy.test_scoreboard import alert


class FakeSender:
    """Keeps what is sent, over all senders."""

    sent = ()

    def __init__(self, bootstrap):
        self.bootstrap = bootstrap
        type(self).last = self
        self.is_closed = False

    def partitions(self, _topic):
        """Return one partition."""
        return (0,)

    def send(self, topic, *, key, value, headers, partition):
        """Keep one record."""
        assert not self.is_closed
        if value is not None:
            self.sent.append((topic, key, value))

    def flush(self):
        """Pretend that everything is stored."""

    def close(self):
        """Note it."""
        self.is_closed = True


@pytest.fixture
def sender(monkeypatch):
    """Put a fake in the place of the producer."""

    class Fake(FakeSender):
        sent = []  # noqa: RUF012  # a new class for each test

    monkeypatch.setattr(commands, "KafkaSender", Fake)
    return Fake


@pytest.fixture
def bank(tmp_path):
    """Return the settings file of a new bank."""
    bank_init("meridian", tmp_path / "meridian")
    return tmp_path / "meridian" / "bank.toml"


def test_new_bank_and_new_consortium_fit_together(tmp_path):
    """By the steps that the commands print: admit the key, hand over two files, start."""
    said = bank_init("meridian", tmp_path / "meridian")
    consortium_init("eu", ["terminal", "device"], tmp_path / "eu")
    (key,) = [line.rpartition(" ")[2] for line in said if "public key" in line]
    admit(tmp_path / "eu" / "registry.toml", "meridian", key)
    for name in ("consortium.toml", "pseudonyms.key"):
        (tmp_path / "eu" / name).rename(tmp_path / "meridian" / name)
    settings = read_settings(tmp_path / "meridian" / "bank.toml", {})
    membership = read_membership(settings)
    service = read_amalgamator_settings(tmp_path / "eu" / "amalgamator.toml", {})
    registry = parse_registry(service.registry_file.read_text(encoding="utf-8"))
    (verifier,) = registry.members["meridian"].verifiers.values()
    (amalgamator,) = membership.amalgamator
    assert settings.member == "meridian"
    assert membership.consortium == registry.consortium == "eu"
    assert membership.schema.entity_kinds == registry.entity_kinds == ("terminal", "device")
    assert verifier.verify(membership.signer.sign(b"x"), b"x")
    assert amalgamator.verify(load_signer(service.key_file).sign(b"x"), b"x")


def test_private_files_of_both_are_their_owners_alone(tmp_path):
    """And no printed line holds a private key."""
    said = bank_init("meridian", tmp_path / "a") + consortium_init(
        "eu", ["terminal"], tmp_path / "b"
    )
    keys = sorted(tmp_path.rglob("*.key"))
    assert [path.name for path in keys] == ["bank.key", "amalgamator.key", "pseudonyms.key"]
    for path in keys:
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.read_text(encoding="ascii").strip() not in "\n".join(said)


def test_new_banks_mapping_is_an_example_in_its_name(bank):
    """It is read as it is, and nothing of the example's bank is left."""
    mapping = load_mapping(bank.parent / "mapping.toml")
    assert mapping.bank == "meridian"
    assert "nordbank" not in (bank.parent / "mapping.toml").read_text(encoding="utf-8")


def test_folder_with_files_is_left_alone(tmp_path):
    """A key that is in use is never replaced; an empty folder is as good as none."""
    (tmp_path / "empty").mkdir()
    bank_init("meridian", tmp_path / "empty")
    before = {path: path.read_bytes() for path in (tmp_path / "empty").iterdir()}
    for make in (lambda at: bank_init("meridian", at), lambda at: consortium_init("eu", ["x"], at)):
        with pytest.raises(InvalidInputError, match="new or empty folder"):
            make(tmp_path / "empty")
    assert {path: path.read_bytes() for path in (tmp_path / "empty").iterdir()} == before


def test_bank_name_that_is_no_topics_name_is_refused(tmp_path):
    """Before anything is written."""
    with pytest.raises(InvalidInputError, match="bank"):
        bank_init("Meridian Bank", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_member_is_admitted_once_and_the_others_stay(tmp_path):
    """With one worker; a second time is refused, and so is what is no key."""
    consortium_init("eu", ["terminal"], tmp_path)
    registry = tmp_path / "registry.toml"
    for name, byte in (("one", 1), ("two", 2)):
        admit(registry, name, Signer(bytes([byte]) * 32).public_key.hex())
    text = registry.read_text(encoding="utf-8")
    assert parse_registry(text).workers() == (("one", "0"), ("two", "0"))
    for name, key, word in (("one", "0" * 64, "member already"), ("three", "abc", "public key")):
        with pytest.raises(InvalidInputError, match=word):
            admit(registry, name, key)
    assert registry.read_text(encoding="utf-8") == text


def test_registry_that_is_none_is_refused(tmp_path):
    """Absent, or of another form; it is left as it is."""
    with pytest.raises(SettingsError, match="expected a registry"):
        admit(tmp_path / "absent.toml", "one", "00" * 32)
    other = tmp_path / "other.toml"
    other.write_text("colour = 1\n", encoding="utf-8")
    with pytest.raises(SettingsError, match="colour"):
        admit(other, "one", "00" * 32)
    assert other.read_text(encoding="utf-8") == "colour = 1\n"


def test_days_are_counted_from_1970():
    """No date is none; another text is refused with an example."""
    assert day_of("1970-01-02") == 1
    assert day_of("2018-07-15") == datetime(2018, 7, 15, tzinfo=UTC).timestamp() / 86_400
    assert day_of(None) is None
    for text in ("yesterday", "2018-13-01", "15.07.2018", ""):
        with pytest.raises(InvalidInputError, match="2018-07-15"):
            day_of(text)


def test_label_is_sent_in_the_banks_own_format(bank, sender):
    """Keyed by account, as an analyst's, at the instant that was said; then all is closed."""
    at = datetime(2026, 3, 1, 13, 0, 0, tzinfo=timezone(timedelta(hours=2)))
    for is_fraud in (True, False):
        send_label(bank, "T-1", "card-9", is_fraud=is_fraud, at=at)
    mapping = load_mapping(bank.parent / "mapping.toml")
    assert [(topic, key) for topic, key, _ in sender.sent] == [
        ("meridian.labels", b"card-9"), ("meridian.labels", b"card-9"),
    ]  # fmt: skip
    decoded = LabelDecoder(mapping).decode([value for _, _, value in sender.sent])
    assert decoded.errors == []
    found = [(one.transaction_id, one.is_fraud, one.source) for one in decoded.labels]
    assert found == [("T-1", True, "analyst"), ("T-1", False, "analyst")]
    noon_ms = int(datetime(2026, 3, 1, 11, tzinfo=UTC).timestamp()) * 1_000
    assert {one.labelled_at_ms for one in decoded.labels} == {noon_ms}
    assert sender.last.bootstrap == "127.0.0.1:9092"
    assert sender.last.is_closed


def test_label_without_a_time_zone_is_refused(bank, sender):
    """Nobody guesses which clock was meant."""
    with pytest.raises(SettingsError, match="zone"):
        send_label(bank, "T-1", "c", is_fraud=True, at=datetime(2026, 3, 1))  # noqa: DTZ001
    assert sender.sent == []


def test_simulated_file_is_the_same_for_the_same_seed(tmp_path):
    """As many rows as it says, of five banks, over the days asked for."""
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        n = simulate_file(tmp_path / f"{name}.parquet", days=3, customers=60, seed=seed)
        table = pq.read_table(tmp_path / f"{name}.parquet")
        assert table.num_rows == n
    a, b, c = (pq.read_table(tmp_path / f"{name}.parquet") for name in "abc")
    assert a.equals(b)
    assert not a.equals(c)
    assert set(a["bank"].to_pylist()) == {f"bank-{i}" for i in range(1, 6)}
    days = {ms // 86_400_000 for ms in a["event_time_ms"].to_pylist()}
    assert max(days) - min(days) == 2


def test_simulated_file_of_another_kind_is_refused(tmp_path):
    """The message names both kinds; nothing is written."""
    with pytest.raises(InvalidInputError, match=r"\.csv or \.parquet"):
        simulate_file(tmp_path / "x.xlsx", days=1, customers=10, seed=1)
    assert list(tmp_path.iterdir()) == []


def request(settings, **changes):
    """Return a request to stream two days of bank 1 at once."""
    values = {"settings": settings, "bank": 1, "days": 2, "customers": 40, "seed": 3}
    return SimulateRequest(**({"rate": 1e9, "label_delay_d": 0.5} | values | changes))


def test_simulated_stream_is_that_banks_part_in_its_own_format(bank, sender):
    """Payments to one topic, labels to the other, as many as it says, all readable."""
    sent = simulate_stream(request(bank))
    mapping = load_mapping(bank.parent / "mapping.toml")
    by_topic = {
        topic: [value for at, _, value in sender.sent if at == f"meridian.{topic}"]
        for topic in ("transactions", "labels")
    }
    assert len(by_topic["transactions"]) == sent.transactions > 0
    assert len(by_topic["labels"]) == sent.labels
    decoded = TransactionDecoder(mapping).decode(by_topic["transactions"])
    assert decoded.errors == []
    expected = commands.bank_parts(
        commands.SimulationConfig(n_days=2, n_customers=40), 0, mapping, seed=3
    )
    ids = [text for part in expected for text in part.batch.transaction_id]
    assert list(decoded.batch.transaction_id) == ids
    assert sender.last.is_closed


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"bank": 0}, "--bank"),
        ({"bank": 6}, "--bank"),
        ({"rate": 0.0}, "--rate"),
        ({"rate": float("nan")}, "--rate"),
        ({"rate": float("inf")}, "--rate"),
        ({"days": 0}, "n_days"),
        ({"customers": 0}, "n_customers"),
    ],
)
def test_wrong_simulation_is_refused_before_anything_is_sent(bank, sender, changes, word):
    """Each message names what was wrong."""
    with pytest.raises(InvalidInputError, match=word):
        simulate_stream(request(bank, **changes))
    assert sender.sent == []


def replay(settings, file, **changes):
    """Return a request to replay a file at once, labels at their payment's time."""
    values = {"bank": None, "bank_column": None, "speed": 0.0, "label_delay_d": 0.0}
    return ReplayRequest(file=file, settings=settings, mapping=MAPPING, **(values | changes))


def test_file_is_replayed_whole_or_one_bank_of_it(bank, sender, tmp_path):
    """Each fraud has a label; of a bank only its own rows go."""
    file = tmp_path / "days.parquet"
    n = simulate_file(file, days=4, customers=400, seed=1)
    table = pq.read_table(file)
    frauds = sum(table["fraud"].to_pylist())
    assert replay_file(replay(bank, file)) == Sent(transactions=n, labels=frauds)
    sender.sent.clear()
    found = replay_file(replay(bank, file, bank="bank-2", bank_column="bank"))
    mine = [fraud for fraud, name in zip(table["fraud"].to_pylist(), table["bank"].to_pylist(),
                                         strict=True) if name == "bank-2"]  # fmt: skip
    assert found == Sent(transactions=len(mine), labels=sum(mine))
    assert len(sender.sent) == found.transactions + found.labels


@pytest.mark.parametrize("half", [{"bank": "bank-1"}, {"bank_column": "bank"}])
def test_bank_and_its_column_come_together(bank, sender, half, tmp_path):
    """One without the other is refused."""
    with pytest.raises(InvalidInputError, match="both or neither"):
        replay_file(replay(bank, tmp_path / "none.csv", **half))


class FakeConsumer:
    """Hands out one batch of alerts, one of them twice."""

    def __init__(self, **_config):
        self.is_from_start = False
        type(self).last = self
        self.is_closed = False

    def partitions_for_topic(self, topic):
        """Return the partition of one bank's alerts alone."""
        return {0} if topic == "north.alerts" else None

    def assign(self, places):
        """Take the places."""
        self.places = places

    def seek_to_beginning(self):
        """Note it."""
        self.is_from_start = True

    def poll(self, timeout_ms):
        """Return the batch."""
        assert timeout_ms > 0
        return {
            self.places[0]: [
                SimpleNamespace(value=msgspec.json.encode(alert(i, reasons=[(1.5, "odd hour")])))
                for i in (1, 2, 1)
            ]
        }

    def close(self):
        """Note it."""
        self.is_closed = True


def test_alerts_are_told_once_with_their_reasons(monkeypatch):
    """Until the time is over; then the connection is let go of."""
    monkeypatch.setattr(commands, "KafkaConsumer", FakeConsumer)
    times = iter([0.0, 1.0, 2.0, 99.0])
    lines = list(
        tail_alerts("b:1", "north", seconds=50.0, from_start=True, clock=lambda: next(times))
    )
    assert len(lines) == 2
    for i, line in enumerate(lines, 1):
        head, reason = line.splitlines()
        for part in ("12.3%", f"transaction P{i} ", "account A ", "100 minor units EUR"):
            assert part in head
        assert reason.split() == ["+1.5", "odd", "hour"]
    assert FakeConsumer.last.is_from_start
    assert FakeConsumer.last.is_closed


def test_topic_that_is_not_there_is_said(monkeypatch):
    """By its name."""
    monkeypatch.setattr(commands, "KafkaConsumer", FakeConsumer)
    with pytest.raises(UnavailableError, match=r"south\.alerts"):
        next(tail_alerts("b:1", "south", seconds=1.0, from_start=True, clock=lambda: 0.0))


def test_without_a_local_broker_the_user_is_told_what_to_do(tmp_path):
    """Give an address or start one."""
    with pytest.raises(UnavailableError, match=r"--bootstrap.*amalgam kafka up"):
        local_bootstrap(tmp_path)
    assert not commands.kafka_down(tmp_path)


def test_simulated_mapping_that_is_named_is_there():
    """The path that `amalgam simulate` prints leads to the mapping, seen from the checkout."""
    root = Path(__file__).parents[3]
    assert load_mapping(root / commands.SIMULATED).table_label == "fraud"
