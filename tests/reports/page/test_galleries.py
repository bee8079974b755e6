import pytest

from hsl.reports.models import models_of
from hsl.reports.page.failure_gallery import KINDS, failure_counts, failure_gallery, failures_of, worst
from hsl.reports.page.galleries import chosen, galleries, run_of, stored_pictures
from hsl.reports.tables.run_tables import picture_table
from hsl.run_folder.run import ScoredOn, gather, read_run
from hsl.run_folder.stored_counts import ObjectRow

CLASSES = ["background", "crack", "stain"]


@pytest.fixture
def models(tmp_path):
    return lambda: models_of(gather([str(tmp_path / "outputs")]), ["name", "fold", "seed"], "encoder.name")


def test_no_picture_is_chosen_twice_and_the_easy_ones_are_not_the_best():
    scores = {f"p{i}": {"m": i / 10, "n": i / 10} for i in range(10)} | {"odd": {"m": 0.9, "n": 0.1}}
    picked = chosen(scores, 2, blank=["p9"])
    assert picked == {"best": ["p8", "p7"], "worst": ["p0", "p1"], "disputed": ["odd"]}
    assert chosen({}, 2) == {"best": [], "worst": [], "disputed": []}
    assert chosen(scores, 0) == {"best": [], "worst": [], "disputed": []}


def test_all_models_stand_side_by_side(make_full_runs, models):
    make_full_runs({"a": 0.9, "b": 0.3}, num_folds=2)
    shown = galleries(models(), CLASSES, 2)
    assert [len(each) for each in shown.values()] == [2, 2, 2]
    for one in (one for each in shown.values() for one in each):
        assert [(view.title, view.model) for view in one.views] == [
            ("input", ""),
            ("truth", ""),
            *[(title, label) for label in ("a", "b") for title in ("prediction", "boundary")],
        ]
        assert all(view.uri.startswith("data:image/") for view in one.views)
        assert one.classes == CLASSES
        assert one.group.startswith("site")
    assert "mIoU" in shown["worst"][0].views[2].note


def test_a_map_that_is_missing_leaves_a_gap(make_full_runs, models):
    folders = make_full_runs({"a": 0.9, "b": 0.3}, num_folds=1)
    for path in [*folders["b"][0].glob("predictions/*/*/*.png"), *folders["b"][0].glob("predictions/*_prediction.png")]:
        path.unlink()
    one = galleries(models(), CLASSES, 1)["best"][0]
    assert [view.uri is None for view in one.views] == [False, False, False, False, True, True]
    assert "not stored" in one.views[-1].alt


def test_runs_from_before_class_maps_show_their_own_best_and_worst(make_full_runs, models):
    folder = make_full_runs({"a": 0.9}, num_folds=1)["a"][0]
    for path in folder.glob("predictions/classes/*/*.png"):
        path.unlink()
    table = (folder / "per_image.csv").read_text().splitlines()
    place = table[0].split(",").index("prediction")
    rows = [",".join(cell for i, cell in enumerate(line.split(",")) if i != place) for line in table]
    (folder / "per_image.csv").write_text("\n".join(rows))
    assert all(view.uri for view in galleries(models(), CLASSES, 1)["worst"][0].views)


def test_a_picture_that_one_model_did_not_score_is_not_compared(make_full_runs, models):
    folders = make_full_runs({"a": 0.9, "b": 0.3}, num_folds=2)
    for path in folders["b"][1].iterdir():
        if path.is_file():
            path.unlink()
    two = models()
    assert len(stored_pictures(two)) == 8
    assert {one.id[1] for each in galleries(two, CLASSES, 4).values() for one in each} == {"0"}
    model = next(model for model in two if model.label == "b")
    assert run_of(model, "val", "p1_0") is None


def failures(**kinds):
    counts = {kind: [0, 0, 0] for kind in KINDS}
    objects = []
    for kind, areas in kinds.items():
        counts[kind] = [0, len(areas), 0]
        objects += [{"kind": kind, "side": "target", "class": 1, "area": a, "box": [0, 0, 2, a]} for a in areas]
    return {"false_negatives": counts, "false_positives": {}, "objects": objects}


