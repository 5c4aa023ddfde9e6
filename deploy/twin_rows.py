"""The features of every row of a file, as the banks' own workers compute them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deploy.bank_rows import BankRows, bank_stream
from deploy.local import LocalConsortium
from deploy.runs import local_amalgamator
from models.features.accounts import DAY_MS
from models.schema import Schema
from stream.experts import LearningPolicy
from stream.label_join import hash_ids
from stream.pipeline import Pipeline, Scored
from stream.pipeline_config import PipelineConfig

_SECRET = b"twin: no secret, nothing leaves this process"
_HOUR_MS = 3_600_000
_NEVER = 2**62
OnProgress = Callable[[float], None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FeatureRows:
    """The rows that the banks' workers took in, in the file's order.

    Parameters
    ----------
    schema
        Names of the columns.
    features
        float32 of shape (n, n_features), with the consortium's evidence as of each payment.
    is_fraud
        bool of shape (n,).
    bank
        int64 of shape (n,).
    event_ms
        int64 of shape (n,).
    hashes
        uint64 of shape (n,): of the transaction ids.
    """

    schema: Schema
    features: NDArray[np.float32]
    is_fraud: NDArray[np.bool_]
    bank: NDArray[np.int64]
    event_ms: NDArray[np.int64]
    hashes: NDArray[np.uint64]


def feature_rows(data: BankRows, *, delay_ms: int, on_progress: OnProgress) -> FeatureRows:
    """Run the banks' pipelines and their exchange of evidence over a file; keep the features.

    No scorecard is learnt: a first basis is never due.

    Parameters
    ----------
    data
        The file's rows.
    delay_ms
        Until a fraud is reported and the rest counts as legitimate.
    on_progress
        Called with the share of the work done, in [0, 1].
    """
    schema = Schema(entity_kinds=tuple(sorted(data.batch.entities)))
    learning = LearningPolicy(first_n=_NEVER, first_frauds=_NEVER)
    pipelines = {
        name: Pipeline(
            PipelineConfig(
                member=name,
                schema=schema,
                secret=_SECRET,
                label_horizon_ms=delay_ms,
                learning=learning,
                statistics_cadence_ms=10_000 * DAY_MS,
            )
        )
        for name in data.names
    }
    rows_of = {name: np.flatnonzero(data.bank == i) for i, name in enumerate(data.names)}
    n = len(data.batch)
    features = np.empty((n, len(schema.feature_names)), np.float32)
    is_taken = np.zeros(n, np.bool_)

    def take(name: str, rows: slice, scored: Scored) -> None:
        places = rows_of[name][rows][scored.accepted]
        if len(places):
            features[places] = pipelines[name].log.features[-len(places) :]
            is_taken[places] = True
        on_progress(float(np.count_nonzero(is_taken)) / n)

    streams = {
        name: bank_stream(data.batch.take(rows), data.is_fraud[rows], delay_ms)
        for name, rows in rows_of.items()
    }
    amalgamator = local_amalgamator(data.names, schema, learning)
    LocalConsortium(pipelines, amalgamator, cadence_ms=_HOUR_MS).run(streams, on_scored=take)
    kept = np.flatnonzero(is_taken)
    hashes = np.array(hash_ids(data.batch.transaction_id), np.uint64)
    return FeatureRows(
        schema=schema,
        features=features[kept],
        is_fraud=data.is_fraud[kept],
        bank=data.bank[kept],
        event_ms=data.batch.event_time_ms[kept],
        hashes=hashes[kept],
    )
