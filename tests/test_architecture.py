"""What holds for the code as a whole: direction of imports, no foreign code, short files."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

import omnifill
from omnifill import cli

SOURCE = Path(omnifill.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))


def calls(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield node.lineno, ast.unparse(node.func)


def test_imports_point_down() -> None:
    code = "from importlinter.cli import lint_imports_command as go; go()"
    root = SOURCE.parent.parent
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_nothing_loaded_runs_code(path: Path) -> None:
    barred = {"eval", "exec", "torch.load", "yaml.load", "yaml.unsafe_load", "pickle.load",
              "pickle.loads", "joblib.load", "pd.read_pickle", "os.system"}  # fmt: skip
    assert [c for c in calls(path) if c[1] in barred] == []
    text = path.read_text(encoding="utf-8")
    assert "import pickle" not in text and "allow_pickle=True" not in text


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_files_and_functions_stay_readable(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 450, "does it hold two things?"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 80, node.name


def test_packages_below_the_top_have_nothing_in_their_init() -> None:
    for path in SOURCE.rglob("*/__init__.py"):
        assert path.read_text(encoding="utf-8").strip() == "", path


def test_help_answers_without_importing_torch() -> None:
    code = (
        "import sys; sys.argv = ['omnifill', '--help']\n"
        "from omnifill.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'pandas', 'pyarrow', 'tokenizers'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "generate" in done.stdout


def test_every_verb_has_help_with_an_example() -> None:
    program = typer.main.get_command(cli.app)
    for name, verb in program.commands.items():  # type: ignore[attr-defined]
        assert verb.help, name
        assert name == "demo" or "xample" in (verb.epilog or ""), name
