"""Which of its heads a problem learns, and in which all are scored."""

import pytest

from hsl.heads import Head, Problem

DAMAGE, KIND = Head("damage", "dense", ("clean", "damage")), Head("kind", "dense", ("other", "stain"))
SHARED, LABEL = Head("segmentation", "dense", ("clean", "crack", "stain")), Head("label", "image", ("a", "b"))
CODES = Head("segmentation", "dense", ("absent", "damage", "kind"), several=True)


@pytest.mark.parametrize(
    ("heads", "learned", "readings", "scored", "channels"),
    [
        ((SHARED,), "segmentation", "", SHARED, ()),
        ((SHARED, LABEL), "segmentation label", "", SHARED, ()),
        ((LABEL,), "label", "", None, ()),
        ((DAMAGE, KIND, SHARED), "damage kind", "", SHARED, ()),
        ((DAMAGE, KIND, SHARED, LABEL), "segmentation label", "damage kind", SHARED, ()),
        ((DAMAGE, KIND, CODES), "kind damage", "", CODES, ("kind", "damage")),
    ],
    ids=["one head", "dual head", "classifier", "fused", "flat", "channels"],
)
def test_problems(
    heads: tuple[Head, ...], learned: str, readings: str, scored: Head, channels: tuple[str, ...]
) -> None:
    problem = Problem(heads, dict.fromkeys(learned.split()), {}, readings=dict.fromkeys(readings.split()))  # type: ignore[arg-type]
    assert [head.name for head in problem.learned] == learned.split()
    assert (problem.scored_head, problem.channels) == (scored, channels)
