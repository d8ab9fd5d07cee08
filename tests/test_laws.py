"""The laws of the house: who may import whom, nothing at import time, documented names, no hidden conventions."""

import ast
import json
import os
import pathlib
import pkgutil
import subprocess
import sys

import pytest

import cnn_jax

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "cnn_jax"
MODULES = sorted(
    module.name for module in pkgutil.walk_packages(cnn_jax.__path__, "cnn_jax.") if ".__" not in module.name
)
EVERYONE_MAY_IMPORT = {"types", "errors", "untrusted"}
# A folder to the folders that its files may import, besides itself.
MAY_IMPORT = {
    "types": set(),
    "errors": set(),
    "untrusted": set(),
    "ops": {"paths", "processor"},
    "nn": {"ops"},
    "models": {"nn", "ops"},
    "losses": {"ops"},
    "metrics": {"ops"},
    "data": {"memory", "ops"},
    "tasks": {"models", "nn", "losses", "metrics", "ops"},
    "train": {"tasks", "models", "nn", "losses", "metrics", "data", "ops", "processor"},
    "methods": {"losses", "ops"},
    "weights": {"paths", "models", "nn", "ops"},
    "command": {"paths", "processor", "train", "data", "memory"},
    "paths": set(),
    "processor": set(),
    "memory": set(),
    "benchmark": {"data", "memory", "methods", "ops", "processor", "train"},
    "study": {"data", "memory", "methods", "train", "tasks", "ops"},
}
HEAVY = {"tensorflow", "tensorflow_datasets", "torch", "tensorboardX", "submitit", "sklearn", "PIL", "pyarrow", "grain"}
EXTRAS = {"tensorflow", "torch", "tensorboardX", "submitit", "pytest", "hypothesis", "beartype"}


def imports(path: pathlib.Path) -> list[tuple[str, bool]]:
    """(imported module, whether at the top level) of one file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = set(map(id, tree.body))
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) in top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found += [(f"{node.module}.{alias.name}", id(node) in top) for alias in node.names]
    return found


def folder(module: str) -> str:
    """The folder or top-level file of a module below cnn_jax."""
    return module.split(".")[1] if "." in module else module


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if own == "__init__":
        return
    allowed = MAY_IMPORT[own] | EVERYONE_MAY_IMPORT | {own}
    for module, top in imports(path):
        if module.startswith("cnn_jax."):
            assert folder(module) in allowed, f"{own} may not import {module}"
            assert not module.startswith("cnn_jax.models") or own != "train" or path.name == "run.py", path
        assert not (top and module.split(".")[0] in HEAVY), f"{module} is imported at the top level"


def test_step_and_loop_know_only_the_protocol_of_a_task():
    for name in ("step.py", "loop.py"):
        modules = {module for module, _ in imports(PACKAGE / "train" / name)}
        for module in modules:
            parts = module.split(".")
            if parts[0] == "cnn_jax" and parts[1] in ("models", "nn", "data", "losses"):
                pytest.fail(f"train/{name} imports {module}")
            if module.startswith("cnn_jax.tasks"):
                assert module.startswith("cnn_jax.tasks.task."), module
            if module.startswith("cnn_jax.metrics"):
                assert module == "cnn_jax.metrics.Metric", module


def test_only_run_sees_the_tables():
    tables = {"MODELS", "TASKS", "LOSSES", "SOURCES", "AUGMENTATIONS", "OPTIMIZERS", "SCHEDULES"}
    tables |= {"INITIALISERS"}
    for path in (PACKAGE / "train").glob("*.py"):
        if path.name != "run.py":
            seen = {module.rsplit(".", 1)[1] for module, _ in imports(path) if "." in module} & tables
            assert not seen, f"train/{path.name} imports {seen}"


PROBE = """
import json, sys, time, jax
start = time.process_time()
import importlib
for name in {modules!r}:
    importlib.import_module(name)
seconds = time.process_time() - start
from jax._src import xla_bridge
started = xla_bridge.backends_are_initialized()
print(json.dumps({{"device": started, "extras": sorted({heavy!r} & set(sys.modules)), "seconds": seconds}}))
"""


def probe(modules: list[str]) -> dict:
    """Import modules in a fresh interpreter: was a device started, which extras came along, processor seconds."""
    code = PROBE.format(modules=modules, heavy=EXTRAS)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("XLA", "JAX"))}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_importing_everything_starts_no_device_and_needs_no_extra():
    found = probe(MODULES)
    assert not found["device"]
    assert found["extras"] == []


def test_importing_the_whole_package_takes_below_two_and_a_half_processor_seconds():
    # One of three: other processes on this machine must not fail the test.
    assert any(probe(MODULES)["seconds"] < 2.5 for _ in range(3))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_public_names_are_documented_keys_come_first_and_options_are_keyword_only(path):
    # From the source: at run time classes inherit docstrings, and dataclasses make their own.
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), f"{path} has no docstring"
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        assert ast.get_docstring(node), f"{path}: {node.name} has no docstring"
        if isinstance(node, ast.ClassDef):
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and not method.name.startswith("_"):
                    assert ast.get_docstring(method), f"{path}: {node.name}.{method.name} has no docstring"
            continue
        assert not node.args.defaults, f"{path}: an option of {node.name} is not keyword-only"
        positional = [argument.arg for argument in node.args.args]
        names = positional + [argument.arg for argument in node.args.kwonlyargs]
        assert "rng" not in names, f"{path}: {node.name}: a key is called key"
        assert "key" not in positional[1:], f"{path}: {node.name}: the key comes first"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_have_one_topic(path):
    assert path.name != "utils.py"
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300
