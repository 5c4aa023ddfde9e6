"""How a host is started: what it refuses before it connects."""

import sys
from pathlib import Path

import pytest

from stream.host import __main__ as entrance

LINES = (
    'member = "north"\nbank_bootstrap = "127.0.0.1:1"\nconsortium_bootstrap = "127.0.0.1:1"\n'
    'mapping_file = "m"\nconsortium_file = "c"\nkey_file = "k"\nsecret_file = "s"\n'
    'state_dir = "state"\n'
)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("", "changelog: expected true where hosts run the workers, got false"),
        ("changelog = true\nworkers = 0\n", "workers"),
        ("changelog = true\nstandbye = true\n", "did you mean 'standby'"),
    ],
)
def test_wrong_settings_end_a_host_with_two_and_a_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    more: str,
    told: str,
) -> None:
    """Without a changelog a worker would come without its state."""
    file = tmp_path / "bank.toml"
    file.write_text(LINES + more)
    monkeypatch.setattr(sys, "argv", ["stream.host", "--settings", str(file)])
    assert entrance.main() == 2
    said = capsys.readouterr().err
    assert said.startswith("stream.host: ")
    assert told in said
    assert len(said.splitlines()) == 1
