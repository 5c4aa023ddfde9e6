"""The demonstration's tallies count every answer once and compare both experts on the same rows."""

import numpy as np
import pytest

from deploy.scoreboard import Scoreboard
from models.records import Alert, Decision, Reason
from tests.unit.deploy.test_figures import plain_ap

BOTH = {"own": 0.1, "merged": 0.2}


def decision(i, *, alert=False, release="1", y_score=0.5, experts=BOTH):
    """Return an answer."""
    return Decision(
        transaction_id=f"P{i}",
        event_time_ms=i,
        y_score=y_score,
        alert=alert,
        release=release,
        expert_scores=experts,
    )


def alert(i, *, reasons=()):
    """Return an alert."""
    return Alert(
        alert_id=f"a{i}",
        case_id=f"c{i}",
        transaction_id=f"P{i}",
        account_id="A",
        event_time_ms=i,
        amount_minor=100,
        currency="EUR",
        y_score=0.123,
        threshold=0.1,
        release="1",
        reasons=[Reason(feature="f", contribution=c, text=text) for c, text in reasons],
    )


def filled(n=200, seed=4):
    """Return a board of one bank, the truth, and both experts' scores."""
    rng = np.random.default_rng(seed)
    fraud = rng.random(n) < 0.2
    own, blend = rng.random((2, n)).round(2)
    board = Scoreboard({"north": frozenset(f"P{i}" for i in np.flatnonzero(fraud))})
    for i in range(n):
        experts = {"own": float(own[i]), "merged": 0.5}
        board.add_decision("north", decision(i, y_score=float(blend[i]), experts=experts))
    return board, fraud, own, blend


def test_decisions_alerts_and_caught_frauds_are_counted():
    """Of four answers two alert, one of them on a fraud; another bank counts for itself."""
    board = Scoreboard({"south": frozenset(), "north": frozenset({"P1", "P2"})})
    for i, is_alert in enumerate((False, True, False, True)):
        board.add_decision("north", decision(i, alert=is_alert))
    board.add_decision("south", decision(1, alert=True))
    north, south = board.banks["north"], board.banks["south"]
    assert (north.n_scored, north.n_alerts, north.n_frauds_alerted) == (4, 2, 1)
    assert (south.n_scored, south.n_alerts, south.n_frauds_alerted) == (1, 1, 0)
    assert board.n_scored == 5
    assert list(board.banks) == ["north", "south"]


def test_an_answer_that_comes_again_counts_once():
    """Delivery is at least once; the first answer stands."""
    board = Scoreboard({"north": frozenset({"P1"})})
    board.add_decision("north", decision(1, alert=False))
    board.add_decision("north", decision(1, alert=True))
    north = board.banks["north"]
    assert (north.n_scored, north.n_alerts, north.n_compared) == (1, 0, 1)


def test_precision_is_the_formula_on_the_rows_that_both_scored():
    """Alone by the own expert's score, amalgamated by the blend."""
    board, fraud, own, blend = filled()
    alone, together = board.banks["north"].precision()
    assert board.banks["north"].n_compared == 200
    assert alone == pytest.approx(plain_ap(fraud, own), rel=1e-12)
    assert together == pytest.approx(plain_ap(fraud, blend), rel=1e-12)


@pytest.mark.parametrize("experts", [{}, {"own": 0.9}, {"merged": 0.9}])
def test_rows_that_one_expert_did_not_score_are_not_compared(experts):
    """They count as answers, and leave both precisions as they were."""
    board, *_ = filled()
    before = board.banks["north"].precision()
    board.add_decision("north", decision(900, y_score=0.99, experts=experts))
    assert board.banks["north"].n_scored == 201
    assert board.banks["north"].precision() == before


def test_mean_precision_waits_for_every_bank():
    """A bank without a fraud so far has none; then it is the plain mean."""
    board = Scoreboard({"north": frozenset({"P1"}), "south": frozenset({"P1"})})
    assert board.macro() == (None, None)
    for i, (own, blend) in enumerate([(0.2, 0.1), (0.1, 0.9)]):
        one = decision(i, y_score=blend, experts={"own": own, "merged": 0.0})
        board.add_decision("north", one)
    assert board.macro() == (None, None)
    board.add_decision("south", decision(1))
    assert board.banks["north"].precision() == (0.5, 1.0)  # ranked second of two, then first
    assert board.macro() == ((0.5 + 1.0) / 2, 1.0)


def test_newest_release_is_kept_by_number():
    """Release 10 is newer than 9, and an older one that comes late changes nothing."""
    board = Scoreboard({"north": frozenset()})
    for i, release in enumerate(("9", "10", "2")):
        board.add_decision("north", decision(i, release=release))
    assert board.banks["north"].release == 10


def test_alerts_are_shown_once_and_the_latest_six():
    """Each with its bank, in the order in which they came."""
    board = Scoreboard({"north": frozenset(), "south": frozenset()})
    for i in (1, 2, 2, 3, 1, 4, 5, 6, 7, 8):
        board.add_alert("north" if i % 2 else "south", alert(i))
    shown = [(bank, one.alert_id) for bank, one in board.latest]
    assert shown == [
        ("north", "a3"), ("south", "a4"), ("north", "a5"),
        ("south", "a6"), ("north", "a7"), ("south", "a8"),
    ]  # fmt: skip


def test_an_empty_board_has_no_figures():
    """Neither of a bank nor in the mean."""
    board = Scoreboard({"north": frozenset({"P1"})})
    assert board.banks["north"].precision() == (None, None)
    assert (board.n_scored, board.n_releases, board.macro()) == (0, 0, (None, None))
