"""Whatever a verb is pointed at, a file that it did not write stays what it is."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hsl.errors import ConfigError
from hsl.files.output_folder import MARKER, OutputFolder, read_marker


def fill(path: Path, files: dict[str, str], verb: str = "predict") -> None:
    with OutputFolder(path, verb) as output:
        for name, text in files.items():
            (output.work / name).parent.mkdir(parents=True, exist_ok=True)
            (output.work / name).write_text(text)


def contents(path: Path) -> dict[str, str]:
    """Every file but the list, hidden ones too."""
    files = [each for each in path.rglob("*") if each.is_file() and each.name != MARKER]
    return {each.relative_to(path).as_posix(): each.read_text() for each in files}


def fail(path: Path, error: type[BaseException], resume: bool = False) -> None:
    with OutputFolder(path, "predict", resume=resume) as output:
        (output.work / "areas.csv").write_text("half")
        raise error


FIRST = {"areas.csv": "1", "masks/a.png": "a", "masks/b.png": "b", "old/deep/c.png": "c"}
SECOND = {"areas.csv": "2", "masks/b.png": "b", "masks/d.png": "d"}


@pytest.mark.parametrize("prepare", [lambda _: None, Path.mkdir, lambda p: (p.mkdir(), (p / ".git").mkdir())])
def test_a_new_or_empty_folder_is_filled_and_then_replaced(tmp_path: Path, prepare: Callable[[Path], object]) -> None:
    out = tmp_path / "out"
    prepare(out)
    fill(out, FIRST)
    assert contents(out) == FIRST
    fill(out, SECOND)
    assert contents(out) == SECOND
    assert not (out / "old").exists()
    assert read_marker(out)["predict"].keys() == SECOND.keys()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda out: (out / "masks/mine.png").write_text("x"), "did not write: `masks/mine.png`. Choose"),
        (lambda out: (out / "notes.txt").write_text("x"), "did not write: `notes.txt`"),
        (lambda out: (out / "masks/a.png").write_text("corrected"), "changed since: `masks/a.png`"),
        (lambda out: (out / "masks/a.png").write_text("A"), "changed since"),
        (lambda out: [(out / f"{i}.txt").touch() for i in range(9)], "`0.txt`, `1.txt`, `2.txt` and 6 more"),
        (
            lambda out: ((out / "masks/a.png").unlink(), (out / "masks/a.png").symlink_to(out / "areas.csv")),
            "changed since",
        ),
        (lambda out: (out / "more").symlink_to(out.parent), "`more`"),
        (lambda out: (out / "gone").symlink_to(out / "nowhere"), "`gone`"),
        (lambda out: (out / MARKER).unlink(), "an older version kept no list of its files"),
        (lambda out: (out / MARKER).write_text('{"files": ['), "should list the files that hsl wrote there"),
    ],
)
def test_what_others_put_or_changed_there_is_not_touched(
    tmp_path: Path, change: Callable[[Path], object], said: str
) -> None:
    out = tmp_path / "out"
    fill(out, FIRST)
    change(out)
    before = contents(out)
    with pytest.raises(ConfigError) as error, OutputFolder(out, "predict"):
        pytest.fail("work has begun")
    assert said in str(error.value)
    assert contents(out) == before


def test_a_folder_of_the_users_or_of_another_verb(tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks/a.png").write_text("true")
    with pytest.raises(ConfigError, match=r"new, empty or as `hsl predict` left it.*Found `a.png`"):
        fill(tmp_path / "masks", FIRST)
    fill(tmp_path / "report", {"index.html": "page"}, "report")
    with pytest.raises(ConfigError, match=r"files that `hsl predict` did not write: `index\.html`"):
        fill(tmp_path / "report", FIRST)
    assert contents(tmp_path) == {"masks/a.png": "true", "report/index.html": "page"}


@pytest.mark.parametrize(
    ("kind", "said"), [("file", "Found a file"), ("fifo", "Found a file"), ("link", "link to nothing")]
)
def test_what_is_no_folder(tmp_path: Path, kind: str, said: str) -> None:
    out = tmp_path / "out"
    {"file": out.touch, "fifo": lambda: os.mkfifo(out), "link": lambda: out.symlink_to("nowhere")}[kind]()
    with pytest.raises(ConfigError, match=said):
        fill(out, FIRST)


def test_a_link_to_a_folder_is_followed(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    fill(tmp_path / "out", FIRST)
    fill(tmp_path / "out", SECOND)
    assert contents(tmp_path / "disk") == SECOND


@pytest.mark.parametrize("given", ["out", "out/masks", "out/masks/a.png", "link", "out/../out"])
def test_the_input_lies_outside(tmp_path: Path, given: str) -> None:
    fill(tmp_path / "out", FIRST)
    (tmp_path / "link").symlink_to(tmp_path / "out" / "masks")
    with (
        pytest.raises(ConfigError, match="should neither be nor hold"),
        OutputFolder(tmp_path / "out", "predict", inputs=[tmp_path / given]),
    ):
        pytest.fail("work has begun")
    assert contents(tmp_path / "out") == FIRST


def test_the_output_may_lie_in_the_input(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("picture")
    with OutputFolder(tmp_path / "out", "predict", inputs=[tmp_path]) as output:
        (output.work / "a").write_text("x")
    assert contents(tmp_path) == {"a.png": "picture", "out/a": "x"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_changes_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    for out, before in ((tmp_path / "new", None), (tmp_path / "filled", FIRST)):
        if before:
            fill(out, FIRST)
        with pytest.raises(error):
            fail(out, error)
        assert contents(out) == before if before else not out.exists()


def test_what_comes_there_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    output = OutputFolder(out, "predict").__enter__()
    (output.work / "areas.csv").write_text("ours")
    (out / "areas.csv").write_text("theirs")
    with pytest.raises(ConfigError, match="came there meanwhile") as error:
        output.__exit__(None, None, None)
    assert (out / "areas.csv").read_text() == "theirs"
    assert (Path(str(error.value).split("`")[3]) / "areas.csv").read_text() == "ours"


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with OutputFolder(tmp_path, "predict"), pytest.raises(ConfigError, match="filled by another process"):
        fill(tmp_path, FIRST)
    fill(tmp_path, FIRST)
    assert not [each for each in tmp_path.iterdir() if each.name.startswith(".hsl-") or each.name == ".hsl.lock"]


def test_files_of_ones_own_in_a_folder_that_others_share(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("theirs")
    for text in ("1", "2"):
        with OutputFolder(tmp_path, "label score", only=["audit/scores.csv"]) as output:
            (output.work / "audit").mkdir()
            (output.work / "audit/scores.csv").write_text(text)
    assert contents(tmp_path) == {"labels.csv": "theirs", "audit/scores.csv": "2"}
    (tmp_path / "audit/scores.csv").write_text("mine")
    with pytest.raises(ConfigError), OutputFolder(tmp_path, "label score", only=["audit/scores.csv"]):
        pytest.fail("work has begun")


KILLED = """
import os, pathlib, signal, sys
from hsl.files.output_folder import OutputFolder
moves, real = int(sys.argv[2]), pathlib.Path.replace
def replace(self, target):
    global moves
    moves -= 1
    if moves < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(self, target)
