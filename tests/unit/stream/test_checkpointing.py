"""When a checkpoint may be made, and that what it costs is counted, on the loop and aside."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from models.errors import StateError
from stream import checkpointing
from stream.aside import Aside
from stream.checkpointing import Checkpoints
from stream.manifest import Snapshot
from stream.store import STORE, StateStore
from stream.take_over import Places
from stream.telemetry import Telemetry

PLACE = {("bank.transactions", 0): 7}
EVERY_S = 0.01


class Changelog:
    """Takes a while of processor time for each checkpoint."""

    def __init__(self) -> None:
        self.sent: list[Snapshot] = []
        self.cost_s = 0.0
        self.error: StateError | None = None

    async def send(self, snapshot: Snapshot) -> int:
        until_s = time.thread_time() + self.cost_s
        while time.thread_time() < until_s:
            pass
        if self.error is not None:
            raise self.error
        self.sent.append(snapshot)
        return 11


@pytest.fixture
async def checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Checkpoints]:
    """Return those of a state of one array, with a changelog."""
    state = SimpleNamespace(arrays={"a": np.arange(9)}, meta=b"", touched={}, versions={})
    monkeypatch.setattr(checkpointing, "dump", lambda pipeline: state)
    store = StateStore(tmp_path / STORE)
    with Aside("state") as aside:
        places = Places(store, Changelog(), aside)
        yield Checkpoints(places, Telemetry(CollectorRegistry()), every_s=EVERY_S, share=0.02)
    store.close()


async def write(checkpoints: Checkpoints) -> None:
    checkpoints.begin(None, ({}, {}), PLACE, lambda: asyncio.sleep(0))
    await checkpoints.written()


def metric(checkpoints: Checkpoints, name: str) -> float:
    lines = checkpoints._telemetry.render().decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(name + " "))


async def test_state_and_changelog_hold_the_same_checkpoint(checkpoints: Checkpoints) -> None:
    """With its offsets; both are counted."""
    await write(checkpoints)
    held = checkpoints.store.load()
    assert held is not None
    assert held.arrays["a"].tolist() == list(range(9))
    assert held.offsets == PLACE
    assert [one.manifest for one in checkpoints.changelog.sent] == [checkpoints.store.sealed()]
    assert metric(checkpoints, "amalgam_stream_changelog_bytes_total") == 11.0


async def test_the_next_one_comes_when_the_last_has_cost_its_share(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fifty times its processor time, the changelog's too; the cost is told."""
    checkpoints.changelog.cost_s = 0.03
    now_s = 100.0
    monkeypatch.setattr(checkpoints, "_loop", SimpleNamespace(time=lambda: now_s))
    await write(checkpoints)
    spent_s = metric(checkpoints, "amalgam_stream_checkpoint_cpu_seconds_total")
    assert 0.03 <= spent_s < 0.2
    for later_s, is_affordable in ((spent_s * 49, False), (spent_s * 51, True)):
        now_s = 100.0 + later_s
        assert checkpoints.is_affordable() is is_affordable
        assert checkpoints.is_due() is is_affordable


async def test_no_pause_is_longer_than_a_minute_or_shorter_than_was_set(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restart repeats no more; a publication is held to the share alone."""
    now_s = 100.0
    monkeypatch.setattr(checkpoints, "_loop", SimpleNamespace(time=lambda: now_s))
    await write(checkpoints)
    checkpoints._cost_s = 0.0
    assert (checkpoints.is_affordable(), checkpoints.is_due()) == (True, False)
    checkpoints._cost_s = 100.0
    now_s += 59.0
    assert not checkpoints.is_affordable()
    now_s += 2.0
    assert checkpoints.is_due()


async def test_what_cannot_be_kept_is_told_and_none_comes_after_it(
    checkpoints: Checkpoints,
) -> None:
    """Nothing is acknowledged."""
    checkpoints.changelog.error = StateError("no changelog")
    acknowledged: list[int] = []

    async def acknowledge() -> None:
        acknowledged.append(1)

    checkpoints.begin(None, ({}, {}), PLACE, acknowledge)
    with pytest.raises(StateError, match="no changelog"):
        await checkpoints.written()
    assert checkpoints.failure() == "the state is not stored: no changelog"
    assert acknowledged == []
