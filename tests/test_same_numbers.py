"""The comparison that shows that a move of the code changes no number."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from benchmarks.same_numbers import compare
from PIL import Image

TABLE = r"""\begin{tabular}{lrl}
\toprule
model & mIoU (\%) & run folder \\
\midrule
unet & 12.5 & OUT/runs/a\_b/STARTED \\
\bottomrule
\end{tabular}
"""


def write_side(out: Path, started: str) -> None:
    """One run folder and one report: all kinds of file, and what differs from one side to the other."""
    run, report = out / "runs/demo/fold0" / started.replace(r"\_", "_"), out / "reports/demo/tables"
    for folder in (run / "predictions/classes", report):
        folder.mkdir(parents=True)
    (run / "metrics.json").write_text(
        json.dumps({"miou": 0.125, "per_class": [0.25, None], "wall_time_s": len(started)})
    )
    (run / "history.csv").write_text("epoch,val/miou\n0,0.125\n")
    (run / "objects.jsonl").write_text("".join(json.dumps({"id": i, "part": "val", "tp": 1}) + "\n" for i in "ab"))
    (run / "provenance.json").write_text(json.dumps({"commit": started}))
    np.savez(run / "pixel_counts.npz", counts=np.arange(6).reshape(2, 3))
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(run / "predictions/classes/a.png")
    Image.fromarray(np.full((2, 2), len(started), np.uint8)).save(run / "curves.png")
    escaped = str(out).replace("_", r"\_")
    (report / "folds.tex").write_text(TABLE.replace("OUT", escaped).replace("STARTED", started))
    rows = ["| model | mIoU (%) | time (h:m:s) |", "| :--- | ---: | ---: |", f"| unet | 12.5 | {started} |"]
    (report / "folds.md").write_text("\n".join(["Folds.", "", *rows]))


@pytest.fixture
def sides(tmp_path: Path) -> tuple[Path, Path]:
    write_side(tmp_path / "old", r"2026-01-31\_12-00-00")
    write_side(tmp_path / "the_new", r"2026-02-01\_00-00-00-2")
    return tmp_path / "old", tmp_path / "the_new"


def test_equal_but_for_times_and_places(sides: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert compare(*sides) == 0
    assert capsys.readouterr().out == "7 files, 22 numbers, 0 different\n"


def replace(old: str, new: str) -> Callable[[Path], None]:
    return lambda path: path.write_text(path.read_text().replace(old, new))  # type: ignore[func-returns-value]


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "metrics.json": (replace("0.25", "0.26"), "per_class.0: 0.25 -> 0.26"),
    "history.csv": (replace("0.125", "0.1250"), "0.val/miou: 0.125 -> 0.1250"),
    "objects.jsonl": (replace('"b", "part": "val", "tp": 1', '"b", "part": "val", "tp": 2'), "val b.tp: 1 -> 2"),
    "pixel_counts.npz": (
        lambda path: np.savez(path, counts=np.array([[0, 1, 2], [3, 4, 6]])), "counts.1: [3, 4, 5] -> [3, 4, 6]"
    ),
    "a.png": (
        lambda path: Image.fromarray(np.array([[0, 0], [0, 1]], np.uint8)).save(path), "picture.1: [0, 0] -> [0, 1]"
    ),
    "folds.tex": (replace("12.5", "12.6"), r"4.mIoU (\%): 12.5 -> 12.6"),
    "folds.md": (replace("12.5", "12.6"), "4.mIoU (%): 12.5 -> 12.6"),
}  # fmt: skip


def test_every_difference_is_told(sides: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    for name, (change, _) in CHANGES.items():
        change(next(sides[1].rglob(name)))
    assert compare(*sides) == 1
    *lines, last = capsys.readouterr().out.splitlines()
    for name, (_, told) in CHANGES.items():
        assert sum(line.endswith(f"/{name}, {told}") for line in lines) == 1
    assert len(lines) == len(CHANGES)
    assert last == "7 files, 22 numbers, 7 different"


def test_order_of_workers_does_not_matter(sides: tuple[Path, Path]) -> None:
    path = next(sides[1].rglob("objects.jsonl"))
    path.write_text("\n".join(reversed(path.read_text().splitlines())))
    assert compare(*sides) == 0


def test_what_is_added_is_told_unless_it_is_expected(
    sides: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    replace('"miou"', '"fw_iou": 0.5, "miou"')(next(sides[1].rglob("metrics.json")))
    table = next(sides[1].rglob("folds.tex"))
    for old, new in (("{lrl}", "{lrrl}"), ("& run", "& FW IoU & run"), ("12.5 &", "12.5 & 50.0 &")):
        replace(old, new)(table)
    assert compare(*sides) == 1
    out = capsys.readouterr().out
    assert "runs/demo/fold0/run0/metrics.json, fw_iou: (absent) -> 0.5" in out
    assert "reports/demo/tables/folds.tex, 4.FW IoU: (absent) -> 50.0" in out
    assert compare(*sides, added="(?i)fw.iou") == 0
    assert compare(*reversed(sides), added="(?i)fw.iou") == 1  # what is lost is never expected


def test_a_new_title_may_be_expected(sides: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("folds.md", "folds.tex"):
        replace("mIoU", "IoU")(next(sides[1].rglob(name)))
    assert compare(*sides) == 1
    assert compare(*sides, renamed=["mIoU (%)=IoU (%)", r"mIoU (\%)=IoU (\%)"]) == 0
    replace("12.5", "12.6")(next(sides[1].rglob("folds.md")))
    capsys.readouterr()
    assert compare(*sides, renamed=["mIoU (%)=IoU (%)", r"mIoU (\%)=IoU (\%)"]) == 1
    assert "reports/demo/tables/folds.md, 4.IoU (%): 12.5 -> 12.6\n" in capsys.readouterr().out


def test_a_missing_file_is_refused(sides: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    next(sides[1].rglob("history.csv")).unlink()
    assert compare(*sides) == 2
    assert f"runs/demo/fold0/run0/history.csv: only in {sides[0]}\n" in capsys.readouterr().out
    assert compare(sides[1], sides[1] / "none") == 2
    assert compare(sides[0] / "none", sides[0] / "none") == 2


def test_last_digits_are_counted_where_they_may_differ(
    sides: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    replace("0.25", "0.2500000000000001")(next(sides[1].rglob("metrics.json")))
    assert compare(*sides) == 1
    assert compare(*sides, rounding=1e-12) == 0
    assert "0 different, 1 by a share of at most 1e-12" in capsys.readouterr().out
    assert compare(*sides, rounding=1e-17) == 1
