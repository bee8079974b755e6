"""The table of docs/scale.md is what the script computes, and the script computes what is derived by hand."""

import doctest
from pathlib import Path

import benchmarks.scale as scale
import pytest

PAGE = (Path(__file__).parents[1] / "docs" / "scale.md").read_text(encoding="utf8")


def rows() -> list[list[str]]:
    lines = PAGE.split(scale.START)[1].split(scale.END)[0].strip().splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_by_hand() -> None:
    """100 M parameters on 16 devices: 2 * 15 / 16 * 400 MB = 750 MB, 0.6 s at 10 Gbit/s."""
    assert scale.bytes_sent(100_000_000) == 750e6
    assert scale.step_seconds(100_000_000_000) == pytest.approx(0.024)  # 3 * 100 GFLOP * 8 pictures / 100 TFLOP/s
    assert scale.reduce_share(750e6, 1.25e9, 0.024) == pytest.approx(0.6 / 0.624)
    assert scale.accumulation(750e6, 3.125e9, 0.024) == 90  # 0.24 s are a tenth of 2.4 s
    assert scale.accumulation(1.0, 3.125e9, 0.024) == 1
    assert doctest.testmod(scale).failed == 0


def test_the_page_has_the_fifteen_families_and_its_shares_follow_from_its_counts() -> None:
    assert len(rows()) == 15
    for cells in rows():
        sent, step = float(cells[3]) * 1e6, float(cells[4]) * 1e-3
        assert sent == pytest.approx(scale.bytes_sent(round(float(cells[1].split()[0]) * 1e6)), rel=0.1), cells
        shares = [scale.reduce_share(sent, bandwidth, step) for bandwidth in scale.LINKS.values()]
        assert [float(cell.split()[0]) for cell in cells[5:9]] == pytest.approx([100 * s for s in shares], abs=2), cells


def test_a_row_of_the_page_is_counted_anew() -> None:
    lines = [line for line in PAGE.splitlines() if line.startswith("| `ghostnetv2`")]
    assert lines == [scale.row(scale.count("ghostnetv2"))]
