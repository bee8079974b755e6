"""Which pictures are looked at, and the thresholds of definitions 9.5."""

import json
from pathlib import Path
from typing import get_args

import pytest
from pydantic import ValidationError

from hsl.data.labels.label_table import LabelRow, read_labels
from hsl.data.labels.review import Answer, Review, Settings, Thresholds, checked, judge_labels, sample
from hsl.errors import DataError


def rows_of(tiers: str, label: str = "rust", start: int = 0) -> list[LabelRow]:
    return [
        LabelRow(f"{label}{i}", label, tier, 0.9, 0.1, 0.2, True, "gradcam", "x.png")
        for i, tier in enumerate(tiers, start)
    ]


def answers(rows: list[LabelRow], accepted: dict[str, int]) -> dict[str, Answer | None]:
    """The first ``accepted[tier]`` pictures of each tier are accepted; the others in turn marginal and reject."""
    left = dict(accepted)
    given: dict[str, Answer | None] = {}
    for i, row in enumerate(rows):
        left[row.tier] = left.get(row.tier, 0) - 1
        given[row.id] = "accept" if left[row.tier] >= 0 else ("marginal", "reject")[i % 2]
    return given


def test_the_sample_has_at_most_ten_of_each_class_and_tier() -> None:
    rows = rows_of("A" * 30 + "B" * 4 + "C" * 11) + rows_of("A" * 10 + "B" * 12, "healthy")
    chosen = sample(rows)
    by_id = {row.id: row for row in rows}
    counts: dict[tuple[str, str], int] = {}
    for name in chosen:
        counts[by_id[name].label, by_id[name].tier] = counts.get((by_id[name].label, by_id[name].tier), 0) + 1
    assert counts == {
        ("rust", "A"): 10,
        ("rust", "B"): 4,
        ("rust", "C"): 10,
        ("healthy", "A"): 10,
        ("healthy", "B"): 10,
    }
    assert len(set(chosen)) == len(chosen)
    assert [by_id[name].label for name in chosen] == ["healthy"] * 20 + ["rust"] * 24
    assert len({by_id[name].tier for name in chosen[:8]}) == 2, "the tiers are mixed"


def test_the_sample_depends_on_the_seed_and_not_on_the_order() -> None:
    rows = rows_of("A" * 100)
    assert sample(rows, 5, 0) == sample(rows[::-1], 5, 0)
    assert sample(rows, 5, 0) != sample(rows, 5, 1)
    assert sample(rows, 5, 0) == ["rust34", "rust37", "rust26", "rust0", "rust62"], "the same on every machine"
    assert sample([], 5, 0) == []


def test_each_picture_is_as_likely_as_the_others() -> None:
    rows = rows_of("A" * 20)
    counts = dict.fromkeys((row.id for row in rows), 0)
    for seed in range(1000):
        for name in sample(rows, 5, seed):
            counts[name] += 1
    assert min(counts.values()) > 190  # 250 each, standard deviation 14
    assert max(counts.values()) < 310


@pytest.mark.parametrize(
    ("tiers", "accepted", "passed", "demote_b", "num_reasons"),
    [
        ("A" * 10, {"A": 9}, True, False, 0),
        ("A" * 10, {"A": 8}, False, False, 1),
        ("A" * 30, {"A": 27}, True, False, 0),
        ("A" * 30 + "B" * 10, {"A": 30, "B": 7}, True, False, 0),
        ("A" * 30 + "B" * 10, {"A": 30, "B": 6}, True, True, 1),
        ("A" * 14 + "B" * 6, {"A": 14, "B": 0}, True, True, 1),
        ("A" * 13 + "B" * 7, {"A": 13, "B": 0}, False, True, 2),
        ("A" * 7 + "C" * 3, {"A": 7}, True, False, 0),
        ("A" * 6 + "C" * 4, {"A": 6}, False, False, 1),
        ("A" * 7 + "B" * 2 + "C" * 2, {"A": 7, "B": 1}, False, True, 2),
        ("B" * 10, {"B": 7}, True, False, 0),
        ("C" * 10, {"C": 10}, False, False, 1),
        ("A" * 5 + "B" * 5, {"A": 0, "B": 0}, False, True, 3),
    ],
)
def test_the_thresholds(tiers: str, accepted: dict[str, int], passed: bool, demote_b: bool, num_reasons: int) -> None:
    rows = rows_of(tiers)
    verdict = judge_labels(rows, answers(rows, accepted), Settings())
    assert (verdict.passed, verdict.demote_b, len(verdict.reasons)) == (passed, demote_b, num_reasons), verdict
    in_c = tiers.count("C") + demote_b * tiers.count("B")
    assert verdict.c_share == in_c / len(tiers)


