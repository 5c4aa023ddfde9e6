"""The Faust application around a worker's two agents, set up for chunks."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faust
import mode

from models.topics import BankTopics
from stream.settings import Settings
from stream.share import Share
from stream.transport import BatchSchema, BatchTransport

_SESSION_TIMEOUT_S = 15.0


class BatchApp(faust.App):
    """A Faust app whose consumer hands on chunks of its share, from where ``positions`` says."""

    logger = logging.getLogger("faust")  # else it takes this module's, and tells of every start
    positions: Callable[[], Any]
    share: Share

    def _new_transport(self) -> BatchTransport:
        return BatchTransport(self.conf.broker_consumer, self, loop=self.loop)


def build_faust(
    settings: Settings,
    topics: BankTopics,
    on_chunk: Callable[[Any], Any],
    positions: Callable[[], Any],
) -> faust.App:
    """Return the Faust app: one agent per input topic, whose chunks go to ``on_chunk``.

    A worker is alone in its group, under one static name: a second process takes its place at once.
    """
    app = BatchApp(
        settings.group,
        broker=f"kafka://{settings.bank_bootstrap}",
        datadir=str(Path(settings.state_dir) / "faust"),
        agent_supervisor=mode.CrashingSupervisor,
        broker_session_timeout=_SESSION_TIMEOUT_S,
        broker_heartbeat_interval=3.0,
        broker_commit_interval=1.0,
        consumer_auto_offset_reset="earliest",
        consumer_group_instance_id=f"{settings.member}-{settings.worker}",
        producer_request_timeout=60.0,
        stream_buffer_maxsize=16,
        stream_wait_empty=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        worker_redirect_stdouts=False,
    )
    app.positions = positions
    app.share = settings.share
    for name in (topics.transactions, topics.labels):
        channel = app.topic(name, schema=BatchSchema(), internal=False)

        async def run(chunks: Any) -> None:
            async for event in chunks.noack().events():
                await on_chunk(event)

        app.agent(channel, name=name)(run)
    return app
