"""What the demonstration shows: a table of banks, the latest alerts, the releases."""

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from deploy.scoreboard import BankBoard, Scoreboard


def banks_table(board: Scoreboard, title: str) -> Table:
    """Return one row a bank: transactions, alerts, average precision alone and amalgamated."""
    table = Table(
        title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0)
    )
    table.add_column("bank")
    for name in ("payments", "alerts", "frauds caught", "AP alone", "AP amalg.", "release"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, bank in board.banks.items():
        table.add_row(name, *_cells(bank))
    alone, together = board.macro()
    table.add_section()
    table.add_row("all", f"{board.n_scored:,}", "", "", _ap(alone), _ap(together), "")
    return table


def _cells(bank: BankBoard) -> list[str]:
    alone, together = bank.precision()
    return [
        f"{bank.n_scored:,}",
        f"{bank.n_alerts:,}",
        f"{bank.n_frauds_alerted} of {len(bank.frauds)}",
        _ap(alone),
        _ap(together),
        str(bank.release or "-"),
    ]


def _ap(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def alerts_text(board: Scoreboard) -> RenderableType:
    """Return the latest alerts with their strongest reasons."""
    if not board.latest:
        return Text("no alerts yet")
    grid = Table.grid(padding=(0, 2, 0, 0))
    for bank, alert in reversed(board.latest):
        towards = [reason.text for reason in alert.reasons if reason.contribution > 0][:2]
        words = "; ".join(towards) or "no reasons: no scorecard yet"
        grid.add_row(Text(bank, style="bold"), Text(f"{alert.y_score:.1%}", style="bold"), words)
    return grid


def screen(board: Scoreboard, status: str) -> RenderableType:
    """Return the whole live screen."""
    return Group(
        banks_table(board, "amalgam: five banks, five formats, one consortium"),
        Panel(alerts_text(board), title="latest alerts and why", title_align="left"),
        Text(status, style="dim"),
    )


def progress_line(board: Scoreboard, elapsed_s: float) -> str:
    """Return one plain line, for where there is no terminal."""
    alone, together = board.macro()
    return (
        f"{elapsed_s:6.1f} s  {board.n_scored:>8,} transactions  {board.n_releases:>3} releases  "
        f"AP alone {_ap(alone)}  amalgamated {_ap(together)}"
    )
