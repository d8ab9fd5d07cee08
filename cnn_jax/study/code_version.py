"""The version of the code that a run's numbers depend on: what makes a stored run still the run of today's code."""

import ast
import functools
import hashlib
import importlib.metadata
import itertools
import pathlib

from cnn_jax.ops.native.library import SOURCES

PACKAGE = pathlib.Path(__file__).resolve().parents[1]
FOLDERS = ("data", "losses", "methods", "metrics", "models", "nn", "ops", "study", "tasks", "train")
"""Where the numbers come from. Commands, benchmarks and converters are not there."""
STUDY_FILES = ("probes",)
"""Of the folder `study` the files, or folders, that compute numbers of a run; the others plan and report."""
LIBRARIES = ("jax", "jaxlib", "flax", "optax", "numpy")


@functools.cache
def code_version() -> str:
    """A digest of the program that trains, and of the libraries that it computes with.

    Comments, docstrings and the layout of the text are no part of it: rewording makes no stored run worthless.
    """
    digest = hashlib.sha256()
    for folder in FOLDERS:
        for path in sorted((PACKAGE / folder).rglob("*.py")):
            name = path.relative_to(PACKAGE / folder).as_posix()
            if folder == "study" and not name.startswith(STUDY_FILES):
                continue
            digest.update(f"{folder}/{name}\n{meaning(path.read_text(encoding='utf-8'))}\n".encode())
    for path in SOURCES:
        # Comments, which begin where a line or a statement ends, and the layout are left out here, too.
        lines = (line.partition("//")[0].split() for line in path.read_text(encoding="utf-8").splitlines())
        digest.update(f"{path.name}\n{' '.join(itertools.chain(*lines))}\n".encode())
    for library in LIBRARIES:
        digest.update(f"{library} {importlib.metadata.version(library)}\n".encode())
    return digest.hexdigest()


def meaning(source: str) -> str:
    """A program without what the interpreter ignores: two texts of one meaning are equal.

    Args:
      source: of a Python file.

    Example:
      >>> meaning("x = 1  # one") == meaning("x = (1)")
      True
      >>> meaning("x = 1") == meaning("x = 2")
      False
    """
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [statement for statement in node.body if not _is_text(statement)] or [ast.Pass()]
    return ast.dump(tree)


def _is_text(statement: ast.AST) -> bool:
    """Docstrings, also those behind attributes."""
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )
