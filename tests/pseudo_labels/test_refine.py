from pathlib import Path

import cv2
import numpy as np
import pytest

from hsl.pseudo_labels.refine import Decision, decide, drift, drift_plot


def test_drift_counts_every_change() -> None:
    before = np.array([[0, 1, 2], [255, 255, 1]], dtype=np.uint8)
    after = np.array([[0, 2, 2], [255, 1, 255]], dtype=np.uint8)
    assert drift(before, after) == (3, 6)
    assert drift(before, before) == (0, 6)


def test_drift_of_two_sizes() -> None:
    with pytest.raises(ValueError, match="size of `before`"):
        drift(np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8))


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


def test_plot_is_a_picture_that_depends_on_its_data(tmp_path: Path) -> None:
    pictures = []
    for name, drifts in {"one": [0.22], "three": [0.22, 0.09, 0.04], "same": [0.22, 0.09, 0.04]}.items():
        drift_plot(tmp_path / f"{name}.png", drifts, title="Drift")
        pictures.append(cv2.imread(str(tmp_path / f"{name}.png")))
    assert pictures[0].shape[:2] == (480, 736)
    assert (pictures[0] != pictures[1]).any()
    assert (pictures[1] == pictures[2]).all()
