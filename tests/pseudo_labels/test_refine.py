"""What refinement moves, what of it is agreed on, and answers of the spot check kept whatever crashes."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import jaccard_score

from hsl.data.labels.label_table import LabelRow, LabelTable
from hsl.data.labels.review import Settings, Thresholds, checked
from hsl.errors import ConfigError, DataError
from hsl.pseudo_labels.refine import (
    AGREEMENT,
    Agreement,
    Decision,
    changed_share,
    decide,
    flagged,
    mean_iou,
    read_agreement,
    transitions,
    upgraded,
    write_agreement,
)
from hsl.pseudo_labels.spot_check import begin, go_on, keep_answer

ROWS = [
    Agreement("p0", "rust", "B", "A", 0.9, 0.125, True, False),
    Agreement("=p1", "rust", "C", "B", 0.25, 0.5, False, True),
    Agreement("p2", "healthy", "A", "A", 1.0, 0.0, False, False),
]
HEAD = "id,label,tier,quality,uncertain,foreground,rule_passed,sources,image\n"
Write = Callable[..., Path]


def masks(seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Two masks of three classes and uncertain pixels."""
    random = np.random.default_rng(seed)
    first, second = random.choice(np.array([0, 1, 2, 255], np.uint8), (2, 9, 11))
    return first, second


def row(name: str, tier: str = "B", label: str = "rust", rule_passed: bool = True) -> LabelRow:
    return LabelRow(name, label, tier, 0.7, 0.0, 0.1, rule_passed, "segmentation", "")


def test_drift_counts_every_change() -> None:
    before = np.array([[0, 1, 2], [255, 255, 1]], dtype=np.uint8)
    after = np.array([[0, 2, 2], [255, 1, 255]], dtype=np.uint8)
    assert changed_share(transitions(before, after, 3)) == 3 / 6
    assert changed_share(transitions(before, before, 3)) == 0


@pytest.mark.parametrize("seed", range(3))
def test_transitions_and_iou_against_a_loop_and_scikit_learn(seed: int) -> None:
    first, second = masks(seed)
    counts = transitions(first, second, 3)
    for i, a in enumerate((0, 1, 2, 255)):
        for j, b in enumerate((0, 1, 2, 255)):
            assert counts[i, j] == ((first == a) & (second == b)).sum()
    expected = jaccard_score(first.ravel(), second.ravel(), labels=[0, 1, 2], average="macro")
    assert mean_iou(counts) == pytest.approx(expected)
    assert changed_share(counts) == pytest.approx((first != second).mean())


def test_iou_of_classes_that_neither_mask_has_and_of_nothing() -> None:
    leaf = np.array([[1, 1, 1, 255]], np.uint8)
    assert mean_iou(transitions(leaf, leaf, 5)) == 1
    assert mean_iou(transitions(leaf, np.array([[1, 1, 255, 255]], np.uint8), 5)) == pytest.approx(2 / 3)
    nothing = np.full((2, 2), 255, np.uint8)
    assert mean_iou(transitions(nothing, nothing, 5)) == 0


def test_drift_of_two_sizes() -> None:
    with pytest.raises(ValueError, match="size of `before`"):
        transitions(np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8), 2)


@pytest.mark.parametrize(
    ("tier", "rule_passed", "agreement", "expected"),
    [
        ("B", True, 0.85, "A"),
        ("B", True, 0.8499, "B"),
        ("B", False, 1.0, "B"),  # what its class forbids is not made good by being believed twice
        ("C", True, 1.0, "C"),
        ("A", True, 0.0, "A"),
    ],
)
def test_agreement_lifts_b_to_a(tier: str, rule_passed: bool, agreement: float, expected: str) -> None:
    assert upgraded(row("p", tier, rule_passed=rule_passed), agreement).tier == expected


def test_the_twenty_largest_disagreements_of_each_class_are_flagged() -> None:
    agreement = {f"r{i:02}": i / 100 for i in range(30)} | {"h0": 0.9, "h1": 0.2, "h2": 0.1, "h3": 0.2, "h4": 0.85}
    rows = [row(name, label="rust" if name.startswith("r") else "healthy") for name in reversed(agreement)]
    assert flagged(rows, agreement) == ["h2", "h1", "h3", *(f"r{i:02}" for i in range(20))]
    assert flagged([], {}) == []


@pytest.mark.parametrize(
    ("drifts", "expected"),
    [
        ([0.0], Decision.CONVERGED),
        ([0.149], Decision.CONVERGED),
        ([0.15], Decision.AGAIN),
        ([0.5], Decision.AGAIN),
        ([0.5, 0.3], Decision.AGAIN),
        ([0.5, 0.5], Decision.AGAIN),
        ([0.3, 0.5], Decision.DIVERGED),
        ([0.5, 0.1], Decision.CONVERGED),
        ([0.5, 0.3, 0.14], Decision.CONVERGED),
        ([0.5, 0.3, 0.15], Decision.EXHAUSTED),  # neither below nor above
        ([0.5, 0.3, 0.2], Decision.OSCILLATING),
        ([0.5, 0.3, 0.4], Decision.OSCILLATING),
    ],
)
def test_decisions(drifts: list[float], expected: Decision) -> None:
    assert decide(drifts) is expected


