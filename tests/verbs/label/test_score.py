import numpy as np
import pytest

from hsl.verbs.label.score import _compare, _table


def test_scores_by_hand() -> None:
    truth = np.array([[0, 0, 1], [1, 2, 255]], np.uint8)
    label = np.array([[0, 1, 1], [255, 2, 0]], np.uint8)
    matrix, unsure, known = _compare(label, truth, 3)
    assert matrix.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 1]]
    assert (unsure, known) == (1, 5)
    table = _table({"A": [(matrix, unsure, known)], "B": [], "C": []}, ("ground", "leaf", "spot"))
    whole, first = table.iloc[0], table.iloc[1]
    assert whole["iou/ground"] == pytest.approx(1 / 2)
    assert whole["iou/leaf"] == pytest.approx(1 / 2)
    assert whole["iou/spot"] == pytest.approx(1)
    assert whole["uncertain"] == pytest.approx(1 / 5)
    assert first["miou"] == whole["miou"] == pytest.approx(2 / 3)
    assert np.isnan(table.iloc[2]["miou"])
