"""`hsl patches` from the command line to a data set that reads back."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hsl.cli import run_verb
from hsl.data.formats.folder import read_folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    random = np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for number in range(3):
        Image.fromarray(random.integers(0, 255, (60, 80, 3), np.uint8)).save(folder / f"images/p{number}.png")
        mask = np.zeros((60, 80), np.uint8)
        mask[10:50, : 20 * number] = 1
        Image.fromarray(mask).save(folder / f"masks/p{number}.png")
    (folder / "dataset.yaml").write_text("classes: [clean, crack]\n")
    (folder / "labels.csv").write_text("id,group\np0,a\np1,b\np2,b\n")
    return folder


def call(monkeypatch: pytest.MonkeyPatch, root: Path, *arguments: str) -> int:
    given = ["data=folder", f"data.root={root}", f"output={root.parent / 'patches'}", "workers=1"]
    monkeypatch.setattr(sys, "argv", ["hsl", *given, *arguments])
    monkeypatch.setenv("HSL_ONE_SENTENCE", "")
    monkeypatch.setenv("HYDRA_FULL_ERROR", "")
    try:
        run_verb("patches")
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


SMALL = ("data.patches.size=32", "data.patches.min_distance=20", "data.patches.foreground=[crack]")


def test_verb(monkeypatch: pytest.MonkeyPatch, root: Path, capfd: pytest.CaptureFixture[str], drawn: None) -> None:
    assert call(monkeypatch, root, *SMALL) == 0
    printed = capfd.readouterr().out
    written = read_folder(root.parent / "patches")
    assert {record.attributes["group"] for record in written.records} == {"b"}
    assert f"{len(written.records)} patches of 3 pictures (1 without" in printed
    assert "crack" in printed
    assert "Pictures without foreground give no patch: p0." in printed
    statistics = root.parent / "patches" / "statistics"
    with Image.open(statistics / "class_shares.png") as plot:
        assert plot.size[0] > 300
    assert (statistics / "class_shares.csv").is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("workers=0",), "`workers` should be a whole number of at least 1 or auto"),
        (("data/patches=none",), "Set `data/patches=poisson_disk`"),
        (("data.patches.foreground=[unicorn]",), "Choose from ['clean', 'crack']"),
        (("data.split.groups=reef",), "should have the attribute `reef`"),
        (("data.patches.size=0",), "`data.patches.size` should be a whole number of at least 1"),
    ],
)
def test_mistakes_are_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
    root: Path,
    capfd: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    words: str,
) -> None:
    assert call(monkeypatch, root, *arguments) == 2
    printed = capfd.readouterr().err
    assert printed.startswith("error: ")
    assert words in printed
    assert not (root.parent / "patches").exists()
