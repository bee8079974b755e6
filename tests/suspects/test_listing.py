"""Files come before regions; a swap or a shift stands for the regions of its pictures; what is written is read."""

from pathlib import Path

import numpy as np
import pytest

from hsl.errors import DataError
from hsl.suspects.listing import Suspect, Suspects, picture_scores, ranked, read_suspects, write_suspects


def suspect(kind: str, name: str, score: float, other: str = "") -> Suspect:
    return Suspect(kind=kind, id=name, score=score, other=other, box=(0, 0, 4, 4), text="why")  # type: ignore[arg-type]


EVERY = [
    suspect("missed object", "a", 0.9), suspect("spurious object", "e", 0.4), suspect("wrong class", "f", 0.8),
    suspect("shifted mask", "b", 0.3), suspect("missed object", "b", 0.95), suspect("shifted mask", "d", 0.99),
    suspect("swapped files", "c", 0.2, "d"), suspect("wrong class", "d", 0.9),
    suspect("wrong label of the picture", "c", 0.85),
]  # fmt: skip


def test_ranked() -> None:
    order = [(one.kind, one.id) for one in ranked(EVERY)]
    assert order == [
        ("swapped files", "c"), ("shifted mask", "b"), ("missed object", "a"),
        ("wrong label of the picture", "c"), ("wrong class", "f"), ("spurious object", "e"),
    ]  # fmt: skip
    assert ranked(EVERY[::-1]) == ranked(EVERY)


def test_pictures_are_ranked_by_their_surest_suspect_then_by_softmin() -> None:
    softmin = dict.fromkeys("abcdef", 0.5) | {"y": 0.2, "x": 0.3, "z": float("nan")}
    scores = picture_scores(ranked(EVERY), softmin)
    assert [one.id for one in scores] == ["c", "d", "b", "a", "f", "e", "y", "x", "z"]
    assert [one.rank for one in scores] == [*range(1, 10)]
    assert {one.id: one.suspects for one in scores}["c"] == 2
    assert scores[-1].softmin is None
    assert np.isclose(scores[3].score, 0.9)


def test_the_file_is_read_as_written_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    found = ranked(EVERY)
    content = Suspects(
        data="d", run="../run", classes=["background"], members=["m"], notes=[], not_checked={"why": ["t"]},
        suspects=found, pictures=picture_scores(found, dict.fromkeys("abcdef", 0.5)),
    )  # fmt: skip
    write_suspects(tmp_path, content)
    assert read_suspects(tmp_path) == content
    path = tmp_path / "suspects.json"
    path.write_text(path.read_text().replace("0.9,", '"much",'))
    with pytest.raises(DataError, match=r"`suspects.2.score`: .* Call `hsl suspects` again"):
        read_suspects(tmp_path)
    with pytest.raises(DataError, match=r"that `hsl suspects` wrote. Found no suspects.json"):
        read_suspects(tmp_path / "elsewhere")
