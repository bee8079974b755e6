import json
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from PIL import Image

from hsl.errors import ConfigError, DataError
from hsl.files.output_folder import MARKER
from hsl.reports.head_report import cv_results
from hsl.reports.models import models_of
from hsl.reports.page.notes import notes_on
from hsl.reports.plots.plot_files import save_plots
from hsl.reports.statistics.part_tests import PartCounts, compare_parts
from hsl.reports.statistics.ranking import ranked
from hsl.run_folder.provenance import PartTests, write_parts
from hsl.run_folder.run import ScoredOn, gather
from hsl.verbs.report import report

pytestmark = pytest.mark.usefixtures("undrawn")

CONF = Path(__file__).parents[2] / "conf"
FULL = [[50, 0, 0], [0, 50, 0], [0, 0, 0]]
HALF = [[50, 50, 0], [50, 50, 0], [0, 0, 0]]  # IoU 50 / 150 in both


@pytest.fixture
def run_report(tmp_path):
    def run(*overrides):
        common = [f"runs={tmp_path}/outputs/*", f"output={tmp_path}/report", "resamples=200"]
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return report(compose("report", [*common, *overrides]))

    return run


@pytest.fixture(autouse=True)
def _few_plots(monkeypatch):
    """Each plot is drawn once more for each of its three files; `test_plot_files` does that."""
    monkeypatch.setattr("hsl.reports.report.save_plots", lambda plots, *rest: save_plots(plots[:1], *rest))


def test_everything_is_written_and_the_ranking_printed(make_run, run_report, tmp_path, capsys, drawn):
    for fold in range(3):
        make_run("a", "a", fold)
        make_run("b", "b", fold, FULL, test=FULL)
    page = run_report()
    assert page == tmp_path / "report" / "index.html"
    names = sorted(str(path.relative_to(page.parent)) for path in page.parent.rglob("*") if path.is_file())
    tables = ["folds", "pairwise", "pairwise_classes", "per_class", "pictures", "ranking", "ranking_test", "variance"]
    assert [name for name in names if not name.startswith("plots/")] == [MARKER, "cv_results.json", "index.html"] + [
        f"tables/{table}.{suffix}" for table in tables for suffix in ("csv", "md", "tex")
    ]
    assert [name for name in names if name.startswith("plots/")] == [
        f"plots/ranking.{suffix}" for suffix in ("csv", "png", "svg")
    ]
    results = json.loads((page.parent / "cv_results.json").read_text())
    assert [model["label"] for model in results["models"]] == ["b", "a"]
    printed = capsys.readouterr().out
    assert str(page) in printed.replace("\n", "")
    assert "100.00 ± 0.00" in printed


def test_a_base_adds_an_ablation_table_and_a_wrong_one_stops_before_anything_is_written(
    make_run, run_report, add_image_head, tmp_path
):
    for fold in range(2):
        for name, matrix in (("a", None), ("b", FULL)):
            add_image_head(make_run(name, name, fold, matrix), fold, skill=0.5 + 0.4 * (name == "b"))
    with pytest.raises(ConfigError, match=r"`base` should be the label"):
        run_report("base=nobody")
    assert not (tmp_path / "report").exists()
    page = run_report("base=a")
    for name in ("ablation", "image_ablation"):
        first, other = (page.parent / "tables" / f"{name}.csv").read_text().splitlines()[1:]
        assert first.startswith("a,the base,")
        assert other.startswith("b,the encoder,")
        assert (page.parent / "tables" / f"{name}.tex").is_file()
    text = page.read_text()
    assert "Against the base" in text
    assert "Image heads against the base" in text


def test_of_two_data_sets_the_one_without_the_base_says_so(make_run, run_report):
    for name in "ab":
        make_run(name, name, provenance={"data": name})
    page = run_report("base=b")
    pages = [(folder / "index.html").read_text() for folder in sorted(page.parent.iterdir()) if folder.is_dir()]
    assert len(pages) == 2
    assert ["No model here is called b." in text for text in pages] == [True, False]


