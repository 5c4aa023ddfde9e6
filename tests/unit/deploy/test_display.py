"""What the demonstration shows is what its scoreboard holds."""

import pytest
from rich.console import Console

from deploy.display import alerts_text, banks_table, progress_line, screen
from deploy.scoreboard import Scoreboard
from tests.unit.deploy.test_scoreboard import alert, decision


def shown(renderable, width=100):
    """Return the lines that a console of this width prints."""
    console = Console(width=width)
    with console.capture() as capture:
        console.print(renderable)
    return [line.strip() for line in capture.get().splitlines()]


def line_of(lines, start):
    """Return the words of the one line that starts so."""
    (line,) = [one for one in lines if one.split()[:1] == [start]]
    return line.split()


@pytest.fixture
def board():
    """Return two banks: north found its one fraud, south none of two and is a release behind."""
    board = Scoreboard({"north": frozenset({"P1"}), "south": frozenset({"P7", "P8"})})
    for i in range(1_200):
        score = 0.9 if i == 1 else 0.1
        board.add_decision("north", decision(i, alert=i < 3, release="12", y_score=score))
    for i in range(6, 9):
        board.add_decision("south", decision(i, release="0"))
    board.n_releases = 12
    return board


def test_table_has_a_row_for_each_bank(board):
    """Payments, alerts, frauds caught, precision alone and amalgamated, release."""
    lines = shown(banks_table(board, "title of it"))
    assert lines[0] == "title of it"
    # equal scores of the own expert: precision is the share of frauds; 1 of 1,200 and 2 of 3
    assert line_of(lines, "north") == [
        "north",
        "1,200",
        "3",
        "1",
        "of",
        "1",
        "0.001",
        "1.000",
        "12",
    ]
    assert line_of(lines, "south") == ["south", "3", "0", "0", "of", "2", "0.667", "0.667", "-"]
    assert line_of(lines, "all") == [
        "all", "1,203", f"{(1 / 1_200 + 2 / 3) / 2:.3f}", f"{(1 + 2 / 3) / 2:.3f}",
    ]  # fmt: skip


def test_figures_that_do_not_exist_are_dashes():
    """Before any answer."""
    lines = shown(banks_table(Scoreboard({"north": frozenset({"P1"})}), "x"))
    assert line_of(lines, "north") == ["north", "0", "0", "0", "of", "1", "-", "-", "-"]


def test_alerts_are_shown_newest_first_with_two_reasons_towards_fraud(board):
    """What speaks against fraud is no reason of an alert."""
    board.add_alert("south", alert(1, reasons=[(2.0, "odd hour"), (-3.0, "usual shop")]))
    board.add_alert("north", alert(2, reasons=[(2.0, "first"), (1.0, "second"), (0.5, "third")]))
    first, second = shown(alerts_text(board))
    assert first.split(maxsplit=2) == ["north", "12.3%", "first; second"]
    assert second.split(maxsplit=2) == ["south", "12.3%", "odd hour"]


def test_alert_without_reasons_says_why(board):
    """Before there is a scorecard; and no alert at all is said too."""
    assert shown(alerts_text(board)) == ["no alerts yet"]
    board.add_alert("south", alert(1))
    assert shown(alerts_text(board))[0].endswith("no reasons: no scorecard yet")


def test_screen_holds_table_alerts_and_status(board):
    """All in one renderable."""
    board.add_alert("south", alert(1, reasons=[(2.0, "odd hour")]))
    text = "\n".join(shown(screen(board, "42 s so far")))
    for part in ("north", "south", "odd hour", "42 s so far"):
        assert part in text


def test_progress_line_is_one_line_with_the_figures(board):
    """For where there is no terminal."""
    alone, together = board.macro()
    line = progress_line(board, 12.34)
    assert "\n" not in line
    assert line.split() == [
        "12.3", "s", "1,203", "transactions", "12", "releases",
        "AP", "alone", f"{alone:.3f}", "amalgamated", f"{together:.3f}",
    ]  # fmt: skip
    assert progress_line(Scoreboard({"north": frozenset()}), 0.0).split()[-1] == "-"
