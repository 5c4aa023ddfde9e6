"""Sends banks' disturbed feeds to the broker, a little ahead of what has been learnt."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from deploy.chaos.feed_plan import LanePiece, Slot
from deploy.replay import WATERMARK_KEY, watermark_headers
from deploy.replay_kafka import KafkaSender
from models.errors import UnavailableError
from models.topics import BankTopics

_RETRY_S = 1.0
_TRIES = 30
_PAUSE_S = 0.1
_STOP_S = 30.0


class Note(NamedTuple):
    """What of a slot was not as a careful sender would send it."""

    bank: str
    slot: int
    repeated: int
    late: int


class Feeder:
    """Sends slot after slot of all banks, and tries again what a broker that is away did not take.

    Records go before the watermarks that follow them, and are stored before these are sent: a
    watermark that overtook a record would break the promise that it gives.

    Parameters
    ----------
    bootstrap
        Of the broker.
    feeds
        Bank -> its slots.
    allowed
        Returns the share of the slots that may have been sent by now.
    note
        Hears of repeated and late records.
    """

    def __init__(
        self,
        bootstrap: str,
        feeds: Mapping[str, Sequence[Slot]],
        *,
        allowed: Callable[[], float],
        note: Callable[[Note], None],
    ) -> None:
        self._bootstrap = bootstrap
        self._feeds = feeds
        self._allowed = allowed
        self._note = note
        self._sender: KafkaSender | None = None
        self._is_stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="feeder", daemon=True)
        self.error: UnavailableError | None = None

    @property
    def is_done(self) -> bool:
        """Whether all has been sent."""
        return not self._thread.is_alive()

    def start(self) -> None:
        """Send everything, in a thread of its own."""
        self._thread.start()

    def _run(self) -> None:
        n_slots = max(len(slots) for slots in self._feeds.values())
        try:
            for i in range(n_slots):
                while i > self._allowed() * n_slots:
                    if self._is_stopped.wait(_PAUSE_S):
                        return
                self._send_surely(i)
        except UnavailableError as error:
            self.error = error

    def stop(self) -> None:
        """Send no more."""
        self._is_stopped.set()
        if self._thread.ident is not None:
            self._thread.join(_STOP_S)

    def _send_surely(self, index: int) -> None:
        slots = {bank: each[index] for bank, each in self._feeds.items() if index < len(each)}
        for left in reversed(range(_TRIES)):
            try:
                self._send(slots)
            except UnavailableError:
                self._sender = None
                if not left or self._is_stopped.is_set():
                    raise
                time.sleep(_RETRY_S)
            else:
                break
        for bank, slot in slots.items():
            if slot.repeated or slot.late:
                self._note(Note(bank, index, slot.repeated, slot.late))

    def _send(self, slots: Mapping[str, Slot]) -> None:
        if self._sender is None:
            self._sender = KafkaSender(self._bootstrap)
        sender = self._sender
        pieces = [
            (BankTopics(bank), piece) for bank, slot in slots.items() for piece in slot.pieces
        ]
        # of a lane that catches up there are several chunks, which go in their order
        for watermark_ms in sorted({piece.mark.watermark_ms for _, piece in pieces}):
            now = [each for each in pieces if each[1].mark.watermark_ms == watermark_ms]
            for topics, piece in now:
                topic = _topic(topics, piece)
                for key, value in piece.records:
                    sender.send(topic, key=key, value=value, headers=[], partition=piece.partition)
            sender.flush()
            for topics, piece in now:
                sender.send(
                    _topic(topics, piece),
                    key=WATERMARK_KEY,
                    value=None,
                    headers=watermark_headers(piece.mark),
                    partition=piece.partition,
                )
            sender.flush()


def _topic(topics: BankTopics, piece: LanePiece) -> str:
    return topics.labels if piece.topic == "labels" else topics.transactions
