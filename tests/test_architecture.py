"""The house, checked: who imports whom, how long things are, and what is not in the house."""

import ast
import functools
import re
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
import yaml

from hsl.run_folder import layout

SOURCE = Path(__file__).parents[1] / "src" / "hsl"
FILES = sorted(SOURCE.rglob("*.py"))
LEVELS = {
    "batch": 0, "channels": 0, "heads": 0, "config": 0, "console": 0, "errors": 0, "files": 0, "options": 0,
    "signals": 0, "terminal": 0,
    "data": 1, "models": 1, "losses": 1, "weighting": 1, "metrics": 1, "inference": 1, "run_folder": 1,
    "tasks": 2, "callbacks": 2, "pseudo_labels": 2, "ensembles": 2, "reports": 2, "exporting": 2,
    "suspects": 2,
    "serving": 3,
    "verbs": 4,
    "cli": 5,
}  # fmt: skip
SHELVES = {"callbacks", "data/formats", "ensembles", "losses", "pseudo_labels"}
"""A file an option of a group; of ensembles, a stage."""
NAMES_ONLY = "hsl.run_folder.layout"
"""Every room may import it: it holds the names of files and nothing else."""
FORBIDDEN_FILES = {"utils", "helpers", "common", "misc", "factory", "registry", "manager", "engine"}


@functools.cache
def nodes(path: Path) -> list[ast.AST]:
    """All of the tree of a file."""
    return list(ast.walk(ast.parse(path.read_text(encoding="utf8"))))


@pytest.fixture(autouse=True, scope="module")
def forget_the_trees() -> Iterator[None]:
    """A million objects that every later collection of garbage would look through."""
    yield
    nodes.cache_clear()