def test_the_comparison_of_the_parts_is_in_the_audit_section(make_run, run_report):
    shown = np.arange(40)[:, None] % 2 == [0, 1]
    parts = {"train": PartCounts(shown * 10, shown, shown | True), "val": PartCounts(shown * 10, shown, shown | True)}
    tests = compare_parts("segmentation", ["clean", "crack"], parts, "groups")
    write_parts(make_run("a", "a"), PartTests(data="walls", fold=0, unit="groups", tests=tests))
    page = run_report()
    assert "Pixels of the classes, train and val: alike" in page.read_text()
    assert "alike" in (page.parent / "tables" / "parts.csv").read_text()


def test_a_report_is_replaced_by_the_next_and_nothing_else_is(make_run, run_report, tmp_path):
    make_run("a", "a")
    make_run("b", "b", 0, FULL, test=FULL)
    page = run_report()
    assert (page.parent / "tables" / "ranking_test.csv").is_file()
    (tmp_path / "outputs" / "b").rename(tmp_path / "b")
    page = run_report()
    assert not (page.parent / "tables" / "ranking_test.csv").exists()  # of the report before
    page.write_text("corrected by hand")
    (page.parent / "notes.md").write_text("mine")
    for said in ("did not write: `index.html`, `notes.md`", "changed since: `index.html`"):
        with pytest.raises(ConfigError, match=said):
            run_report()
        (page.parent / "notes.md").unlink(missing_ok=True)
    assert page.read_text() == "corrected by hand"
    (page.parent / MARKER).unlink()
    with pytest.raises(ConfigError, match="an older version kept no list of its files; move such a folder away"):
        run_report()


def test_the_rows_of_the_metric_pool_become_tables(make_run, run_report, add_objects):
    add_objects(make_run("a", "a"))
    add_objects(make_run("b", "b", 0, FULL), shift=2)
    tables = run_report("metric=ece").parent / "tables"
    for name in ("objects", "distances", "clustering", "objects_groups", "distances_groups"):
        assert "a," in (tables / f"{name}.csv").read_text()
    assert "lower is better" in (tables / "pairwise.md").read_text()


def test_the_defaults_group_folds_seeds_and_paths_but_not_what_changes_numbers(make_run, run_report):
    common = {"data": {"root": "/a", "cache": "ram", "num_workers": 1}, "trainer": {"accelerator": "cpu"}}
    moved = {"data": {"root": "/b", "cache": "disk", "num_workers": 2}, "trainer": {"accelerator": "gpu"}}
    make_run("a", "a", 0, config=common)
    make_run("a", "a", 1, seed=3, config=moved)
    make_run("b", "a", 0, config={**common, "trainer": {"accelerator": "cpu", "precision": "bf16"}})
    results = json.loads((run_report().parent / "cv_results.json").read_text())
    assert sorted(len(model["folds"]) for model in results["models"]) == [1, 2]


def test_several_globs(make_run, run_report, tmp_path):
    make_run("a", "a")
    make_run("b", "b")
    make_run("c", "c")
    page = run_report(f"runs=[{tmp_path}/outputs/a,{tmp_path}/outputs/c]")
    results = json.loads((page.parent / "cv_results.json").read_text())
    assert sorted(model["label"] for model in results["models"]) == ["a", "c"]


def test_one_broken_folder_never_stops_the_report(make_run, run_report):
    make_run("a", "a")
    for name in (
        "config.yaml",
        "provenance.json",
        "metrics.json",
        "splits.json",
        "per_image.csv",
        "history.csv",
    ):
        (make_run(f"broken {name}", "b") / name).write_text("{")
    results = json.loads((run_report().parent / "cv_results.json").read_text())
    assert len(results["runs"]) == 7
    assert sum(run["status"] == "unreadable" for run in results["runs"]) == 3


def test_inference_and_metric_choose_the_ranking(make_run, run_report):
    make_run("a", "a", confusion=FULL, tta=[[1, 50, 0], [50, 1, 0], [0, 0, 0]])
    make_run("b", "b", tta=FULL)
    for overrides, best in ((["inference_name=tta"], "b"), (["metric=pixel_accuracy"], "a")):
        results = json.loads((run_report(*overrides).parent / "cv_results.json").read_text())
        assert results["models"][0]["label"] == best


def test_an_unknown_metric(make_run, run_report):
    with pytest.raises(ConfigError, match=r"`metric` should be one of miou, .* Found `metric = f2`"):
        run_report("metric=f2")


