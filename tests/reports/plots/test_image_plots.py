import re

import numpy as np
import pytest

from hsl.reports.gather import gather
from hsl.reports.models import models_of
from hsl.reports.plots.image_plots import image_plots
from hsl.run_folder.run import ScoredOn

RIGHT, WRONG = [0.8, 0.1, 0.1], [0.1, 0.8, 0.1]


@pytest.fixture
def plots(tmp_path):
    def draw(**options):
        runs = gather([str(tmp_path / "outputs")])
        models = [one.on_images() for one in models_of(runs, ["name", "fold", "seed"], "encoder.name")]
        places = {model.label: i for i, model in enumerate(models)}
        return image_plots(models, places, options.get("metric", "accuracy"), ScoredOn("val"))

    return draw


def texts(plot):
    return re.findall(r"<text[^>]*>([^<]*)</text>", plot.svg)


def test_all_plots_of_two_models(make_run, add_image_head, plots):
    truth = np.array([0, 0, 1, 2])
    for fold in range(2):
        add_image_head(make_run("a", "a", fold), fold, given=(truth, np.array([RIGHT, WRONG, WRONG, RIGHT])))
        add_image_head(make_run("b", "b", fold), fold, skill=0.5)
    found = plots()
    names = ["image_ranking", "image_per_class", "image_roc", "image_precision_recall"]
    each = [f"image_{kind}_0{model}" for model in ("1_a", "2_b") for kind in ("confusion", "confused")]
    assert list(found) == [*names, *each]
    ranking = {(label, what): value for label, what, value in found["image_ranking"].rows}
    assert ranking["a", "fold 0"] == 50
    assert "accuracy (%)" in texts(found["image_ranking"])
    confusion = found["image_confusion_01_a"]
    assert confusion.rows == [["healthy", 2, 2, 0], ["miner", 0, 2, 0], ["rust", 2, 0, 0]]
    bars = {(label, name): mean for label, name, mean, _ in found["image_per_class"].rows}
    assert bars["a", "healthy"] == pytest.approx(0.5)
    assert bars["a", "rust"] == 0.0
    assert not any("mIoU" in text for plot in found.values() for text in [*texts(plot), plot.caption])
    curve = [(x, y) for label, name, x, y in found["image_roc"].rows if (label, name) == ("a", "healthy")]
    assert curve == [(0, 0), (0.5, 0.5), (1, 1)]  # of 4 with and 4 without the class half are said to have it


def test_a_class_without_a_picture_is_a_row_that_says_so(make_run, add_image_head, plots):
    add_image_head(make_run(), 0, given=(np.zeros(4, dtype=int), np.array([RIGHT] * 4)))
    found = plots()
    (name,) = [name for name in found if name.startswith("image_confusion")]
    assert "no picture of this class" in texts(found[name])
    assert [mean for *_, mean, _ in found["image_per_class"].rows] == [1.0, None, None]
    assert found["image_roc"].rows == []  # every picture is healthy


def test_several_classes_have_no_confusion_matrix(make_run, add_image_head, plots):
    add_image_head(make_run(), 0, several=True)
    assert list(plots(metric="exact_match")) == [
        "image_ranking",
        "image_per_class",
        "image_roc",
        "image_precision_recall",
    ]


def test_without_predictions_only_what_the_stored_scores_tell(make_run, add_image_head, plots):
    (add_image_head(make_run(), 0) / "image_predictions.csv").unlink()
    assert list(plots()) == ["image_ranking", "image_per_class"]
