"""The directions of imports, and that importing does nothing."""

from __future__ import annotations

import ast
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOT_MODULES = {path.stem for path in ROOT.glob("*.py")}
SOURCES = [*ROOT.glob("*.py"), *ROOT.glob("facekit/**/*.py"), *ROOT.glob("apps/**/*.py")]

# Statements that a module may have at its top level: definitions, and values computed from literals and types.
DEFINITIONS = (
    ast.Import,
    ast.ImportFrom,
    ast.FunctionDef,
    ast.ClassDef,
    ast.Assign,
    ast.AnnAssign,
    ast.Expr,
    ast.If,
)


def imported(path: Path) -> set[str]:
    """First names of all modules that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_from_apps_to_root_to_facekit(path: Path):
    area = path.relative_to(ROOT).parts[0]
    forbidden = {"facekit": ROOT_MODULES | {"apps", "tests"}, "apps": {"tests"}}.get(area, {"apps", "tests"})
    assert not imported(path) & forbidden


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_only_defines(path: Path):
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        assert isinstance(node, DEFINITIONS), f"line {node.lineno}"
        if isinstance(node, ast.Expr):
            assert isinstance(node.value, ast.Constant), f"line {node.lineno}: a call at import"


def test_no_room_without_a_name():
    names = {path.stem for path in SOURCES} | {path.parent.name for path in SOURCES}
    assert not names & {"utils", "common", "core", "helpers", "misc"}


@pytest.mark.parametrize("program", ["train.py", "crop_faces.py", "evaluate.py", "inference.py", "dataset.py"])
def test_help_answers_without_tensorflow(program: str):
    check = (
        "import runpy, sys\n"
        f"sys.argv = ['{program}', '--help']\n"
        "try:\n"
        f"    runpy.run_path('{program}', run_name='__main__')\n"
        "except SystemExit as stop:\n"
        "    assert stop.code == 0\n"
        "assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules\n"
    )
    # CPU time, the best of three: the machine may be busy.
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        answer = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert answer.returncode == 0, answer.stderr
        assert "--" in answer.stdout or "subcommands" in answer.stdout
    assert min(seconds) < 1.5