def room(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    found = set()
    for node in nodes(path):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"hsl.{alias.name}" for alias in node.names] if node.module == "hsl" else [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        names = [name for name in names if name != NAMES_ONLY]
        found |= {name.split(".")[1] for name in names if name.startswith("hsl.")}
    return found


def test_imports_go_down_the_house_only() -> None:
    wrong = [
        f"{path.relative_to(SOURCE)} imports {other}"
        for path in FILES
        if path != SOURCE / "__init__.py"
        for other in imported_rooms(path) - {room(path)}
        if LEVELS[other] >= max(LEVELS[room(path)], 1)
    ]
    assert not wrong


def test_files_and_functions_are_short_and_fail_loudly() -> None:
    assert not [finding for path in FILES for finding in findings(path)]


def findings(path: Path) -> Iterator[str]:
    """What of the house rules one file breaks."""
    text, name = path.read_text(encoding="utf8"), path.relative_to(SOURCE)
    if path.stem in FORBIDDEN_FILES:
        yield f"{name}: a name that hides what is in it"
    if len(text.splitlines()) > 300:
        yield f"{name}: longer than 300 lines"
    for node in nodes(path):
        if isinstance(node, ast.Assert):
            yield f"{name}:{node.lineno}: assert"
        if isinstance(node, ast.ExceptHandler):
            caught = ast.unparse(node.type) if node.type else "everything"
            reraises = any(isinstance(inner, ast.Raise) and inner.exc is None for inner in ast.walk(node))
            if not reraises and caught in {"everything", "Exception", "BaseException"}:
                yield f"{name}:{node.lineno}: catches {caught}"
        if isinstance(node, ast.FunctionDef) and len(node.body) > 1:
            start = node.body[1] if ast.get_docstring(node) else node.body[0]
            if (node.body[-1].end_lineno or 0) - start.lineno + 1 > 50:
                yield f"{name}:{node.lineno}: {node.name} is longer than 50 lines"


def test_a_folder_holds_at_most_twelve_files() -> None:
    folders = Counter(path.parent.relative_to(SOURCE).as_posix() for path in FILES if path.name != "__init__.py")
    assert not {folder: number for folder, number in folders.items() if number > 12 and folder not in SHELVES}


def test_no_test_file_imports_another() -> None:
    for path in Path(__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf8"))):
            module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            assert not (module.startswith("tests.") and module.rpartition(".")[2].startswith("test_")), (path, module)


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
        for node in nodes(path):
            called = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
            assert called != "print" or path.name == "terminal.py", f"{path}: use hsl.terminal.say"
            assert called != "Console" or path.name == "console.py", f"{path}: use hsl.console.PlainConsole"


def test_only_the_command_line_knows_where_conf_lies() -> None:
    for path in FILES:
        strings = {n.value for n in nodes(path) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
        assert path.name == "cli.py" or "conf" not in strings, path


def test_no_callback_is_known_by_the_name_of_its_option() -> None:
    """What a callback is, its type or its `_target_` says: a user may give it any name."""
    options = (SOURCE.parents[1] / "conf" / "callbacks").glob("*.yaml")
    names = {key for path in options for key in yaml.safe_load(path.read_text(encoding="utf8")) if key != "defaults"}
    assert len(names) > 9
    for path in FILES:
        text = path.read_text(encoding="utf8")
        for node in nodes(path) if "callbacks" in text and path.name != "cli.py" else ():
            keys = [child.value for child in ast.iter_child_nodes(node) if isinstance(child, ast.Constant)]
            if isinstance(node, ast.Subscript | ast.Call | ast.Compare) and "callbacks" in ast.unparse(node):
                used = names.intersection(str(key).removeprefix("callbacks.").split(".")[0] for key in keys)
                assert not used, f"{path}:{node.lineno} asks for {used}"


def test_no_head_is_guessed_and_no_callback_computes_the_model() -> None:
    """What a head is stands in `hsl.heads.Head`; the task predicts and hands the outputs on."""
    for path in FILES:
        if (place := room(path)) in ("inference", "callbacks", "verbs"):
            asked = {node.attr for node in nodes(path) if isinstance(node, ast.Attribute)}
            assert not asked & {"ndim", "dim"}, path
        if place == "callbacks":
            called = {ast.unparse(node.func) for node in nodes(path) if isinstance(node, ast.Call)}
            computing = {name for name in called if name.endswith((".predict", ".network", ".forward", "ing_step"))}
            assert not computing, f"{path}: {computing}"


def test_train_script_is_short() -> None:
    assert len((SOURCE.parents[1] / "train.py").read_text(encoding="utf8").splitlines()) <= 25


def test_only_the_run_folder_says_how_its_files_are_called() -> None:
    names = {value for name, value in vars(layout).items() if name.isupper() and "." in str(value)}
    assert len(names) >= 20
    pattern = re.compile(rf"(?<![\w-])({'|'.join(sorted(map(re.escape, names)))})(?!\w)")
    wrong = [
        f"{path.relative_to(SOURCE)}:{node.lineno}: {found[0]}"
        for path in FILES
        if room(path) != "run_folder"
        for node in texts(path)
        if (found := pattern.search(node.value))
    ]
    assert not wrong, "take it from hsl.run_folder.layout"
    assert imported_rooms(SOURCE / "run_folder" / "layout.py") == {"errors"}


def test_conf_calls_the_files_of_a_run_folder_by_their_names() -> None:
    names = {value for name, value in vars(layout).items() if name.isupper()}
    for path in (SOURCE.parents[1] / "conf" / "callbacks").glob("*.yaml"):
        for found in re.findall(r"\$\{run_dir\}/(?:checkpoints/)?([\w.]+\.\w+)", path.read_text(encoding="utf8")):
            assert found in names, path


def test_a_path_without_its_fold_is_one_that_conf_lays_out() -> None:
    settings = (SOURCE.parents[1] / "conf" / "train.yaml").read_text(encoding="utf8")
    laid_out = re.findall(r"^run_dir: (\S*\$\{fold\}\S*)", settings, re.MULTILINE)
    assert len(laid_out) == 1
    run_dir = laid_out[0].replace("${fold}", "2")
    assert layout.foldless(f"{run_dir}/{datetime.now().strftime(layout.TIME)}/a", 2) == f"{run_dir[:-1]}*/a"


def texts(path: Path) -> Iterator[ast.Constant]:
    """The strings of a file that are no docstrings."""
    said = {id(node.value) for node in nodes(path) if isinstance(node, ast.Expr)}
    for node in nodes(path):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in said:
            yield node
