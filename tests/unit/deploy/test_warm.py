"""Set-up compiles what scoring and learning need, so that a worker never waits for a compiler."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SCRIPT = """
import gc, multiprocessing, sys
from dataclasses import replace
from pathlib import Path
from numba.core.dispatcher import Dispatcher
from deploy.backtest import run_backtest
from deploy import runs
from deploy.warm import main
from stream.drift_policy import DriftPolicy
from stream.proposals import ProposalPolicy
from tests.unit.deploy.small_backtest import InlineContext, small_config, write_small

def compiled():
    kernels = [one for one in gc.get_objects() if isinstance(one, Dispatcher)]
    own = [one for one in kernels if one.py_func.__module__.startswith(("models.", "stream."))]
    return {f"{one.py_func.__module__}.{one.py_func.__name__}": len(one.signatures) for one in own}

assert main() == 0
before = compiled()
multiprocessing.get_context = InlineContext
plain = runs.pipeline_config
runs.pipeline_config = lambda *given: replace(
    plain(*given), drift=DriftPolicy(), proposing=ProposalPolicy(min_n=500, min_frauds=5)
)
families = ("lightgbm {n_trees = 5, min_n = 500, min_frauds = 5}",)
config = small_config(write_small(Path(sys.argv[1])), families=families)
result = run_backtest(config, lambda part: None)
after = compiled()
missing = sorted(name for name in sys.argv[2:] if not before[name])
scorers = len({name for name in ("local", "merged") if (getattr(result, name) != -4.5).any()})
new = sorted(name for name in after if after[name] != before.get(name))
print(len(before), scorers, [*new, *missing])
"""


NEEDED = (
    "models.walks.walk",
    "models.category_view._replace",
    "models.families.curvature._square",
    "models.families.ordinals._ordinals",
    "models.drift_counts._count",
    "models.drift_counts._add",
    "models.families.embedding._embed",
    "models.families.conjugate._dot",
    "models.features.digest_index._move",
    "models.features.digest_index._pull",
    "models.features.key_index._move",
    "models.features.key_index._pull",
    "models.features.name_index._move",
    "models.features.name_index._pull",
)


@pytest.mark.slow
def test_after_it_a_consortium_compiles_nothing_more(tmp_path):
    """In a fresh process, over payments, frauds, experts, trees, drift watch, releases, alerts."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "small.parquet"), *NEEDED],
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
