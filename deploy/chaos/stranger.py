"""``python -m deploy.chaos.stranger``: joins a bank's consumer group, as a tool by mistake might.

It gets partitions like any member, reads them, and commits nothing. Until it is killed and its
session is over the group deals partitions out between it and the worker, and afterwards anew.
"""

import argparse
import sys
import time

from kafka import KafkaConsumer
from kafka.errors import KafkaError

_SESSION_MS = 6_000  # the least that a broker allows by default
_RETRY_S = 0.5


def main() -> None:
    """Read until killed, whatever befalls the broker."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--group", required=True)
    parser.add_argument("topics", nargs="+")
    given = parser.parse_args()
    while True:
        try:
            consumer = KafkaConsumer(
                *given.topics,
                bootstrap_servers=given.bootstrap,
                group_id=given.group,
                enable_auto_commit=False,
                session_timeout_ms=_SESSION_MS,
                heartbeat_interval_ms=_SESSION_MS // 3,
            )
            while True:
                consumer.poll(timeout_ms=200)
        except (KafkaError, OSError) as error:
            sys.stderr.write(f"{error}\n")
            time.sleep(_RETRY_S)


if __name__ == "__main__":
    main()
