"""The documents say what the program does: commands parse, names exist, links resolve."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
import typer.main

import omnifill
from omnifill import api, cli

ROOT = Path(__file__).parent.parent
PAGES = sorted(ROOT.glob("*.md")) + sorted((ROOT / "docs").rglob("*.md"))
RECIPE_PAGES = sorted((ROOT / "docs" / "recipes").glob("*.md"))


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(text: str) -> list[str]:
    return re.findall(r"^```\w*\n(.*?)^```", text, flags=re.S | re.M)


def without_comments(block: str) -> str:
    return "\n".join(line.partition("#")[0].rstrip() for line in block.splitlines())


def test_the_chinese_readme_is_in_step() -> None:
    english, chinese = read("README.md"), read("README.zh.md")
    assert [without_comments(b) for b in blocks(chinese)] == [
        without_comments(b) for b in blocks(english)
    ]
    levels = [re.findall(r"^(#+) ", text, flags=re.M) for text in (english, chinese)]
    assert levels[0] == levels[1]
    rows = [len(re.findall(r"^\|", text, flags=re.M)) for text in (english, chinese)]
    assert rows[0] == rows[1]


@pytest.mark.parametrize("page", RECIPE_PAGES, ids=lambda p: p.stem)
def test_the_page_of_a_recipe_runs_what_its_head_says(page: Path) -> None:
    recipe = read(f"recipes/{page.stem}.yaml")
    head = re.findall(r"^# +(omnifill .*)$", recipe, flags=re.M)
    ran = re.findall(r"^omnifill .*$", page.read_text(encoding="utf-8"), flags=re.M)
    assert head and ran[: len(head)] == head


def commands() -> list[str]:
    texts = [b for page in PAGES for b in blocks(page.read_text(encoding="utf-8"))]
    texts += re.findall(r"`(omnifill [^`]+)`", "".join(p.read_text("utf-8") for p in PAGES))
    lines = [line.strip() for text in texts for line in text.splitlines()]
    found = {line for line in lines if line.startswith("omnifill ") and "…" not in line}
    return sorted(found - {"omnifill --help"})


@pytest.mark.parametrize("line", commands())
def test_every_command_in_the_documents_parses(line: str) -> None:
    words = shlex.split(line.partition("#")[0].partition(" > ")[0])[1:]  # no comment, no pipe
    program = typer.main.get_command(cli.app)
    assert isinstance(program, click.Group) or hasattr(program, "commands")
    verb = program.commands[words[0]]
    given = [w for w in words[1:] if not w.startswith("omnifill")]
    if len(words) > 1 and given != ["--help"]:
        verb.make_context(words[0], given, resilient_parsing=False)


def test_there_are_commands_to_check() -> None:
    assert len(commands()) >= 8


def test_the_python_block_is_valid_and_its_names_exist() -> None:
    (block,) = re.findall(r"```python\n(.*?)```", read("README.md"), flags=re.S)
    tree = ast.parse(block)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            owner = omnifill if node.value.id == "of" else api.Model
            assert hasattr(owner, node.attr), node.attr


@pytest.mark.parametrize("tool", ["recipe_doc.py", "serving_doc.py"])
def test_pages_made_from_the_code_are_up_to_date(tool: str) -> None:
    command = [sys.executable, str(ROOT / "tools" / tool), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_relative_link_resolves(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_promises_name_tests_that_exist() -> None:
    table = read("docs/design.md").partition("## Promises")[2]
    for name in re.findall(r"`(\w+\.py|\w+/)`", table):
        assert (ROOT / "tests" / name).exists(), name
