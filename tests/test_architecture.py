"""The rules that keep the tree what its picture says, checked on the syntax tree: who may import whom, what the pure core
may not touch, how long a file may be, where its test is, and what no file of the tree may contain.

Each rule is a function from a root to its findings. It runs on the product, and on a small tree that breaks it.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PURE = {"dsp", "evidence", "merkle", "metering", "odrl", "odrl_compare", "odrl_forms", "odrl_reading"}
INWARD = {"errors", "signatures", "lanes", "lasting", "origins", "records", "remembered", "ports", "telemetry"} | PURE

# unit -> the units that it may import beside itself and `values`; `odrl.model` names one module. "*" is everything.
MAY_IMPORT: dict[str, set[str]] = {
    "__init__": set(),
    "errors": set(),
    "values": set(),
    "odrl": {"errors"},
    "dsp": {"errors", "odrl.model"},
    "signatures": {"errors"},
    "evidence": {"errors", "merkle", "metering", "odrl", "signatures"},
    "merkle": {"errors", "signatures"},
    "metering": {"errors", "merkle", "odrl", "signatures"},
    "origins": set(),
    "records": {"errors"} | PURE,
    "remembered": set(),
    "ports": {"errors", "records"} | PURE,
    "settings": {"errors", "values"},
    "vocabulary": {"errors"} | PURE,
    "telemetry": {"errors", "signatures.credentials"},
    "lanes": {"merkle", "metering", "telemetry"},
    "lasting": {"remembered", "telemetry"},
    "control": {"dataplane.edr"} | INWARD,  # a transfer that starts hands out an access token
    "dataplane": INWARD,
    "ledger": INWARD,
    "intake": {"dataplane.edr", "dataplane.ranges"} | INWARD,  # the consumer's half reads addresses and ranges as the provider writes them
    "adapters": INWARD,
    "api": {"control", "dataplane", "ledger"} | INWARD,
    "client": {"errors", "remembered"},
    # `app` only to start a connector; it is asked over HTTP like any other. `init` makes its keys and its self-description.
    # Evidence is verified offline, its prices by the profiles that come with the connector.
    "cli": {"adapters.keys", "adapters.registry", "app", "client", "errors", "evidence", "settings", "vocabulary"},
    "app": {"*"},
    "__main__": {"app", "cli", "settings", "errors"},
}

# fmt: off
WORLD = {
    "asyncio", "concurrent", "contextvars", "ctypes", "http", "io", "locale", "logging", "multiprocessing", "os", "pathlib", "platform",
    "random", "sched", "secrets", "select", "selectors", "shutil", "signal", "socket", "sqlite3", "ssl", "subprocess", "sys", "tempfile",
    "threading", "time", "urllib.request", "warnings",
}
# fmt: on
CHANCE = {"uuid1", "uuid4", "uuid6", "uuid7", "uuid8", "getnode"}  # of `uuid`; the ids that follow from a name are pure
# The core, and two modules beside it that are pure too, each with the libraries that it may name.
LIBRARIES = {
    "dsp": {"jsonschema", "jsonschema_rs", "orjson", "pyld"},
    "odrl": {"orjson", "pyld", "rdflib"},
    "records": {"orjson"},
    "values": set(),
    "origins": set(),
    "remembered": set(),
    "signatures": {"nacl", "orjson"},
    "evidence": {"nacl", "orjson", "rfc8785"},
    "merkle": {"cbor2", "nacl", "orjson"},
    "metering": {"nacl", "orjson", "rfc8785"},
}
SHAPES = {"msgspec"}  # classes of values and records, in C
CALLS_OF_THE_WORLD = {"open", "print", "input", "exec", "eval", "__import__"}
ASYNC = (ast.AsyncFunctionDef, ast.Await, ast.AsyncWith, ast.AsyncFor)

# fmt: off
HEAVY = {
    "jsonschema", "pyld", "rdflib", "rich", "cyclopts", "lxml", "requests", "carebundle", "llvmlite", "opentelemetry",
    "prometheus_client",
}
# fmt: on
HEAVY_AT_HOME = ("cli/", "adapters/jsonld_worker.py", "telemetry_spans.py")  # processes of their own, and what is loaded where it is used

LINES_AT_MOST = 400
MODULES_PER_FOLDER_AT_MOST = 16
# fmt: off
NAMES_THAT_SAY_NOTHING = {
    "util", "utils", "common", "helper", "helpers", "manager", "managers", "core", "service", "services", "impl", "misc", "base",
    "shared", "lib", "tools", "stuff",
}
# fmt: on
UNFINISHED = re.compile(r"\b(?:TO[D]O|FIX[M]E|XX[X]|HAC[K])\b|NotImplemented[E]rror")
PLACES = re.compile(r"/(?:work|root|farm)/[a-z]|/(?:home|Users)/[a-z][\w-]*/|-{2}(?:extra-)?index-url|/simple/?[\"'\s]")
TEXT = {".py", ".md", ".toml", ".txt", ".sh", ".xml", ".json", ".jsonld", ".yaml", ".yml", ".ttl", ".sql", ".csv", ".sha256", ""}
FOLDERS = (".ci", "connector", "vocab", "policies", "helm", "tests", "examples")

Rule = Callable[[Path], list[str]]


def modules(root: Path) -> Iterator[tuple[str, str, ast.Module]]:
    """Yield (path below connector/, unit, syntax tree) of each module."""
    product = root / "connector"
    for path in sorted(product.rglob("*.py")):
        name = path.relative_to(product)
        yield name.as_posix(), unit_of(name.with_suffix("").parts[0]), parsed(path.read_text())


@cache
def parsed(text: str) -> ast.Module:
    return ast.parse(text)


@pytest.fixture(scope="module", autouse=True)
def _trees_are_forgotten() -> Iterator[None]:
    """They are many, and whoever looks for garbage after these tests would walk through them."""
    yield
    parsed.cache_clear()


def unit_of(name: str) -> str:
    """`app_settings` -> `app`, `odrl_compare` -> `odrl`, everything else as it is."""
    family = name.partition("_")[0]
    return family if family in MAY_IMPORT else name


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield (line, dotted name) of each import in `tree`; a relative one begins with a dot."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, f"{'.' * node.level}{node.module or ''}.{alias.name}") for alias in node.names)


def within(name: str, packages: set[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def imports_point_inward(root: Path) -> list[str]:
    found = []
    for path, unit, tree in modules(root):
        if unit not in MAY_IMPORT:
            found.append(f"{path}: `{unit}` has no line in MAY_IMPORT")
            continue
        for line, name in imports(tree):
            first, dot, rest = name.removeprefix("connector.").partition(".")
            target = f"{unit_of(first)}{dot}{rest}"
            if name.startswith("."):
                found.append(f"{path}:{line} imports relatively: `{name}`")
            elif name.startswith("connector.") and not within(target, MAY_IMPORT[unit] | {unit, "values"}) and "*" not in MAY_IMPORT[unit]:
                found.append(f"{path}:{line} imports `{name}`; `{unit}` may import {sorted(MAY_IMPORT[unit])}")
    return found


def adapters_stand_alone(root: Path) -> list[str]:
    """An adapter is one thing outside. It imports no other, except parts that carry its own name: sqlite -> sqlite_schema."""
    found = []
    for path, unit, tree in modules(root):
        if unit == "adapters":
            family = Path(path).stem.split("_")[0]
            for line, name in imports(tree):
                other = name.split(".")
                if other[:2] == ["connector", unit] and len(other) > 2 and other[2].split("_")[0] != family:
                    found.append(f"{path}:{line} imports another of {unit}/: `{name}`")
    return found


def the_core_is_pure(root: Path) -> list[str]:
    found = []
    for path, unit, tree in modules(root):
        if unit in LIBRARIES:
            found += [f"{path}:{line} imports `{name}`" for line, name in imports(tree) if not _pure_import(unit, name)]
            for node in ast.walk(tree):
                if isinstance(node, ASYNC):
                    found.append(f"{path}:{node.lineno} is async")
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CALLS_OF_THE_WORLD:
                    found.append(f"{path}:{node.lineno} calls `{node.func.id}`")
                if isinstance(node, ast.Attribute) and node.attr in {"now", "utcnow", "today"} and _is_clock(node.value):
                    found.append(f"{path}:{node.lineno} reads the clock")
                if (isinstance(node, ast.Attribute) and node.attr in CHANCE) or (isinstance(node, ast.alias) and node.name in CHANCE):
                    found.append(f"{path}:{node.lineno} draws an id by chance")
    return found


def _pure_import(unit: str, name: str) -> bool:
    first = name.partition(".")[0]
    if first == "connector" or name.startswith("."):
        return True  # a matter of `imports_point_inward`
    if first in sys.stdlib_module_names:
        return not within(name, WORLD)
    return first in LIBRARIES[unit] | SHAPES


def _is_clock(node: ast.expr) -> bool:
    return ast.unparse(node) in {"datetime", "date", "datetime.datetime", "datetime.date"}


def heavy_libraries_are_imported_where_they_are_used(root: Path) -> list[str]:
    return [
        f"{path}:{line} imports `{name}` when it is loaded itself"
        for path, _, tree in modules(root)
        if not path.startswith(HEAVY_AT_HOME)
        for line, name in _at_load(tree)
        if within(name, HEAVY)
    ]


def _at_load(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the imports that run when a module is loaded: not those in functions, nor those for the type checker alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from imports(ast.Module(body=[node], type_ignores=[]))
        elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            yield from _at_load(ast.Module(body=node.orelse, type_ignores=[]))
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield from _at_load(node)


def no_file_is_too_long(root: Path) -> list[str]:
    product = root / "connector"
    lengths = {path.relative_to(product): len(path.read_text().splitlines()) for path in product.rglob("*.py")}
    return [f"{path}: {length} lines, at most {LINES_AT_MOST}" for path, length in lengths.items() if length > LINES_AT_MOST]


def folders_are_few_and_flat(root: Path) -> list[str]:
    paths = [Path(path) for path, _, _ in modules(root)]
    deep = [f"{path}: two levels at most" for path in paths if len(path.parts) > 2]
    folders = [path.parent for path in paths if path.name != "__init__.py"]
    full = [
        f"{folder}: {folders.count(folder)} modules, at most {MODULES_PER_FOLDER_AT_MOST}"
        for folder in sorted(set(folders))
        if folders.count(folder) > MODULES_PER_FOLDER_AT_MOST
    ]
    return deep + full


def each_module_has_its_test_file(root: Path) -> list[str]:
    paths = [Path(path) for path, _, _ in modules(root)]
    return [
        f"{path}: there is no tests/{path.parent / f'test_{path.name}'}"
        for path in paths
        if not path.name.startswith("__") and not (root / "tests" / path.parent / f"test_{path.name}").exists()
    ]


def names_say_something(root: Path) -> list[str]:
    paths = [path.relative_to(root) for top in ("connector", "tests") for path in sorted((root / top).rglob("*.py"))]
    return [f"{path}: a name that says nothing" for path in paths if {*path.with_suffix("").parts} & NAMES_THAT_SAY_NOTHING]


def nothing_is_left_unfinished_and_no_machine_is_named(root: Path) -> list[str]:
    found = []
    for path in texts(root):
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if UNFINISHED.search(line):
                found.append(f"{path.relative_to(root)}:{number} is unfinished: {line.strip()[:80]}")
            if PLACES.search(line):
                found.append(f"{path.relative_to(root)}:{number} names a machine's path or an index: {line.strip()[:80]}")
    return found


def texts(root: Path) -> Iterator[Path]:
    """Yield the text files of the tree, not what was built or cached beside them."""
    yield from (path for path in sorted(root.iterdir()) if path.is_file() and path.suffix in TEXT)
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*")):
            if path.is_file() and path.suffix in TEXT and "__pycache__" not in path.parts:
                yield path


RULES: list[Rule] = [
    imports_point_inward,
    adapters_stand_alone,
    the_core_is_pure,
    heavy_libraries_are_imported_where_they_are_used,
    no_file_is_too_long,
    folders_are_few_and_flat,
    each_module_has_its_test_file,
    names_say_something,
    nothing_is_left_unfinished_and_no_machine_is_named,
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_product_keeps_the_rule(rule: Rule):
    findings = rule(ROOT)
    assert not findings, "\n".join(findings)


SOUND = {
    "connector/__init__.py": "",
    "connector/errors.py": "class WireError(Exception): ...",
    "connector/app.py": "from connector.adapters.sqlite import Store\nfrom connector.cli import rows",
    "connector/odrl/model.py": "from datetime import datetime",
    "connector/dsp/wire.py": "import orjson\nfrom connector.errors import WireError\nfrom connector.odrl.model import datetime",
    "connector/adapters/sqlite.py": (
        "import sqlite3\nfrom typing import TYPE_CHECKING\nfrom connector.adapters import sqlite_schema\n"
        "if TYPE_CHECKING:\n    import rdflib\ndef explain():\n    import jsonschema"
    ),
    "connector/adapters/sqlite_schema.py": "from connector.errors import WireError",
    "connector/cli/rows.py": "import rich",
    **{f"tests/{name}.py": "" for name in ("test_errors", "test_app", "odrl/test_model", "dsp/test_wire", "cli/test_rows")},
    **{f"tests/adapters/test_{name}.py": "" for name in ("sqlite", "sqlite_schema")},
    "examples/README.md": "See https://example.org/a/page.",
}

BREACHES: list[tuple[Rule, str, str, str]] = [
    (
        imports_point_inward,
        "connector/dsp/wire.py",
        "from connector.adapters.sqlite import Store",
        "dsp/wire.py:1 imports `connector.adapters",
    ),
    (
        imports_point_inward,
        "connector/dsp/wire.py",
        "from connector.odrl.evaluation import x",
        "dsp/wire.py:1 imports `connector.odrl.evaluation",
    ),
    (imports_point_inward, "connector/dsp/wire.py", "def f():\n    import connector.api.x", "dsp/wire.py:2 imports `connector.api.x`"),
    (imports_point_inward, "connector/control/pull.py", "from connector import adapters", "control/pull.py:1 imports `connector.adapters`"),
    (imports_point_inward, "connector/client/http.py", "from connector.dsp import wire", "client/http.py:1 imports `connector.dsp.wire`"),
    (imports_point_inward, "connector/dsp/wire.py", "from . import other", "imports relatively"),
    (imports_point_inward, "connector/extra/new.py", "", "`extra` has no line in MAY_IMPORT"),
    (adapters_stand_alone, "connector/adapters/peer.py", "from connector.adapters.sqlite import Store", "imports another of adapters/"),
    (adapters_stand_alone, "connector/adapters/peer.py", "from connector.adapters import sqlite", "imports another of adapters/"),
    (the_core_is_pure, "connector/dsp/wire.py", "import time", "dsp/wire.py:1 imports `time`"),
    (the_core_is_pure, "connector/dsp/wire.py", "def f():\n    from os.path import join", "dsp/wire.py:2 imports `os.path.join`"),
    (the_core_is_pure, "connector/odrl/model.py", "import aiohttp", "odrl/model.py:1 imports `aiohttp`"),
    (the_core_is_pure, "connector/odrl/model.py", "async def f(): ...", "odrl/model.py:1 is async"),
    (the_core_is_pure, "connector/odrl/model.py", "open('x')", "odrl/model.py:1 calls `open`"),
    (the_core_is_pure, "connector/odrl/model.py", "import datetime\ndatetime.datetime.now()", "odrl/model.py:2 reads the clock"),
    (the_core_is_pure, "connector/odrl/model.py", "import uuid\nuuid.uuid4()", "odrl/model.py:2 draws an id by chance"),
    (the_core_is_pure, "connector/odrl/model.py", "from uuid import uuid4", "odrl/model.py:1 draws an id by chance"),
    (heavy_libraries_are_imported_where_they_are_used, "connector/app.py", "import rdflib", "app.py:1 imports `rdflib`"),
    (heavy_libraries_are_imported_where_they_are_used, "connector/app.py", "try:\n    from pyld import jsonld\nfinally: ...", "app.py:2"),
    (heavy_libraries_are_imported_where_they_are_used, "connector/app.py", "class A:\n    import rich.table", "app.py:2"),
    (no_file_is_too_long, "connector/app.py", "x = 1\n" * 401, "app.py: 401 lines"),
    (folders_are_few_and_flat, "connector/api/v1/routes.py", "", "api/v1/routes.py: two levels at most"),
    (each_module_has_its_test_file, "connector/api/routes.py", "", "there is no tests/api/test_routes.py"),
    (names_say_something, "connector/dsp/utils.py", "", "connector/dsp/utils.py: a name"),
    (names_say_something, "tests/common/x.py", "", "tests/common/x.py: a name"),
    (nothing_is_left_unfinished_and_no_machine_is_named, "examples/a.py", "# TO" + "DO: more", "examples/a.py:1 is unfinished"),
    (nothing_is_left_unfinished_and_no_machine_is_named, "Makefile", "run:\n\t" + "/" + "root/bin/x", "Makefile:2 names a machine's path"),
    (nothing_is_left_unfinished_and_no_machine_is_named, "requirements.txt", "-" + "-index-url x", "requirements.txt:1 names"),
]


def planted(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_a_sound_tree_breaks_no_rule(tmp_path: Path):
    planted(tmp_path, SOUND)
    assert [finding for rule in RULES for finding in rule(tmp_path)] == []


@pytest.mark.parametrize(("rule", "name", "text", "finding"), BREACHES, ids=lambda value: getattr(value, "__name__", None))
def test_a_breach_is_found_and_named(tmp_path: Path, rule: Rule, name: str, text: str, finding: str):
    planted(tmp_path, SOUND | {name: text})
    assert [found for found in rule(tmp_path) if finding in found]


def test_a_folder_with_too_many_modules_is_found(tmp_path: Path):
    planted(tmp_path, {f"connector/api/m{n}.py": "" for n in range(17)})
    assert folders_are_few_and_flat(tmp_path) == ["api: 17 modules, at most 16"]


def test_every_rule_has_a_breach():
    assert {rule for rule, *_ in BREACHES} == set(RULES)


def test_loading_the_server_loads_no_heavy_library():
    product = ROOT / "connector"
    names = [
        ".".join(("connector", *path.relative_to(product).with_suffix("").parts))
        for path in sorted(product.rglob("*.py"))
        if not path.name.startswith("__") and not path.relative_to(product).as_posix().startswith(HEAVY_AT_HOME)
    ]
    program = f"import importlib, sys\nfor name in {names!r}: importlib.import_module(name)\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr
    loaded = done.stdout.split()
    assert "connector.errors" in loaded
    assert not HEAVY & set(loaded)
