"""`docs/coverage.md` counts its own rows right and names files that are there."""

import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/coverage.md").read_text(encoding="utf8")
SECTIONS = re.split(r"^## ", PAGE, flags=re.MULTILINE)


def cells(text: str) -> list[list[str]]:
    """The rows of a table below its heading and rule."""
    rows = [re.split(r"(?<!\\) ?\| ?", line)[1:-1] for line in text.splitlines() if line.startswith("|")]
    return rows[2:]


def test_the_counts_are_those_of_the_rows() -> None:
    expected = []
    total: Counter[str] = Counter()
    for section in SECTIONS[1:]:
        states = Counter(state.split(":")[0] for _, state, _ in cells(section))
        total += states
        expected.append([section.splitlines()[0], states])
    for (name, points, equal, differs, later), (title, states) in zip(
        cells(SECTIONS[0]), [*expected, ["all", total]], strict=True
    ):
        assert name == title
        assert int(points) == states.total() == int(equal) + int(differs) + int(later)
        assert [states[state] for state in ("equal", "differs", "later")] == [int(equal), int(differs), int(later)]
    assert total.total() == 245


def test_each_point_says_where_it_stands_or_why_not() -> None:
    later = {"ensembles", "gate", "export", "server", "study"}
    for section in SECTIONS[1:]:
        for point, state, where in cells(section):
            assert point, section.splitlines()[0]
            assert where.strip("-. "), point
            assert state in ("equal", "differs") or set(state.removeprefix("later: ").split(", ")) <= later, point


def test_the_files_that_it_names_are_there() -> None:
    paths = re.findall(r"`((?:src|conf|docs|tests|slurm)/[^`]+)`", PAGE)
    assert [path for path in paths if not (ROOT / path).exists()] == []
