"""The answers to a batch: decisions one by one to look at, or column by column to write."""

from collections.abc import Iterable, Iterator
from itertools import repeat
from typing import Any

import msgspec
import numpy as np

from models.records import Decision, TransactionBatch
from stream.alerts import probability
from stream.scored import Scored


def decisions_of(batch: TransactionBatch, scored: Scored) -> Iterator[Decision]:
    """Yield the decision on each accepted row of a batch."""
    release = str(scored.release)
    for row, score, alert, experts in zip(
        scored.accepted.tolist(),
        probability(scored.logit).tolist(),
        scored.alert.tolist(),
        scored.scores.tolist(),
        strict=True,
    ):
        yield Decision(
            transaction_id=batch.transaction_id[row],
            event_time_ms=int(batch.event_time_ms[row]),
            y_score=score,
            alert=alert,
            release=release,
            # a NaN, which is not equal to itself: that expert has no score yet
            expert_scores={n: s for n, s in zip(scored.experts, experts, strict=True) if s == s},  # noqa: PLR0124
        )


class Answering:
    """Makes records that are written as `decisions_of` would be, at less than half the cost.

    Their type has a field for each expert where a decision has a dictionary.

    Parameters
    ----------
    experts
        Their names.
    """

    def __init__(self, experts: tuple[str, ...]) -> None:
        self._experts = experts
        places = [f"e{i}" for i in range(len(experts))]
        scores = msgspec.defstruct(
            "ExpertScores",
            [(place, float | msgspec.UnsetType, msgspec.UNSET) for place in places],
            rename=dict(zip(places, experts, strict=True)),
            gc=False,
        )
        fields: list[tuple[str, Any]] = [
            (name, scores if name == "expert_scores" else Any)
            for name in Decision.__struct_fields__
        ]
        self._scores = scores
        self._decision = msgspec.defstruct("Decision", fields, gc=False)

    def decisions(self, batch: TransactionBatch, scored: Scored) -> Iterable[msgspec.Struct]:
        """Return the decision on each row of a batch, all of which were accepted."""
        return map(
            self._decision,
            batch.transaction_id,
            batch.event_time_ms.tolist(),
            probability(scored.logit).tolist(),
            scored.alert.tolist(),
            repeat(str(scored.release)),
            self._expert_scores(scored),
        )

    def _expert_scores(self, scored: Scored) -> Iterable[msgspec.Struct]:
        """Return a row's scores; an expert that has none yet is left out."""
        lacks = np.isnan(scored.scores)
        columns: list[list[Any]] = scored.scores.T.tolist()
        for expert in np.flatnonzero(lacks.any(axis=0)).tolist():
            for row in np.flatnonzero(lacks[:, expert]).tolist():
                columns[expert][row] = msgspec.UNSET
        return map(self._scores, *columns)