def row(name, told):
    return ObjectRow.model_validate({"id": name, "metrics": {"failures": told}, "errors": {}})


def test_the_worst_pictures_of_a_kind_have_the_most_objects_then_the_largest():
    rows = [
        row("a", failures(missed=[5])),
        row("b", failures(missed=[3, 3], swap=[1])),
        row("c", failures(missed=[9])),
        row("d", None),
    ]
    found = failures_of(rows)
    assert [one.id for one in worst(found, "missed", 5)] == ["b", "c", "a"]
    assert [one.id for one in worst(found, "missed", 1)] == ["b"]
    assert worst(found, "merge", 1) == []
    assert worst(found, "missed", 1)[0].target == [(0, 0, 2, 3), (0, 0, 2, 3)]
    assert worst(found, "missed", 1)[0].classes == [1]
    assert failure_counts(rows) == {
        "missed": (4, 0),
        "spurious": (0, 0),
        "merge": (0, 0),
        "split": (0, 0),
        "swap": (1, 0),
    }


def test_the_failure_gallery_draws_what_the_pool_found(make_full_runs, models):
    make_full_runs({"a": 0.9, "b": 0.1}, num_folds=2)
    gallery = failure_gallery(models(), CLASSES, "val")
    assert list(gallery) == list(KINDS)
    assert sum(len(shown) for shown in gallery.values()) > 5
    for one in (one for shown in gallery.values() for one in shown):
        assert [view.title for view in one.views] == ["input", "truth", "prediction"]
        assert all(view.uri for view in one.views)
        assert one.models in (["a"], ["b"])
        assert set(one.classes) <= set(CLASSES[1:])
    assert len({(one.id, *one.models) for one in gallery["missed"]}) == len(gallery["missed"])
    assert failure_gallery(models(), CLASSES, "test") == {kind: [] for kind in KINDS}


def test_a_failure_in_a_picture_without_stored_input_says_so(make_full_runs, models):
    folder = make_full_runs({"a": 0.1}, num_folds=1)["a"][0]
    (folder / "predictions" / "index.csv").unlink()
    one = next(one for shown in failure_gallery(models(), CLASSES, "val").values() for one in shown)
    assert [view.uri is None for view in one.views] == [True, True, False]
    assert one.views[0].alt == "the input is not stored"


def test_the_picture_table_puts_the_hardest_first(make_full_runs, models):
    make_full_runs({"a": 0.9, "b": 0.3}, num_folds=1)
    table = picture_table(models(), ScoredOn("val"))
    means = [line[-2] for line in table.rows]
    assert means == sorted(means)
    assert len(means) == 4
    for _, group, first, second, mean, gap in table.rows:
        assert mean == pytest.approx((first + second) / 2)
        assert gap == pytest.approx(abs(first - second))
        assert group.startswith("site")
    assert picture_table(models(), ScoredOn("test")).rows == []


def test_links_out_of_a_run_folder_are_not_followed(make_full_runs, models, tmp_path):
    """The page would carry pictures of this machine that the run never made."""
    folder = make_full_runs({"a": 0.9}, num_folds=1)["a"][0]
    inputs = sorted(folder.glob("predictions/*_input.png"))
    inputs[0].rename(tmp_path / "secret.png")
    inputs[0].symlink_to(tmp_path / "secret.png")
    for path in folder.glob("predictions/classes/*/*.png"):
        path.unlink()
        path.symlink_to(tmp_path / "secret.png")
    found = stored_pictures(models())
    assert len(found) == len(inputs) - 1
    assert inputs[0] not in [one.input for one in found.values()]


def test_a_task_that_is_a_path_is_not_read(make_run, add_tasks, tmp_path):
    folder = make_run()
    add_tasks(folder, {"genus": 0.5})
    text = (folder / "metrics.json").read_text().replace('"genus"', '"/../../../elsewhere"')
    (folder / "metrics.json").write_text(text)
    run = read_run(folder)
    assert any("should name a file below" in problem for problem in run.problems)
