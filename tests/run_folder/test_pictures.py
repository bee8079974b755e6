import numpy as np
import pytest

from hsl.errors import DataError
from hsl.reports.scores import picture_counts
from hsl.run_folder.pictures import read_image_predictions

HEAD = "id,group,part,inference,head,target,prediction,correct,loss,probability/a,probability/b"


@pytest.fixture
def read(tmp_path):
    def go(*lines, several=False, head=HEAD):
        path = tmp_path / "image_predictions.csv"
        path.write_text("\n".join([head, *lines]) + "\n")
        return read_image_predictions(tmp_path, "classification", ["a", "b"], several)

    return go


def test_one_class_per_picture(read):
    found = read(
        "p0,g,val,plain,classification,a,a,1,0.1,0.9,0.1",
        "p1,g,val,plain,classification,,b,,,0.2,0.8",
        "p2,h,val,plain,classification,b,a,0,0.9,0.6,0.4",
        "p0,g,val,tta,classification,a,b,0,0.1,0.4,0.6",
        "p0,g,val,plain,other,x,y,0,0.1,0.4,0.6",
    )
    assert set(found) == {("val", "plain"), ("val", "tta")}
    plain = found["val", "plain"]
    assert (plain.ids, plain.groups) == (["p0", "p1", "p2"], ["g", "g", "h"])
    np.testing.assert_array_equal(plain.target, [[1, 0], [np.nan, np.nan], [0, 1]])
    np.testing.assert_array_equal(plain.labels, [0, -1, 1])
    assert plain.predicted.tolist() == [[True, False], [False, True], [True, False]]
    assert plain.probabilities.tolist() == [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]
    assert plain.confusion.tolist() == [[1, 0], [1, 0]]
    assert plain.places["p2"] == 2


def test_several_classes_per_picture_where_none_is_not_unknown(read):
    (found,) = read(
        "p0,g,val,plain,classification,a|b,a,0,0.1,0.9,0.1",
        "p1,g,val,plain,classification,,,1,0.1,0.1,0.1",
        "p2,g,val,plain,classification,,b,,,0.1,0.9",
        several=True,
    ).values()
    np.testing.assert_array_equal(found.target, [[1, 1], [0, 0], [np.nan, np.nan]])
    assert found.predicted.tolist() == [[True, False], [False, False], [False, True]]
    assert found.confusion is None
    assert picture_counts(found).right.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["p0,g,val,plain,classification,c,a,0,0.1,0.9,0.1"], "should hold the classes a, b. Found `c`"),
        (["p0,g,val,plain,classification,a|b,a,0,0.1,0.9,0.1"], "Found `a|b`"),
        (["p0,g,val,plain,classification,a,a,1,0.1,high,0.1"], "should hold numbers as probabilities"),
        (["p0,g,val,plain,classification,a,a,1,0.1,0.9,0.1"] * 2, "each picture once. Found one twice in val, plain"),
    ],
)
def test_what_is_wrong_is_named(read, lines, reason):
    with pytest.raises(DataError) as error:
        read(*lines)
    assert reason in str(error.value)


def test_missing_columns_and_files(read, tmp_path):
    with pytest.raises(DataError, match=r"should have the columns correct, probability/b"):
        read("p0", head="id,group,part,inference,head,target,prediction,probability/a")
    (tmp_path / "image_predictions.csv").write_text("")
    with pytest.raises(DataError, match=r"image_predictions\.csv` cannot be read"):
        read_image_predictions(tmp_path, "classification", ["a"], False)
    (tmp_path / "image_predictions.csv").unlink()
    with pytest.raises(DataError, match=r"image_predictions\.csv` is missing"):
        read_image_predictions(tmp_path, "classification", ["a"], False)
