import json

import pytest

from hsl.reports.gather import gather
from hsl.reports.models import models_of
from hsl.reports.page.notes import notes_on
from hsl.run_folder.run import ScoredOn


@pytest.fixture
def notes(tmp_path):
    def run(part="val"):
        runs = gather([str(tmp_path / "outputs")])
        return notes_on(runs, models_of(runs, ["name", "fold", "seed"], "encoder.name"), ScoredOn(part))

    return run


def texts(notes, level):
    return [note.text for note in notes if note.level == level]


def test_a_mixture_says_who_is_left_out_of_what_and_warns_of_nothing_else(make_run, add_image_head, notes):
    make_run("a", "a")
    add_image_head(make_run("b", "b"), 0)
    add_image_head(make_run("c", "c"), 0, dense=False)
    found = notes()
    info = texts(found, "info")
    assert "Models without a dense head, so they are in no table or plot of pixels: c." in info
    assert "Models without an image head, so they are in no table or plot of image heads: a." in info
    assert not any("unlike class lists" in text or "contradicts" in text for text in texts(found, "warning"))
    assert not any("is missing" in text for text in info)


@pytest.mark.parametrize("dense", [True, False])
def test_alike_models_are_left_out_of_nothing(make_run, add_image_head, notes, dense):
    for name in "ab":
        add_image_head(make_run(name, name), 0, dense=dense)
    assert not any("Models without" in note.text for note in notes())


def test_unlike_classes_of_image_heads(make_run, add_image_head, notes):
    add_image_head(make_run("a", "a"), 0, dense=False)
    add_image_head(make_run("b", "b"), 0, dense=False, classes=["healthy", "miner", "mould"])
    assert any("unlike classes; their scores" in text for text in texts(notes(), "warning"))


def test_a_part_that_no_image_head_was_scored_on(make_run, add_image_head, notes):
    add_image_head(make_run("a", "a"), 0)
    assert "Image heads without scores on test, plain inference: a." in texts(notes("test"), "info")


@pytest.mark.parametrize(("name", "value", "warns"), [("accuracy", 0.123, True), ("macro_f1", None, False)])
def test_stored_scores_have_to_follow_from_the_predictions(make_run, add_image_head, notes, name, value, warns):
    folder = add_image_head(make_run("a", "a"), 0)
    page = json.loads((folder / "metrics.json").read_text())
    page["parts"]["val"]["plain"]["image_heads"]["classification"][name] = value
    (folder / "metrics.json").write_text(json.dumps(page))
    said = [text for text in texts(notes(), "warning") if "contradicts image_predictions.csv" in text]
    assert len(said) == warns
    assert all("accuracy 0.1230, but " in text for text in said)
