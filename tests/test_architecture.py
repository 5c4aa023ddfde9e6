"""The shape of the code: who may import whom, where libraries live, how long things may be."""

import ast
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest

import amalgamator
import deploy
import models
import stream

ROOT = Path(__file__).resolve().parents[1]
ARROWS = {
    "models": set(),
    "stream": {"models"},
    "amalgamator": {"models"},
    "deploy": {"models", "stream", "amalgamator"},
}
EVERYWHERE = ("*",)
HOMES = {
    "numpy": EVERYWHERE,
    "msgspec": EVERYWHERE,
    "numba": ("models/*",),
    "llvmlite": (  # numba's own, of the version that it demands
        "models/vectors.py",
        "models/fused.py",
        "models/walks.py",
        "models/features/prefetch.py",
    ),
    "cryptography": ("models/keys.py",),
    "pyarrow": ("models/tables.py", "deploy/*"),
    "xxhash": (
        "stream/label_join.py",
        "stream/manifest.py",
        "stream/text_rows.py",
        "models/named_arrays.py",
        "models/categories.py",
    ),
    "faust": (
        "stream/app.py",
        "stream/agents.py",
        "stream/transport.py",
        "deploy/bench/contestants.py",
    ),
    "mode": ("stream/app.py", "stream/agents.py", "stream/transport.py"),
    "aiokafka": (
        "stream/app.py",
        "stream/transport.py",
        "stream/changelog_topic.py",
        "stream/host/group.py",
        "stream/host/standby.py",
        "stream/exchange.py",
        "stream/outputs.py",
        "deploy/bench/*",
        "deploy/chaos/feeder.py",
    ),
    "uvloop": ("stream/__main__.py", "stream/aside.py", "deploy/bench/*"),
    "kafka": ("amalgamator/kafka_io.py", "stream/sources.py", "deploy/*"),
    "prometheus_client": ("*/telemetry.py", "*/__main__.py", "deploy/bench/*"),
    "typer": ("deploy/*",),
    "rich": ("deploy/*",),
    "matplotlib": ("deploy/*",),
    "jinja2": ("deploy/*",),
    "markupsafe": ("deploy/*",),
    # each family alone knows its library, so that a worker without it starts without it
    "river": (
        "models/families/river_family.py",
        "stream/drift_detectors.py",  # loaded by name, only where drift is watched
        "deploy/bench/peers.py",
    ),
    "quixstreams": ("deploy/bench/peers.py",),  # in the peers' environment, not in ours
    "lightgbm": ("models/families/batch.py",),
    "scipy": ("deploy/simulator.py", "amalgamator/flags.py", "tests/*"),
    "torch": ("models/families/mlp.py", "models/families/distilled.py", "amalgamator/distil.py"),
}
ENVIRONMENT_HOMES = ("*/__main__.py", "deploy/*")
MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 50  # without its docstring
_ENVIRONMENT = {"environ", "environb", "getenv", "getenvb", "putenv"}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def _modules(*folders: str) -> list[str]:
    found = (path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


OURS = _modules(*ARROWS)
ALL = [*OURS, *_modules("tests")]


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse((ROOT / module).read_text(encoding="utf-8"))


def _imported(tree: ast.AST) -> Iterator[str]:
    """Give the first name of everything that a tree imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            yield str(node.module).partition(".")[0]


def _of_os(tree: ast.AST) -> Iterator[str]:
    """Give the names that a tree takes from ``os``, by attribute or by import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            if isinstance(node.value, ast.Name) and node.value.id == "os":
                yield node.attr
        elif isinstance(node, ast.ImportFrom) and node.module == "os":
            yield from (alias.name for alias in node.names)


def _functions(tree: ast.AST) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def _length(function: Function) -> int:
    """Count the lines of a function without its docstring."""
    first = function.body[0]
    has_docstring = ast.get_docstring(function, clean=False) is not None
    docstring = (first.end_lineno or 0) - first.lineno + 1 if has_docstring else 0
    return (function.end_lineno or 0) - function.lineno + 1 - docstring


def _offenders(modules: list[str], found: Callable[[str], Iterable[object]]) -> dict[str, object]:
    """Return what is found against a rule, module by module."""
    return {module: offences for module in modules if (offences := list(found(module)))}


def test_a_package_imports_only_those_below_it() -> None:
    """The arrows: deploy -> stream, amalgamator -> models; those two never meet."""

    def found(module: str) -> Iterable[object]:
        package = module.partition("/")[0]
        return set(_imported(_tree(module))) & {*ARROWS, "tests"} - {package} - ARROWS[package]

    assert not _offenders(OURS, found)


def test_a_library_is_imported_only_where_it_is_at_home() -> None:
    """A library without a home here is one that nobody decided on."""

    def found(module: str) -> Iterable[object]:
        for library in set(_imported(_tree(module))) - sys.stdlib_module_names - set(ARROWS):
            if not any(fnmatch(module, home) for home in HOMES.get(library, ())):
                yield library

    assert not _offenders(OURS, found)


def test_the_environment_is_read_at_the_entrances_alone() -> None:
    """Everything else is given its settings."""
    others = [m for m in OURS if not any(fnmatch(m, home) for home in ENVIRONMENT_HOMES)]
    assert not _offenders(others, lambda module: _ENVIRONMENT & set(_of_os(_tree(module))))


def test_nothing_is_imported_inside_a_function() -> None:
    """What a module needs stands at its head."""

    def found(module: str) -> Iterable[object]:
        for function in _functions(_tree(module)):
            if list(_imported(function)):
                yield function.name, function.lineno

    assert not _offenders(ALL, found)


def test_modules_and_functions_stay_short() -> None:
    """A module has 400 lines at most, a function 50."""

    def found(module: str) -> Iterable[object]:
        n_lines = len((ROOT / module).read_text(encoding="utf-8").splitlines())
        lengths = {f.name: _length(f) for f in _functions(_tree(module))}
        if n_lines > MAX_MODULE_LINES:
            yield n_lines
        yield from (each for each in lengths.items() if each[1] > MAX_FUNCTION_LINES)

    assert not _offenders(OURS, found)


def test_no_module_is_named_like_another() -> None:
    """A standard library's name would be shadowed in a script's folder; `utils` says nothing."""
    taken = sys.stdlib_module_names | {"utils", "helpers", "common", "misc"}
    stems = {Path(module).stem for module in OURS} - {"__init__", "__main__"}
    assert not stems & taken


def test_an_init_holds_a_docstring_only() -> None:
    """Importing a package does nothing."""

    def found(module: str) -> Iterable[object]:
        body = _tree(module).body
        if len(body) != 1 or not ast.get_docstring(_tree(module)):
            yield len(body)

    assert not _offenders([name for name in ALL if name.endswith("__init__.py")], found)


def test_every_folder_of_code_is_a_package() -> None:
    """Without it `import models` could find the tests of models."""
    folders = {(ROOT / module).parent for module in ALL}
    assert not [folder for folder in folders if not (folder / "__init__.py").exists()]


def test_the_packages_that_are_imported_are_ours() -> None:
    """Their names are common: another distribution could bring one."""
    for package in (models, stream, amalgamator, deploy):
        assert Path(str(package.__file__)).parent.parent == ROOT


def test_a_worker_loads_no_library_of_another_family() -> None:
    """It starts fast: what its families do not need stays unimported."""
    program = (
        "import sys, numpy, stream.__main__; from stream import drift, drift_policy as policy; "
        "drift.DriftWatch(policy.DriftPolicy(), numpy.arange(3), ('own',)); print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert not {"torch", "lightgbm", "river", "matplotlib", "pandas"} & set(done.stdout.split())


def printed(program: str) -> list[str]:
    """Return the words that a program prints in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


@pytest.mark.slow
def test_an_amalgamator_without_probes_loads_no_torch() -> None:
    """Only a fold that asks members and teaches a student needs it."""
    program = (
        "import sys, amalgamator.__main__; from models.schema import Schema; "
        "from amalgamator import fold, policy; schema = Schema(entity_kinds=()); "
        "fold.Folder(policy.FoldConfig(schema=schema)); print('torch' in sys.modules); "
        "fold.Folder(policy.FoldConfig(schema=schema, probes=policy.ProbePolicy())); "
        "print('torch' in sys.modules)"
    )
    assert printed(program) == ["False", "True"]


@pytest.mark.slow
def test_neither_merging_nets_nor_scoring_by_them_loads_torch() -> None:
    """Only a bank that trains one needs it."""
    program = (
        "import sys, numpy, amalgamator.__main__, stream.__main__; "
        "from models.families import registry; from models.schema import Schema; "
        "from amalgamator import fold, policy; from stream import pipeline, pipeline_config; "
        "schema = Schema(entity_kinds=()); secret = bytes(32); "
        "fold.Folder(policy.FoldConfig(schema=schema, merges_nets=True)); "
        "pipeline.Pipeline(pipeline_config.PipelineConfig("
        "member='m', schema=schema, secret=secret, uses_nets=True)); "
        "print('torch' in sys.modules); "
        "pipeline.Pipeline(pipeline_config.PipelineConfig("
        "member='m', schema=schema, secret=secret, uses_nets=True, families=('mlp',))); "
        "print('torch' in sys.modules)"
    )
    assert printed(program) == ["False", "True"]
