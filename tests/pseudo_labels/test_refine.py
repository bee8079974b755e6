"""The table of agreement: written, read back, and what is wrong with one."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import jaccard_score

from hsl.data.labels.label_table import LabelRow, LabelTable
from hsl.errors import DataError
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


ROWS = [
    Agreement("p0", "rust", "B", "A", 0.9, 0.125, True, False),
    Agreement("=p1", "rust", "C", "B", 0.25, 0.5, False, True),
    Agreement("p2", "healthy", "A", "A", 1.0, 0.0, False, False),
]


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
