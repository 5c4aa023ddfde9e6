"""From the words of a bank's configuration to a model family; loads only that one's library."""

import importlib
import tomllib
from collections.abc import Mapping, Sequence

from models.errors import SettingsError
from models.families.base import Family, SharedNet
from models.toml_table import near_miss

FamilySpec = str
"""A family as a configuration's text, see `make_family`."""

_HOMES = {
    "lightgbm": ("models.families.batch", ""),
    "mlp": ("models.families.mlp", "mlp"),
    "river": ("models.families.river_family", ""),
}
_SHARED_NET = "models.families.mlp_shared"


def make_family(spec: str | Mapping[str, object], *, seed: int) -> Family:
    """Return the untrained family that a configuration asks for.

    Parameters
    ----------
    spec
        A TOML table whose ``family`` is ``lightgbm``, ``mlp`` or ``river`` and whose other keys
        are that family's options; or a text of the same meaning for the environment: the family's
        name, and where there are options a TOML inline table::

            lightgbm
            lightgbm {n_trees = 100, refit_d = 7}
            river {model = "river.forest.ARFClassifier", parameters = {n_models = 5}, every = 20}

    seed
        Everything that is random follows from it, >= 0.

    Raises
    ------
    SettingsError
        If the family or an option is unknown or of another kind, or the library is not installed.
    """
    table = _table(spec) if isinstance(spec, str) else dict(spec)
    name = table.pop("family", None)
    if not isinstance(name, str) or name not in _HOMES:
        hint = near_miss(name, _HOMES) if isinstance(name, str) else ""
        raise SettingsError(f"family: expected one of {', '.join(_HOMES)}, got {name!r}{hint}")
    if not 0 <= seed < 2**31:
        raise SettingsError(f"family {name!r}: expected a seed from 0 to 2^31 - 1, got {seed}")
    home, extra = _HOMES[name]
    try:
        module = importlib.import_module(home)
    except ModuleNotFoundError as error:
        hint = f': pip install "amalgam-fraud[{extra}]"' if extra else ""
        raise SettingsError(
            f"family {name!r}: expected the library {error.name!r}, got none{hint}"
        ) from error
    family: Family = module.make(table, seed=seed)
    return family


def make_families(specs: Sequence[FamilySpec], *, seed: int) -> list[Family]:
    """Return the untrained families of a bank, in the order of its list.

    Raises
    ------
    SettingsError
        If two have one name, under which they would be stored and shown, or one cannot be made.
    """
    families = [make_family(spec, seed=seed) for spec in specs]
    names = [family.name for family in families]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SettingsError(f"expected one family of a kind, got several of {', '.join(twice)}")
    return families


def make_shared_net(specs: Sequence[FamilySpec]) -> SharedNet | None:
    """Return the net that a bank trains for its consortium, with the options of its family `mlp`.

    Its seed is no bank's own: nets of one start alone have a mean that makes sense.

    Returns
    -------
    SharedNet or None
        None for a bank that runs no `mlp`.
    """
    for spec in specs:
        table = _table(spec)
        if table.pop("family") == "mlp":
            net: SharedNet = importlib.import_module(_SHARED_NET).make(table)
            return net
    return None


def _table(spec: str) -> dict[str, object]:
    """Return the table that a text means."""
    name, brace, rest = spec.strip().partition("{")
    try:
        options = tomllib.loads(f"options = {brace}{rest}")["options"] if brace else {}
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(
            f"family {name.strip()!r}: expected a TOML inline table {{key = value, ...}}, "
            f"got: {error}"
        ) from error
    return {**options, "family": name.strip()}
