"""The house, checked: who imports whom, how long things are, and what is not in the house."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "hsl"
FILES = sorted(SOURCE.rglob("*.py"))
LEVELS = {
    "batch": 0, "channels": 0, "config": 0, "console": 0, "errors": 0, "files": 0, "options": 0,
    "signals": 0, "terminal": 0,
    "data": 1, "models": 1, "losses": 1, "weighting": 1, "metrics": 1, "inference": 1, "run_folder": 1.5,
    "tasks": 2, "callbacks": 2, "pseudo_labels": 2, "ensembles": 2, "reports": 2, "exporting": 2,
    "verbs": 3, "serving": 3,
    "cli": 4,
}  # fmt: skip
FORBIDDEN_FILES = {"utils", "helpers", "common", "misc", "factory", "registry", "manager", "engine"}


def room(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"hsl.{alias.name}" for alias in node.names] if node.module == "hsl" else [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("hsl.")}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_go_down_the_house_only(path: Path) -> None:
    if path == SOURCE / "__init__.py":
        return
    level = LEVELS[room(path)] if room(path) != "run_folder" else 3
    for other in imported_rooms(path) - {room(path)}:
        assert LEVELS[other] < max(level, 1), f"{room(path)} (level {level}) imports {other} (level {LEVELS[other]})"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_house_rules(path: Path) -> None:
    text = path.read_text(encoding="utf8")
    tree = ast.parse(text)
    assert path.stem not in FORBIDDEN_FILES
    assert len(text.splitlines()) <= 300
    for node in ast.walk(tree):
        assert not isinstance(node, ast.Assert), f"line {node.lineno}: assert"
        if isinstance(node, ast.ExceptHandler):
            caught = ast.unparse(node.type) if node.type else "everything"
            reraises = any(isinstance(inner, ast.Raise) and inner.exc is None for inner in ast.walk(node))
            assert reraises or caught not in {"everything", "Exception", "BaseException"}, f"line {node.lineno}"
        if isinstance(node, ast.FunctionDef) and len(node.body) > 1:
            start = node.body[1] if ast.get_docstring(node) else node.body[0]
            assert node.body[-1].end_lineno - start.lineno + 1 <= 50, f"{node.name} is too long"


def test_tables_are_written_neutral() -> None:
    """A cell that begins with = is a formula to a spreadsheet."""
    for path in FILES:
        text = path.read_text(encoding="utf8")
        if path.name != "cells.py":
            assert ".to_csv(index" not in text.replace("(pandas: `to_csv(index", ""), path
            assert ("csv.writer(" in text or "DictWriter(" in text) <= ("neutral" in text), path


def test_a_terminal_is_shown_text_alone() -> None:
    """What is printed passes `hsl.terminal`, which shows control characters instead of obeying them."""
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
            called = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
            assert called != "print" or path.name == "terminal.py", f"{path}: use hsl.terminal.say"
            assert called != "Console" or path.name == "console.py", f"{path}: use hsl.console.PlainConsole"


def test_only_the_command_line_knows_where_conf_lies() -> None:
    for path in FILES:
        tree = ast.parse(path.read_text(encoding="utf8"))
        strings = {n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
        assert path.name == "cli.py" or "conf" not in strings, path


def test_train_script_is_short() -> None:
    assert len((SOURCE.parents[1] / "train.py").read_text(encoding="utf8").splitlines()) <= 25
