"""Sends banks' disturbed feeds to the broker, a little ahead of what has been learnt."""

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from deploy.chaos.feed_plan import LanePiece, Slot
from deploy.replay import WATERMARK_KEY, watermark_headers
from models.errors import UnavailableError
from models.topics import BankTopics

_RETRY_S = 1.0
_TRIES = 30
_PAUSE_S = 0.1
_STOP_S = 30.0
_SEND_S = 45.0  # somewhat longer than the client tries by itself


class Note(NamedTuple):
    """What of a slot was not as a careful sender would send it."""

    bank: str
    slot: int
    repeated: int
    late: int


class Feeder:
    """Sends slot after slot of all banks, and tries again what a broker that is away did not take.

    Records go before the watermarks that follow them, and are stored before these are sent: a
    watermark that overtook a record would break the promise that it gives. What is tried again may
    come twice. The client is aiokafka's, whose every wait can be given up.

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

    Attributes
    ----------
    error
        Why it gave up, None while it has not.
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
        self._producer: AIOKafkaProducer | None = None
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

    def stop(self) -> None:
        """Send no more."""
        self._is_stopped.set()
        if self._thread.ident is not None:
            self._thread.join(_STOP_S)

    def check(self) -> None:
        """Raise what has ended it, if anything has.

        Raises
        ------
        UnavailableError
            If the broker did not take a record for too long.
        """
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        try:
            asyncio.run(self._send_all())
        except UnavailableError as error:
            self.error = error

    async def _send_all(self) -> None:
        n_slots = max(len(slots) for slots in self._feeds.values())
        try:
            for i in range(n_slots):
                while not self._may_send(i, n_slots):  # noqa: ASYNC110  # other threads decide
                    await asyncio.sleep(_PAUSE_S)
                if self._is_stopped.is_set():
                    return
                await self._send_surely(i)
        finally:
            await self._let_go()

    def _may_send(self, index: int, n_slots: int) -> bool:
        return index <= self._allowed() * n_slots or self._is_stopped.is_set()

    async def _send_surely(self, index: int) -> None:
        slots = {bank: each[index] for bank, each in self._feeds.items() if index < len(each)}
        for left in reversed(range(_TRIES)):
            try:
                await self._send(slots)
            except (KafkaError, OSError, TimeoutError) as error:
                await self._let_go()
                if not left or self._is_stopped.is_set():
                    raise UnavailableError(f"{self._bootstrap}: feed: {error}") from error
                await asyncio.sleep(_RETRY_S)
            else:
                break
        for bank, slot in slots.items():
            if slot.repeated or slot.late:
                self._note(Note(bank, index, slot.repeated, slot.late))

    async def _let_go(self) -> None:
        """Close the client, if there is one, whatever it still waits for."""
        producer, self._producer = self._producer, None
        if producer is not None:
            with suppress(KafkaError, OSError, TimeoutError):
                await asyncio.wait_for(producer.stop(), _RETRY_S)

    async def _send(self, slots: Mapping[str, Slot]) -> None:
        if self._producer is None:
            self._producer = AIOKafkaProducer(bootstrap_servers=self._bootstrap, acks="all")
            await asyncio.wait_for(self._producer.start(), _SEND_S)
        pieces = [
            (BankTopics(bank), piece) for bank, slot in slots.items() for piece in slot.pieces
        ]
        # of a lane that catches up there are several chunks, which go in their order
        for watermark_ms in sorted({piece.mark.watermark_ms for _, piece in pieces}):
            now = [each for each in pieces if each[1].mark.watermark_ms == watermark_ms]
            await asyncio.wait_for(_send_records(self._producer, now), _SEND_S)
            await asyncio.wait_for(_send_marks(self._producer, now), _SEND_S)


Pieces = Sequence[tuple[BankTopics, LanePiece]]


async def _send_records(producer: AIOKafkaProducer, pieces: Pieces) -> None:
    sent = [
        await producer.send(_topic(topics, piece), value, key=key, partition=piece.partition)
        for topics, piece in pieces
        for key, value in piece.records
    ]
    await asyncio.gather(*sent)


async def _send_marks(producer: AIOKafkaProducer, pieces: Pieces) -> None:
    sent = [
        await producer.send(
            _topic(topics, piece),
            None,
            key=WATERMARK_KEY,
            headers=watermark_headers(piece.mark),
            partition=piece.partition,
        )
        for topics, piece in pieces
    ]
    await asyncio.gather(*sent)


def _topic(topics: BankTopics, piece: LanePiece) -> str:
    return topics.labels if piece.topic == "labels" else topics.transactions