pathlib.Path.replace = replace
with OutputFolder(sys.argv[1], "predict") as output:
    for name, text in {"areas.csv": "2", "masks/b.png": "b", "masks/d.png": "d", "old": "file"}.items():
        (output.work / name).parent.mkdir(exist_ok=True)
        (output.work / name).write_text(text)
"""


@pytest.mark.parametrize("first", [{}, FIRST], ids=["new", "filled"])
def test_killed_at_any_moment_the_next_call_knows_its_files(tmp_path: Path, first: dict[str, str]) -> None:
    for moves in range(6):  # the list, four files, the list
        out = tmp_path / str(moves)
        if first:
            fill(out, first)
        done = subprocess.run([sys.executable, "-c", KILLED, str(out), str(moves)], check=False, capture_output=True)
        assert done.returncode == -signal.SIGKILL, done.stderr
        fill(out, SECOND)
        assert contents(out) == SECOND
        assert json.loads((out / MARKER).read_text())["files"]["predict"].keys() == SECOND.keys()


def test_what_a_killed_call_made_is_kept_when_asked_for(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fail(tmp_path, KeyboardInterrupt, resume=True)
    with OutputFolder(tmp_path, "predict", resume=True) as output:
        (output.work / "areas.csv").write_text((output.work / "areas.csv").read_text() + " and half")
    assert contents(tmp_path) == {"areas.csv": "half and half"}


@pytest.mark.parametrize("name", ["../mine.txt", "masks/../../mine.txt", "{folder}/mine.txt"])
def test_a_list_that_leads_out_of_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    fill(tmp_path / "out", FIRST)
    page = json.loads((tmp_path / "out" / MARKER).read_text())
    page["files"]["predict"][name.format(folder=tmp_path)] = [hashlib.sha256(b"mine").hexdigest()]
    (tmp_path / "out" / MARKER).write_text(json.dumps(page))
    with pytest.raises(ConfigError, match="a name that leads out of the folder"):
        fill(tmp_path / "out", SECOND)
    assert (tmp_path / "mine.txt").read_text() == "mine"
