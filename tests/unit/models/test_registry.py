"""From words to families: what is read, what is refused and what that says."""

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from models.errors import SettingsError
from models.families import registry
from models.families.base import demand, read_options
from models.families.registry import make_families, make_family

ROOT = Path(__file__).resolve().parents[3]
RIVER = {"family": "river", "model": "river.linear_model.LogisticRegression"}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("lightgbm", "lightgbm"),
        (" lightgbm {n_trees = 5, lambda_l2 = 1} ", "lightgbm"),
        ('river {model = "river.forest.ARFClassifier", parameters = {n_models = 2}}', "river"),
        ("mlp{batch_n=16}", "mlp"),
    ],
)
def test_a_text_names_a_family_and_its_options(text: str, name: str) -> None:
    """As it stands in the environment."""
    family = make_family(text, seed=1)
    assert family.name == name
    assert np.isnan(family.score(np.zeros((2, 3), np.float32))).all()


def test_a_bank_has_one_family_of_a_kind() -> None:
    """It is stored and shown under its name."""
    families = make_families(["mlp", "lightgbm"], seed=1)
    assert [family.name for family in families] == ["mlp", "lightgbm"]
    with pytest.raises(SettingsError, match=r"one family of a kind, got several of lightgbm$"):
        make_families(["lightgbm", "mlp", "lightgbm {n_trees = 5}"], seed=1)


def test_a_text_and_a_table_mean_the_same() -> None:
    """The table is that of a bank's file."""
    text = make_family('river {model = "river.naive_bayes.GaussianNB", every = 3}', seed=1)
    table = {"family": "river", "model": "river.naive_bayes.GaussianNB", "every": 3}
    assert text._options == make_family(table, seed=1)._options  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("lightgmb", "expected one of lightgbm, mlp, river, got 'lightgmb'; did you mean"),
        ({}, "expected one of lightgbm, mlp, river, got None"),
        ("lightgbm {n_trees: 5}", "expected a TOML inline table"),
        ("lightgbm {n_tree = 5}", "did you mean 'n_trees'"),
        ("lightgbm {n_trees = 1.5}", "n_trees: expected a whole number, got 1.5"),
        ("lightgbm {n_trees = true}", "n_trees: expected a whole number, got True"),
        ("lightgbm {on_residual = 1}", "on_residual: expected true or false"),
        ('lightgbm {lambda_l2 = "x"}', "lambda_l2: expected a number"),
        ("lightgbm {learning_rate = nan}", r"learning_rate: expected a number in \(0, 1\]"),
        ("lightgbm {lambda_l2 = inf}", "lambda_l2: expected"),
        ("lightgbm {num_leaves = 1}", "num_leaves: expected 2 to 4096"),
        ("mlp {epochs = 0}", "epochs: expected 1 or more"),
        ("river", "expected all of its keys.*model"),
        ({**RIVER, "log_n": 5}, "log_n: expected more than renew_n"),
        ({**RIVER, "parameters": 3}, "parameters: expected a table"),
        ({**RIVER, "parameters": {"losss": 1.0}}, "expected one of .*l2.*did you mean 'loss'"),
        ({**RIVER, "parameters": {"l2": "much"}}, "l2: expected a number"),
        ({**RIVER, "parameters": {"loss": 7}}, "expected what it can learn with"),
        ({**RIVER, "model": "os.system"}, "expected the dotted name of a river classifier"),
        ({**RIVER, "model": "riverrun.X"}, "expected the dotted name of a river classifier"),
        ({**RIVER, "model": "river.nothing.X"}, "expected the dotted name of a river classifier"),
        ({**RIVER, "model": "river.forest.ARFClasifier"}, "did you mean 'ARFClassifier'"),
        ({**RIVER, "model": "river.linear_model.LinearRegression"}, "expected a classifier"),
        ({**RIVER, "model": "river.stats.Mean"}, "expected a classifier"),
        ({**RIVER, "model": "river.base.Classifier"}, "expected a classifier"),
        ({**RIVER, "model": "river.ensemble.BaggingClassifier"}, "expected what it can learn with"),
    ],
)
def test_what_cannot_be_made_is_refused_with_what_was_expected(spec: object, said: str) -> None:
    """At the start of a worker, not at the first row."""
    with pytest.raises(SettingsError, match=said):
        make_family(spec, seed=1)  # type: ignore[arg-type]  # some are wrong on purpose


@pytest.mark.parametrize("seed", [-1, 2**31])
def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    """LightGBM's is a signed number of 32 bits."""
    with pytest.raises(SettingsError, match="expected a seed"):
        make_family("lightgbm", seed=seed)


def test_a_library_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what installs it."""

    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name}", name="torch")

    monkeypatch.setattr(registry.importlib, "import_module", missing)
    with pytest.raises(SettingsError, match=r"library 'torch', got none: .*amalgam-fraud\[mlp\]"):
        make_family("mlp", seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["lightgbm", "mlp", "river"])
def test_a_family_loads_no_library_of_another(family: str) -> None:
    """In a fresh process: what is not asked for stays unimported."""
    libraries = {"lightgbm": "lightgbm", "mlp": "torch", "river": "river"}
    spec = {"river": 'river {model = \\"river.naive_bayes.GaussianNB\\"}'}.get(family, family)
    program = (
        "import sys; from models.families.registry import make_family;"
        f'make_family("{spec}", seed=1); print(*sys.modules)'
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    others = set(libraries.values()) - {libraries[family]}
    assert not others & set(done.stdout.split())


@dataclass(frozen=True, kw_only=True)
class Options:
    n: int
    rate: float = 0.5
    extra: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        demand(self.n >= 1, "n", "1 or more")


def test_options_are_checked_by_kind_and_range() -> None:
    """A whole number stands for a float, nothing else stands for another."""
    found = read_options(Options, {"n": 2, "rate": 1, "extra": {"a": 1}}, family="f")
    assert (found.n, found.rate, type(found.rate), found.extra) == (2, 1.0, float, {"a": 1})
    for given in ({}, {"n": 0}, {"n": True}, {"n": 1, "extra": []}, {"n": 1, "m": 2}):
        with pytest.raises(SettingsError):
            read_options(Options, given, family="f")