def test_fewer_and_more_rounds() -> None:
    assert decide([0.5], max_rounds=1) is Decision.EXHAUSTED
    assert decide([0.5, 0.6], max_rounds=2) is Decision.DIVERGED
    assert decide([0.5, 0.4, 0.3], max_rounds=5) is Decision.OSCILLATING
    assert decide([0.5, 0.4, 0.3], max_rounds=5, converged_below=0.35) is Decision.CONVERGED


def test_a_decision_reads_as_its_word() -> None:
    assert decide([0.5]) == "again"


@pytest.mark.parametrize("drifts", [[], [1.2], [float("nan")], [-0.1]])
def test_drifts_that_are_none(drifts: list[float]) -> None:
    with pytest.raises(ValueError, match="a share in"):
        decide(drifts)


def labels(folder: Path) -> LabelTable:
    rows = tuple(LabelRow(row.id, row.label, row.tier, 0.7, 0.0, 0.1, True, "", "") for row in ROWS)
    return LabelTable(folder, "leaves", ("ground", "leaf"), rows, "")


def test_by_class_and_then_the_largest_disagreement_first(tmp_path: Path) -> None:
    write_agreement(tmp_path, ROWS)
    assert read_agreement(labels(tmp_path)) == [ROWS[2], ROWS[1], ROWS[0]]
    assert "'=p1" in (tmp_path / AGREEMENT).read_text()  # no formula to a spreadsheet


def test_labels_of_no_refinement_have_none(tmp_path: Path) -> None:
    assert read_agreement(labels(tmp_path)) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id,label\np0,rust\n", "damaged: KeyError.*can be used without it"),
        ("id,label,first_tier,tier,agreement,drift,upgraded,flagged\np0,rust,B,A,much,0,0,0\n", "damaged: ValueError"),
        ("id,label,first_tier,tier,agreement,drift,upgraded,flagged\np0,rust,B,A,0.5,0,0,0\n", "Found others"),
    ],
)
def test_a_table_that_is_wrong(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / AGREEMENT).write_text(text)
    with pytest.raises(DataError, match=words):
        read_agreement(labels(tmp_path))
    (tmp_path / AGREEMENT).rename(tmp_path / "away.csv")
    assert read_agreement(labels(tmp_path)) == []


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """``write("AAB", name)``: a folder of labels, one picture ``p0``, ``p1`` ... for each letter."""

    def go(tiers: str, name: str = "labels", data: str = "leaves") -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        rows = [f"p{i},rust,{tier},0.9,0.1,0.2,1,gradcam,/nowhere/p{i}.png\n" for i, tier in enumerate(tiers)]
        (folder / "labels.csv").write_text(HEAD + "".join(rows))
        (folder / "labels.json").write_text(json.dumps({"format": 1, "data": data, "classes": ["ground", "leaf"]}))
        return folder

    return go


def test_a_review_begins_with_every_answer_open_and_goes_on_where_it_was(write: Write) -> None:
    folder = write("AAB")
    _, review = begin(folder, Settings())
    assert set(review.verdicts) == {"p0", "p1", "p2"}
    assert set(review.verdicts.values()) == {None}
    keep_answer(folder, "p1", "reject")
    _, again = begin(folder, Settings())
    assert again.verdicts["p1"] == "reject"
    assert again.verdict["left"] == 2
    assert list(again.verdicts) == list(review.verdicts)


def test_answers_are_judged_taken_back_and_changed(write: Write) -> None:
    folder = write("A")
    begin(folder, Settings())
    assert keep_answer(folder, "p0", "accept").verdict["passed"] is True
    assert keep_answer(folder, "p0", "marginal").verdict["passed"] is False
    taken_back = keep_answer(folder, "p0", None)
    assert taken_back.verdicts == {"p0": None}
    assert taken_back.verdict["left"] == 1


def test_a_finished_review_is_what_training_asks_for(write: Write) -> None:
    folder = write("AAAB")
    begin(folder, Settings())
    for name in ("p0", "p1", "p2"):
        keep_answer(folder, name, "accept")
    with pytest.raises(DataError, match="1 of 4 pictures are not judged yet"):
        checked(folder)
    keep_answer(folder, "p3", "reject")
    assert checked(folder)["demote_b"] is True