@pytest.mark.parametrize("verdict", get_args(Answer))
def test_only_accepted_counts_as_accepted(verdict: Answer) -> None:
    rows = rows_of("AB")
    judged = judge_labels(rows, {"rust0": verdict, "rust1": "accept"}, Settings())
    assert judged.passed is (verdict == "accept")
    assert judged.tiers["A"].share == float(verdict == "accept")
    assert judged.tiers["C"].share is None


def test_an_unfinished_review_says_how_many_are_left() -> None:
    rows = rows_of("AAAB")
    verdict = judge_labels(rows, {"rust0": "accept", "rust1": None, "rust2": "reject", "rust3": None}, Settings())
    assert (verdict.passed, verdict.demote_b, verdict.left) == (False, False, 2)
    assert verdict.reasons == ("2 of 4 pictures are not judged yet.",)
    assert (verdict.tiers["A"].accepted, verdict.tiers["A"].rejected, verdict.tiers["A"].left) == (1, 1, 1)


def test_too_much_of_tier_c_shows_before_anything_is_judged() -> None:
    rows = rows_of("ACC")
    verdict = judge_labels(rows, {"rust0": None}, Settings())
    assert verdict.reasons[1] == "Tier C is 66.7 % of the data, at most 30 % is allowed."


def test_thresholds_of_ones_own() -> None:
    rows = rows_of("AAAAC")
    given = answers(rows, {"A": 2})
    assert judge_labels(rows, given, Settings(thresholds=Thresholds(A=0.5))).passed
    assert not judge_labels(rows, given, Settings(thresholds=Thresholds(A=0.5), max_c_share=0.1)).passed


@pytest.mark.parametrize(
    "values",
    [{"per_class_and_tier": 0}, {"thresholds": {"A": 1.2, "B": 0.7}}, {"max_c_share": -0.1}, {"surprise": 1}],
)
def test_settings_outside_their_range(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Settings.model_validate(values)


HEAD = "id,label,tier,quality,uncertain,foreground,rule_passed,sources,image\n"


def folder_of(path: Path, content: str) -> Path:
    path.mkdir(exist_ok=True)
    (path / "labels.csv").write_text(content)
    (path / "labels.json").write_text('{"format": 1, "data": "leaves", "classes": ["ground", "leaf"]}')
    return path


def reviewed(path: Path, verdicts: dict[str, Answer | None], changes: dict[str, object]) -> Path:
    folder_of(path, HEAD + "".join(f"p{i},rust,A,0.9,0.1,0.2,1,gradcam,x.png\n" for i in range(3)))
    review = Review(
        data="leaves", labels_sha256=read_labels(path).sha256, settings=Settings(), verdicts=verdicts,
        verdict={"passed": True}, updated="",
    )  # fmt: skip
    (path / "review.json").write_text(json.dumps(review.model_dump() | changes))
    return path


def test_a_passed_review_is_handed_to_training(tmp_path: Path) -> None:
    facts = checked(reviewed(tmp_path / "labels", dict.fromkeys(("p0", "p1", "p2"), "accept"), {}))
    assert (facts["passed"], facts["demote_b"], facts["left"], facts["c_share"]) == (True, False, 0, 0.0)
    assert facts["tiers"]["A"]["accepted"] == 3
    assert facts["settings"]["thresholds"] == {"A": 0.9, "B": 0.7}
    json.dumps(facts)


@pytest.mark.parametrize(
    ("verdicts", "changes", "words"),
    [
        ({"p0": "accept", "p1": "accept", "p2": "reject"}, {}, "2 of 3 accepted"),
        ({"p0": "accept", "p1": "accept", "p2": None}, {}, "1 of 3 pictures are not judged yet"),
        ({"p0": "accept"}, {}, "pictures that its settings choose"),
        ({}, {}, "pictures that its settings choose"),
        (dict.fromkeys(("p0", "p1", "p2"), "accept"), {"data": "roads"}, "data set leaves. Found one of roads"),
        (dict.fromkeys(("p0", "p1", "p2"), "accept"), {"labels_sha256": "0"}, "labels.csv was written anew"),
        (dict.fromkeys(("p0", "p1", "p2"), "accept"), {"format": 2}, "`format`"),
        (dict.fromkeys(("p0", "p1", "p2"), "accept"), {"verdicts": {"p0": "fine"}}, "verdicts.p0"),
    ],
)
def test_what_training_refuses(
    tmp_path: Path, verdicts: dict[str, Answer | None], changes: dict[str, object], words: str
) -> None:
    """Whatever the file says of its own verdict."""
    with pytest.raises(DataError, match=words):
        checked(reviewed(tmp_path / "labels", verdicts, changes))


def test_labels_that_nobody_looked_at(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "labels", HEAD + "p0,rust,A,0.9,0.1,0.2,1,gradcam,x.png\n")
    with pytest.raises(DataError, match=r"Found no review\.json\. Judge them with `hsl label review"):
        checked(folder)
