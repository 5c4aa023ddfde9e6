"""The features of every row of a file, as the banks' own workers compute them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deploy.bank_rows import BankRows, without_attributes
from deploy.progress import OnShare, share_counter
from deploy.runs import BankPlan, ConsortiumRun, RunPlan, schema_of
from models.schema import Schema
from stream.experts import LearningPolicy
from stream.label_join import hash_ids
from stream.pipeline import Pipeline

_NEVER = 2**62


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


def feature_rows(data: BankRows, *, delay_ms: int, on_progress: OnShare) -> FeatureRows:
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
    data = without_attributes(data)
    n, schema = len(data.batch), schema_of(data.batch)
    features = np.empty((n, len(schema.feature_names)), np.float32)
    is_taken = np.zeros(n, np.bool_)

    def take(pipeline: Pipeline, rows: NDArray[np.int64]) -> None:
        features[rows] = pipeline.log.newest(len(rows)).features
        is_taken[rows] = True

    plan = RunPlan(
        label_delay_s=delay_ms / 1_000,
        usual=BankPlan(statistics_s=10_000 * 86_400.0),
        learning=LearningPolicy(first_n=_NEVER, first_frauds=_NEVER),
    )
    ConsortiumRun(plan, data, share_counter(n, on_progress), take).run()
    kept = np.flatnonzero(is_taken)
    hashes = hash_ids(data.batch.transaction_id)
    return FeatureRows(
        schema=schema,
        features=features[kept],
        is_fraud=data.is_fraud[kept],
        bank=data.bank[kept],
        event_ms=data.batch.event_time_ms[kept],
        hashes=hashes[kept],
    )
