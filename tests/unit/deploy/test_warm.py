"""Set-up compiles what scoring and learning need, so that a worker never waits for a compiler."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
SCRIPT = """
import gc, multiprocessing, sys
from pathlib import Path
from numba.core.dispatcher import Dispatcher
from deploy.backtest import run_backtest
from deploy.warm import main
from tests.unit.deploy.small_backtest import InlineContext, small_config, write_small

def compiled():
    kernels = [one for one in gc.get_objects() if isinstance(one, Dispatcher)]
    own = [one for one in kernels if one.py_func.__module__.startswith(("models.", "stream."))]
    return {one.py_func.__qualname__: len(one.signatures) for one in own}

assert main() == 0
before = compiled()
multiprocessing.get_context = InlineContext
result = run_backtest(small_config(write_small(Path(sys.argv[1]))), lambda part: None)
after = compiled()
scorers = len({name for name in ("local", "merged") if (getattr(result, name) != -4.5).any()})
print(len(before), scorers, sorted(name for name in after if after[name] != before.get(name)))
"""


def test_after_it_a_consortium_compiles_nothing_more(tmp_path):
    """In a fresh process, over payments, frauds, own and merged scorecards, releases and alerts."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "small.parquet")],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    said, found = done.stdout.splitlines()
    assert said.startswith("kernels compiled in ")
    n_kernels, n_scorers, new = found.split(maxsplit=2)
    assert int(n_kernels) > 10
    assert (n_scorers, new) == ("2", "[]")