def test_the_largest_disagreements_are_asked_first_and_decide_nothing(write: Write) -> None:
    folder = write("A" * 5 + "B" * 3)
    write_agreement(folder, [Agreement(f"p{i}", "rust", "B", "B", i / 10, 0.0, False, i < 4) for i in range(8)])
    settings = Settings(per_class_and_tier=1)
    _, review = begin(folder, settings)
    assert list(review.flagged) == ["p0", "p1", "p2", "p3"]
    assert list(review.answers)[:4] == ["p0", "p1", "p2", "p3"]
    assert set(review.answers) == {*review.flagged, *review.verdicts}
    alone = [name for name in review.flagged if name not in review.verdicts]
    for name in alone:
        review = keep_answer(folder, name, "reject")
    assert review.verdict["left"] == len(review.verdicts) == 2
    for name in review.verdicts:
        keep_answer(folder, name, "accept")
    assert checked(folder)["passed"] is True  # a biased sample would have failed them
    _, again = begin(folder, settings)
    assert [again.answers[name] for name in alone] == ["reject"] * len(alone)


def test_a_picture_in_the_sample_and_among_the_disagreements_has_one_answer(write: Write) -> None:
    folder = write("A")
    write_agreement(folder, [Agreement("p0", "rust", "A", "A", 0.1, 0.0, False, True)])
    begin(folder, Settings())
    review = keep_answer(folder, "p0", "accept")
    assert review.flagged == review.verdicts == review.answers == {"p0": "accept"}


def test_threads_lose_no_answer(write: Write) -> None:
    folder = write("A" * 24)
    begin(folder, Settings(per_class_and_tier=24))
    names = [f"p{i}" for i in range(24)]
    halves = [threading.Thread(target=lambda part=part: [keep_answer(folder, n, "accept") for n in part])
              for part in (names[:8], names[8:16], names[16:])]  # fmt: skip
    for each in halves:
        each.start()
    for each in halves:
        each.join()
    assert set(go_on(folder)[1].verdicts.values()) == {"accept"}


@pytest.mark.slow
def test_processes_lose_no_answer(write: Write) -> None:
    folder = write("A" * 12)
    begin(folder, Settings(per_class_and_tier=12))
    program = (
        "import sys; from pathlib import Path; from hsl.pseudo_labels.spot_check import keep_answer\n"
        "for name in sys.argv[2:]: keep_answer(Path(sys.argv[1]), name, 'accept')"
    )
    names = [f"p{i}" for i in range(12)]
    started = [subprocess.Popen([sys.executable, "-c", program, str(folder), *part]) for part in (names[:6], names[6:])]
    assert [each.wait(60) for each in started] == [0, 0]
    assert set(go_on(folder)[1].verdicts.values()) == {"accept"}


def test_a_full_disk_leaves_the_answers_before(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write("AA")
    begin(folder, Settings())
    keep_answer(folder, "p0", "accept")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            keep_answer(folder, "p1", "accept")
    assert go_on(folder)[1].verdicts == {"p0": "accept", "p1": None}
    assert sorted(path.name for path in folder.iterdir()) == [
        ".review.json.lock", "labels.csv", "labels.json", "review.json"
    ]  # fmt: skip


def test_a_picture_that_is_not_looked_at_takes_no_answer(write: Write) -> None:
    folder = write("AA")
    begin(folder, Settings())
    with pytest.raises(DataError, match=r"`\.\./p9` is not one of the 2 pictures"):
        keep_answer(folder, "../p9", "accept")


def test_other_settings_than_the_review_began_with(write: Write) -> None:
    folder = write("AA")
    begin(folder, Settings())
    other = Settings(per_class_and_tier=5, thresholds=Thresholds(A=0.5))
    with pytest.raises(ConfigError, match=r"`per_class_and_tier = 10`.*Found `per_class_and_tier = 5`"):
        begin(folder, other)


@pytest.mark.parametrize("harm", ["other data", "other labels", "gone", "damaged", "other pictures"])
def test_a_review_that_does_not_belong_is_refused_and_left_alone(write: Write, harm: str) -> None:
    folder = write("AAB")
    begin(folder, Settings())
    path = folder / "review.json"
    words = {
        "other data": "made for the data set leaves. Found one of roads",
        "other labels": "made for this labelling",
        "gone": "review.json` is gone",
        "damaged": "review.json` is damaged",
        "other pictures": "of the pictures that its settings choose",
    }
    content = json.loads(path.read_text())
    if harm == "other data":
        other = write("AAB", "other", data="roads")
        begin(other, Settings())
        path.write_bytes((other / "review.json").read_bytes())
    elif harm == "other labels":
        write("ABB")
    elif harm == "gone":
        path.unlink()
    elif harm == "damaged":
        path.write_text(path.read_text()[:50])
    else:
        content["verdicts"] = {}
        path.write_text(json.dumps(content))
    before = path.read_bytes() if path.exists() else None
    with pytest.raises(DataError, match=words[harm]):
        keep_answer(folder, "p0", "accept")
    if harm != "gone":
        with pytest.raises(DataError, match=words[harm]):
            begin(folder, Settings())
    assert (path.read_bytes() if path.exists() else None) == before
