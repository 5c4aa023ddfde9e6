"""``python -m deploy.bench.peers NAME``: Quix Streams over the bank's topic, timed by itself.

It runs in the peers' own environment (`peers.txt`), never in the product's, and so imports nothing
of ours but the stopwatch. ``quix-json`` decodes and does nothing; ``quix-river`` does a like job:
some features of the account in state, a logistic regression that answers and learns one by one, a
decision produced. It has it easier than a worker: eight features, no evidence on entities, no
reasons, no alert budget, one currency, the truth known at once instead of joined when it comes.
"""

import argparse
import math
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

from quixstreams import (  # type: ignore[import-not-found]  # lives in the peers' environment
    Application,
)
from river.linear_model import LogisticRegression
from river.preprocessing import StandardScaler

from deploy.bench.stopwatch import Stopwatch

_COMMIT_S = 2.0  # as often as the worker stores its state
_DAY_S = 86_400.0
_ALERT_ABOVE = 0.5


def run_json(given: argparse.Namespace, app: Application, watch: Stopwatch) -> None:
    """Decode each record and do nothing with it."""

    def count(_: Any) -> None:
        watch.count()
        if watch.is_done:
            app.stop()

    topic = app.topic(f"{given.bank}.transactions", value_deserializer="json")
    frame = app.dataframe(topic)
    frame.update(count)
    app.run()


def run_river(given: argparse.Namespace, app: Application, watch: Stopwatch) -> None:
    """Decode, update the account's state, answer, learn, produce the decision."""
    model = StandardScaler() | LogisticRegression()
    frauds = frozenset(given.frauds.read_text(encoding="utf-8").split())

    def decide(record: dict[str, Any], state: Any) -> dict[str, Any]:
        payment = record["trx"]
        at_s = datetime.fromisoformat(payment["at"]).timestamp()
        x, kept = _features(payment["amount"]["value"], at_s, state.get("account"))
        state.set("account", kept)
        y_score = model.predict_proba_one(x).get(True, 0.0)
        model.learn_one(x, payment["ref"] in frauds)
        watch.count()
        if watch.is_done:
            app.stop()
        return {
            "transaction_id": payment["ref"],
            "event_time_ms": round(at_s * 1_000),
            "y_score": y_score,
            "alert": y_score > _ALERT_ABOVE,
        }

    topic = app.topic(
        f"{given.bank}.transactions", key_deserializer="str", value_deserializer="json"
    )
    answers = app.topic(f"{given.bank}.peer-decisions", value_serializer="json")
    app.dataframe(topic).apply(decide, stateful=True).to_topic(answers)
    app.run()


def _features(
    amount: float, at_s: float, kept: list[float] | None
) -> tuple[dict[str, float], list[float]]:
    """Return the features of a payment and the account's state after it.

    The state is the number of payments, their mean amount, the time of the last one and two counts
    that fade, within about a day and a week.
    """
    n, mean, last_s, day, week = kept or (0.0, 0.0, at_s, 0.0, 0.0)
    since_s = max(at_s - last_s, 0.0)
    day = day * math.exp(-since_s / _DAY_S) + 1.0
    week = week * math.exp(-since_s / (7 * _DAY_S)) + 1.0
    hour = at_s % _DAY_S / 3_600
    x = {
        "amount_log": math.log1p(amount),
        "amount_to_mean": amount / mean if mean else 1.0,
        "since_log": math.log1p(since_s),
        "day": day,
        "week": week,
        "is_night": float(hour < 6),
        "is_weekend": float((at_s // _DAY_S + 4) % 7 >= 5),
        "is_new": float(n == 0),
    }
    return x, [n + 1.0, mean + (amount - mean) / (n + 1.0), at_s, day, week]


PEERS = {"quix-json": run_json, "quix-river": run_river}


def main() -> int:
    """Run one peer over its records and print its times."""
    parser = argparse.ArgumentParser(prog="python -m deploy.bench.peers")
    parser.add_argument("name", choices=PEERS)
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--bank", required=True)
    parser.add_argument("--group", required=True)
    parser.add_argument("--records", type=int, required=True)
    parser.add_argument("--frauds", type=Path, required=True)
    given = parser.parse_args()
    watch = Stopwatch(given.records)
    with tempfile.TemporaryDirectory() as directory:
        app = Application(
            broker_address=given.bootstrap,
            consumer_group=given.group,
            auto_offset_reset="earliest",
            commit_interval=_COMMIT_S,
            state_dir=directory,
            auto_create_topics=False,
            use_changelog_topics=False,
            loglevel="WARNING",
        )
        PEERS[given.name](given, app, watch)
    watch.report()
    return 0


if __name__ == "__main__":
    sys.exit(main())
