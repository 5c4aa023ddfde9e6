"""Answers written column by column are the decisions, byte for byte."""

import msgspec
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from models.records import TransactionBatch
from stream.answering import Answering, decisions_of
from stream.scored import Scored

NUMBERS = st.floats(-30, 30) | st.just(float("nan"))
ROW = st.tuples(NUMBERS, NUMBERS, st.floats(-30, 30), st.booleans(), st.booleans())


@given(rows=st.lists(ROW, max_size=8), release=st.integers(0, 2**40))
def test_they_are_written_as_decisions(
    rows: list[tuple[float, float, float, bool, bool]], release: int
) -> None:
    """Some rows refused, some experts without a score."""
    n = len(rows)
    batch = TransactionBatch(
        transaction_id=[f"t{i} ä" for i in range(n)],
        account_id=["a"] * n,
        event_time_ms=np.arange(n) + 2**41,
        amount_minor=np.zeros(n, np.int64),
        amount=np.zeros(n),
        currency=["EUR"] * n,
    )
    accepted = np.flatnonzero([row[4] for row in rows])
    scored = Scored(
        accepted=accepted,
        experts=("own", "merged"),
        scores=np.array([row[:2] for row in rows]).reshape(-1, 2)[accepted],
        logit=np.array([row[2] for row in rows])[accepted],
        alert=np.array([row[3] for row in rows], bool)[accepted],
        alerts=[],
        rejected=[],
        release=release,
    )
    found = Answering(scored.experts).decisions(batch.take(accepted), scored)
    written = [msgspec.json.encode(each) for each in found]
    assert written == [msgspec.json.encode(each) for each in decisions_of(batch, scored)]
