import re
from pathlib import Path

import numpy as np
import pytest

from hsl.data.loading.loader import BatchOrder
from hsl.data.loading.sampling import HardExamples, RareClasses, Weighted
from hsl.errors import ConfigError, DataError

NONE = np.zeros((2, 0), bool)
IDS = tuple("abcdefghijklmnop")


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
    np.testing.assert_allclose(HardExamples(runs, share=1.0).chances(["p", "q"], NONE), [0.75, 0.25])
    np.testing.assert_allclose(HardExamples(runs, share=0.5).chances(["p", "q"], NONE), [0.625, 0.375])
    np.testing.assert_allclose(HardExamples(runs, share=1.0, by="error").chances(["p", "q"], NONE), [1, 0])
    np.testing.assert_allclose(HardExamples(runs, by="error").chances(["q"], NONE), [1])  # nothing is wrong: evenly
    with pytest.raises(DataError, match=r"validated x\. Add the runs of the other folds"):
        HardExamples(runs).chances(["p", "x"], NONE)


def test_repeat_factors() -> None:
    # of 16 pictures all show class 0, four class 1, one of these class 2 as well, none class 3
    shown = np.zeros((16, 4), bool)
    shown[:, 0], shown[:4, 1], shown[0, 2] = True, True, True
    factors = np.array([4.0, 2, 2, 2] + [1] * 12)  # sqrt(16), sqrt(4), 1
    np.testing.assert_allclose(RareClasses().chances(IDS, shown), factors / factors.sum())
    factors = np.array([2.0] + [1] * 15)  # only class 2 is in less than a quarter
    np.testing.assert_allclose(RareClasses(threshold=0.25).chances(IDS, shown), factors / factors.sum())
    np.testing.assert_allclose(RareClasses().chances(IDS[:2], np.zeros((2, 3), bool)), [0.5, 0.5])  # all ignored
    for threshold in (0.0, 1.1):
        with pytest.raises(ConfigError, match=r"data\.sampling\.threshold"):
            RareClasses(threshold)


def test_an_epoch_is_drawn_by_these_chances_and_repeats_itself() -> None:
    chances = np.array([0.7, 0.1, 0.1, 0.1])
    order = BatchOrder(4, 2, shuffle=True, seed=1, chances=chances)
    drawn = []
    for epoch in range(500):
        order.set_epoch(epoch)
        first = [key for batch in order for key in batch]
        assert first == [key for batch in order for key in batch]
        assert len(set(first)) == len(first)  # a picture that comes twice is augmented twice
        drawn += [index for _, index, _ in first]
    assert np.mean(np.array(drawn) == 0) == pytest.approx(0.7, abs=0.05)


def weighted(folder: Path, text: str) -> Weighted:
    path = folder / "weights.csv"
    path.write_text(text)
    return Weighted(str(path))


def test_chances_follow_the_weights_of_a_table(tmp_path: Path) -> None:
    found = weighted(tmp_path, "weight,id\n1,r\n3,p\n0,q\n").chances(["p", "q", "r"], NONE)
    np.testing.assert_allclose(found, [0.75, 0, 0.25])
    found = weighted(tmp_path, "id\np\n'=r\n").chances(["p", "q", "=r"], NONE)  # a list: the others are left out
    np.testing.assert_allclose(found, [0.5, 0, 0.5])
    order = BatchOrder(3, 1, shuffle=True, seed=0, chances=found)
    assert {index for batch in order for _, index, _ in batch} <= {0, 2}
    of_patches = weighted(tmp_path, "id,weight\np,1\nq,2\n").chances(["p", "p", "q"], NONE)
    np.testing.assert_allclose(of_patches, [0.25, 0.25, 0.5])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,weight\np,1\nq,1\nx,1\n", "training pictures of this fold only. Found x. Remove them"),
        ("id\nx\n", "Found x. Remove them"),
        ("id,weight\np,1\n", "Found none of q. Give them weight 0"),
        ("id,weight\np,0\nq,0\n", "Found weights of 0 only"),
        ("id,weight\np,1\nq,-1\n", "Found `q` with weight `-1`"),
        ("id,weight\np,1\nq,nan\n", "Found `q` with weight `nan`"),
        ("id,weight\np,1\nq,inf\n", "Found `q` with weight `inf`"),
        ("id,weight\np,1\nq,\n", "Found `q` with weight ``"),
        ("id,weight\np,1\nq,1\np,1\n", "Found `p` the second time"),
        ("name\np\n", "a column `id`. Found 1 rows"),
        ("id\n", "a column `id`. Found 0 rows"),
    ],
)
def test_a_table_of_weights_that_does_not_fit(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        weighted(tmp_path, text).chances(["p", "q"], NONE)
    with pytest.raises(DataError, match="is missing"):
        Weighted(str(tmp_path / "nothing.csv")).chances(["p", "q"], NONE)


def test_errors(tmp_path: Path) -> None:
    for changed in ({"runs": []}, {"share": 0.0}, {"by": "luck"}):
        with pytest.raises(ConfigError, match=r"data\.sampling"):
            HardExamples(**({"runs": ["x"]} | changed))
    with pytest.raises(DataError, match="Name another run"):
        HardExamples([str(tmp_path)]).chances(["p"], NONE)