def test_no_runs(run_report):
    with pytest.raises(DataError, match=r"Found none for `.*/outputs/\*`"):
        run_report()


def test_tasks_and_their_weighting_have_a_section(make_run, add_tasks, add_weighting, run_report):
    for name, genus in (("a", 0.9), ("b", 0.6)):
        folder = add_tasks(make_run(name, name), {"genus": genus, "health": 1.2 - genus, "fish": 0.5})
        add_weighting(folder, {"genus": 8.0, "health": 1.0}, {("genus", "health"): [-0.4]})
    make_run("flat", "flat", 0, FULL)
    page = run_report("pareto=[fish,genus]")
    text = page.read_text(encoding="utf8")
    for name in ("task_scores", "pareto", "task_curves", "weights", "gradient_norms", "gradient_cosines"):
        assert text.count(f'id="plot-{name}"') == 1
    assert text.count('id="table-tasks"') == 1
    assert '<a href="#tasks">' in text
    assert "fish against genus" in text
    assert "gradient of genus (8) is 8.0 times that of health" in text
    results = json.loads((page.parent / "cv_results.json").read_text())
    by_label = {model["label"]: model for model in results["models"]}
    assert list(by_label["a"]["tasks"]) == ["genus", "health", "fish"]
    assert by_label["a"]["tasks"]["genus"]["val"]["plain"]["pooled"]["miou"] == pytest.approx((100 / 110 + 0.9) / 2)
    assert by_label["a"]["h_mean"]["val"]["plain"]["num"] == 1
    assert by_label["flat"]["tasks"] == {}
    assert "global,one head,3," in (page.parent / "tables" / "tasks.csv").read_text()
    with pytest.raises(ConfigError, match=r"`pareto` should name two of the tasks genus, health, fish"):
        run_report("pareto=[genus,coral]")


def test_models_of_one_head_have_no_section_of_tasks(make_run, run_report):
    make_run()
    page = run_report()
    assert 'id="tasks"' not in page.read_text(encoding="utf8")
    assert not (page.parent / "tables" / "tasks.csv").exists()


def test_plots_in_the_formats_and_at_the_resolution_asked_for(make_run, run_report, tmp_path, drawn):
    make_run("a", "a")
    run_report("dpi=300", "formats=[tiff,pdf]")
    files = list((tmp_path / "report" / "plots").iterdir())
    assert {path.suffix for path in files} == {".tiff", ".pdf", ".csv"}
    with Image.open(next(path for path in files if path.suffix == ".tiff")) as picture:
        assert round(float(picture.info["dpi"][0])) == 300
    for wrong in ("dpi=10", "formats=[gif]", "formats=[]", "dpi=fine"):
        with pytest.raises(ConfigError, match=f"`{wrong.split('=')[0]}` should be"):
            run_report(wrong)


def test_json_has_every_number_and_no_nan(make_run, tmp_path):
    make_run(fold=0, confusion=FULL, tta=HALF)
    (make_run("b", "b", 0) / "metrics.json").unlink()
    runs = gather([str(tmp_path / "outputs")])
    found = models_of(runs, ["name", "fold", "seed"], "encoder.name")
    ranking = ranked(found, "miou", ScoredOn("val"))
    page = cv_results(ranking, [], notes_on(runs, found, ScoredOn("val")), runs, ["val", "test"])
    text = json.dumps(page, allow_nan=False)
    first, second = json.loads(text)["models"]
    assert first["parts"]["val"]["plain"]["folds"]["miou"] == {"0": 1.0}
    assert first["parts"]["val"]["plain"]["over_folds"]["miou"] == {"mean": 1.0, "std": None, "num": 1}
    assert first["parts"]["val"]["tta"]["pooled"]["miou"] == pytest.approx(1 / 3)
    assert first["parts"]["val"]["plain"]["pooled"]["per_class"]["iou"] == [1.0, 1.0, None]
    assert first["parts"]["test"]["plain"] is None
    assert first["missing"] == {"1": "no run folder", "2": "no run folder"}
    assert second["rank"] is None
    assert "metrics.json` is missing" in second["missing"]["0"]
    assert [run["status"] for run in page["runs"]] == ["finished", "unreadable"]
