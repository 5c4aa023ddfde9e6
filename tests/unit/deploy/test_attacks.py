"""Attacks as pure functions: what they change, and that the gate lets most of them through."""

import numpy as np
import pytest

from amalgamator.gate import Accepted, Gate, GateLimits, Seen
from deploy import attacks
from deploy.attacks import ATTACKS
from models.records import TransactionBatch
from tests.consortium import (
    NOW_MS,
    SCHEMA,
    closing,
    envelopes,
    evidence,
    histograms,
    registry_of,
    statistics,
)

EVIDENCE = evidence("alpha", 20_000, seed=3)
STATISTICS = statistics("alpha", 700, basis=1, n_weights=9, seed=4)
OTHERS = (histograms("alpha", n=50, n_frauds=5, seed=5), closing("alpha", 2))
TAMPERS = {name: one.tamper for name, one in ATTACKS.items() if one.tamper is not None}


def batch(terminals):
    """Return payments at these terminals."""
    n = len(terminals)
    return TransactionBatch(
        transaction_id=[f"T{i}" for i in range(n)],
        account_id=["A"] * n,
        event_time_ms=np.arange(n),
        amount_minor=np.ones(n, np.int64),
        amount=np.ones(n),
        currency=["EUR"] * n,
        entities={"terminal": terminals},
        attributes={},
    )


def test_labels_are_flipped_or_hidden_whole_or_at_one_entity():
    """The entity with the most frauds; payments without an entity stay as they are."""
    said = np.array([True, True, True, False, True])
    some = batch(["x", "y", "x", "x", None])
    assert attacks.flip_labels(some, said).tolist() == [False, False, False, True, False]
    assert attacks.hide_frauds(some, said).tolist() == [False] * 5
    assert attacks.hide_one_entity(some, said).tolist() == [False, True, False, False, True]
    assert said.tolist() == [True, True, True, False, True]


def test_counts_are_exchanged_or_all_are_frauds():
    """Ages go with them: a cell without frauds has no time of one."""
    n, f = EVIDENCE.arrays["n"], EVIDENCE.arrays["f"]
    (flipped,) = attacks.flip_counts(EVIDENCE)
    assert flipped.arrays["f"].tolist() == (n - f).tolist()
    (flood,) = attacks.flag_everything(EVIDENCE)
    assert flood.arrays["f"].tolist() == n.tolist()
    for one in (flipped, flood):
        has_fraud = one.arrays["f"] > 0
        assert ((one.arrays["last_fraud_ms"] >= 0) == has_fraud).all()
        assert ((one.arrays["last_legit_ms"] >= 0) == (one.arrays["f"] < n)).all()


def test_statistics_are_scaled_with_or_without_their_n():
    """By the factor."""
    (scaled,) = attacks.scale_statistics(10.0)(STATISTICS)
    assert scaled.arrays["gradient"] == pytest.approx(10.0 * STATISTICS.arrays["gradient"])
    assert scaled.arrays["curvature"] == pytest.approx(10.0 * STATISTICS.arrays["curvature"])
    assert scaled.n == STATISTICS.n
    assert attacks.pretend_size(10.0)(STATISTICS)[0].n == 10 * STATISTICS.n


@pytest.mark.parametrize("bent", [attacks.bend, attacks.freeze])
def test_a_bent_curvature_has_a_negative_direction(bent):
    """And the diagonal that it had."""
    (one,) = bent(STATISTICS)
    square = np.zeros((9, 9))
    square[np.triu_indices(9)] = one.arrays["curvature"]
    square += np.triu(square, 1).T
    assert np.linalg.eigvalsh(square)[0] < -0.01
    before = np.zeros((9, 9))
    before[np.triu_indices(9)] = STATISTICS.arrays["curvature"]
    assert np.diag(square).tolist() == np.diag(before).tolist()


@pytest.mark.parametrize("name", TAMPERS)
def test_what_a_liar_sends_passes_the_gate(name):
    """Well-formed, signed, in range: only its content is a lie. Other parts are left alone."""
    sent = [made for one in (EVIDENCE, STATISTICS, *OTHERS) for made in TAMPERS[name](one)]
    gate = Gate(registry_of(), SCHEMA, GateLimits())
    outcomes = [gate.check(raw, Seen(), NOW_MS) for raw in envelopes(sent)]
    assert all(isinstance(one, Accepted) for one in outcomes), outcomes
    assert sent[2:] == list(OTHERS)
    assert sent[:2] != [EVIDENCE, STATISTICS]


def test_every_attack_lies_in_one_way_and_says_how():
    """By labels or by contributions."""
    for one in ATTACKS.values():
        assert (one.relabel is None) != (one.tamper is None)
        assert one.text
        assert one.n_liars in (1, 2)
