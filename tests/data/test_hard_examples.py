from pathlib import Path

import numpy as np
import pytest

from hsl.config import ConfigError, DataError
from hsl.data.hard_examples import HardExamples
from hsl.data.loader import BatchOrder


def run(folder: Path, rows: list[tuple[str, str, float, int]]) -> str:
    folder.mkdir()
    lines = [f"{name},{part},plain,{loss},{correct}" for name, part, loss, correct in rows]
    (folder / "image_predictions.csv").write_text("\n".join(["id,part,inference,loss,correct", *lines]) + "\n")
    return str(folder)


def test_chances_follow_the_loss_on_pictures_that_were_held_out(tmp_path: Path) -> None:
    runs = [
        run(tmp_path / "a", [("p", "val", 3.0, 0), ("x", "test", 9.0, 0)]),
        run(tmp_path / "b", [("q", "val", 1.0, 1)]),
    ]
    np.testing.assert_allclose(HardExamples(runs, share=1.0).chances(["p", "q"]), [0.75, 0.25])
    np.testing.assert_allclose(HardExamples(runs, share=0.5).chances(["p", "q"]), [0.625, 0.375])
    np.testing.assert_allclose(HardExamples(runs, share=1.0, by="error").chances(["p", "q"]), [1, 0])
    np.testing.assert_allclose(HardExamples(runs, by="error").chances(["q"]), [1])  # nothing is wrong: evenly
    with pytest.raises(DataError, match=r"validated x\. Add the runs of the other folds"):
        HardExamples(runs).chances(["p", "x"])


def test_an_epoch_is_drawn_by_these_chances_and_repeats_itself() -> None:
    chances = np.array([0.7, 0.1, 0.1, 0.1])
    order = BatchOrder(4, 2, shuffle=True, seed=1, chances=chances)
    drawn = []
    for epoch in range(500):
        order.set_epoch(epoch)
        first = [key for batch in order for key in batch]
        assert first == [key for batch in order for key in batch]
        drawn += [index for _, index in first]
    assert np.mean(np.array(drawn) == 0) == pytest.approx(0.7, abs=0.05)


def test_errors(tmp_path: Path) -> None:
    for changed in ({"runs": []}, {"share": 0.0}, {"by": "luck"}):
        with pytest.raises(ConfigError, match=r"data\.hard_examples"):
            HardExamples(**({"runs": ["x"]} | changed))
    with pytest.raises(DataError, match="Name another run"):
        HardExamples([str(tmp_path)]).chances(["p"])
