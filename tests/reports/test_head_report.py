import json
import math
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from hsl.errors import ConfigError
from hsl.reports.models import models_of
from hsl.reports.plots.plot_files import save_plots
from hsl.reports.statistics.comparisons import compare
from hsl.reports.statistics.paired_tests import Interval, Summary
from hsl.reports.statistics.ranking import ranked, ranking_table
from hsl.reports.statistics.resampling import Estimate
from hsl.reports.tables.class_tables import per_class_table, thresholds_table
from hsl.reports.tables.comparison_tables import pairwise_table
from hsl.reports.tables.run_tables import folds_table
from hsl.run_folder.run import ScoredOn, gather
from hsl.verbs.report import report

pytestmark = pytest.mark.usefixtures("undrawn")

CONF = Path(__file__).parents[2] / "conf"


@pytest.fixture
def run_report(tmp_path, monkeypatch):
    monkeypatch.setattr("hsl.reports.report.save_plots", lambda plots, *rest: save_plots(plots[:1], *rest))

    def run(*overrides):
        common = [f"runs={tmp_path}/outputs/*", f"output={tmp_path}/report", "resamples=200"]
        with initialize_config_dir(str(CONF), version_base="1.3"):
            page = report(compose("report", [*common, *overrides]))
        results = json.loads((page.parent / "cv_results.json").read_text())
        return page.read_text(encoding="utf8"), results, sorted(path.stem for path in page.parent.glob("tables/*.md"))

    return run


IMAGE_TABLES = ["image_folds", "image_pairwise", "image_per_class", "image_ranking"]


def test_classifiers_alone(make_run, add_image_head, run_report, capsys):
    for fold in range(2):
        for name, skill in (("a", 0.2), ("b", 1.0)):
            add_image_head(make_run(name, name, fold), fold, skill, dense=False)
    make_run("d", "d", 0, status="failed")
    text, results, tables = run_report()
    assert tables == IMAGE_TABLES
    assert "mIoU" not in text.partition('id="definitions"')[0]
    assert "ranked by accuracy (%) of the image heads on val" in text
    for absent in ("ranking", "pairs", "classes", "calibration", "confusion", "pictures", "failures"):
        assert f'id="{absent}"' not in text
        assert f'href="#{absent}"' not in text
    assert 'id="plot-image_confusion_01_b"' in text
    assert 'id="plot-curves"' in text
    first = results["image_heads"]["models"][0]
    assert (first["label"], first["rank"], first["classes"]) == ("b", 1, ["healthy", "miner", "rust"])
    assert first["parts"]["val"]["plain"]["pooled"]["accuracy"] == 1.0
    (pair,) = results["image_heads"]["comparisons"]
    assert (pair["first"], pair["second"], pair["num_images"]) == ("b", "a", 8)
    assert "100.00 ± 0.00" in capsys.readouterr().out


@pytest.mark.slow
def test_dual_heads_classifiers_and_dense_models_together(make_run, add_image_head, run_report):
    make_run("a", "a", 0)
    add_image_head(make_run("b", "b", 0), 0, 0.9)
    add_image_head(make_run("c", "c", 0), 0, 0.4, dense=False)
    text, results, tables = run_report("image_metric=macro_f1")
    assert set(IMAGE_TABLES) <= set(tables)
    assert "pairwise" in tables
    assert "ranked by mIoU (%), macro F1 (%) of the image heads on val" in text
    assert [model["label"] for model in results["models"]] == ["a", "b", "c"]
    assert results["models"][2]["parts"]["val"]["plain"] is None
    assert [model["label"] for model in results["image_heads"]["models"]] == ["b", "c"]
    assert [(one["first"], one["second"]) for one in results["comparisons"]] == [("a", "b")]
    ranking = text.partition('id="table-ranking"')[2].partition("</table>")[0]
    assert ">c<" not in ranking
    images = text.partition('id="table-image_ranking"')[2].partition("</table>")[0]
    assert ">c<" in images
    assert ">a<" not in images
    assert "Models without a dense head" in text


def test_dense_models_alone_have_nothing_of_image_heads(make_run, run_report):
    make_run()
    text, results, tables = run_report()
    assert "image head" not in text.lower()
    assert "image_heads" not in results
    assert not any(name.startswith("image") or name == "phases" for name in tables)


def test_several_classes_the_test_part_phases_and_events(make_run, add_image_head, run_report):
    for fold in range(2):
        folder = add_image_head(make_run("a", "a", fold), fold, several=True, dense=False)
        add_image_head(folder, fold, several=True, part="test")
        (folder / "phases.json").write_text(json.dumps({"A": {"status": "finished", "epochs": 3}}))
    (folder / "rollback.json").write_text(json.dumps({"decision": "reverted", "metric": "val/accuracy"}))
    (folder / "oom.json").write_text(json.dumps([{"micro_batch_before": 8, "micro_batch_after": 2}]))
    text, results, tables = run_report("image_metric=exact_match")
    assert {"image_thresholds", "image_ranking_test", "phases"} <= set(tables)
    for place in ("table-phases", "table-image_thresholds", "table-image_ranking_test"):
        assert text.count(f'id="{place}"') == 1
    assert "a (reverted in fold 1)" in text
    assert "the rollback gate restored earlier weights" in text
    assert "the micro-batch fell from 8 to 2 in 1 event" in text
    assert results["image_heads"]["models"][0]["parts"]["test"]["plain"]["over_folds"]["exact_match"]["num"] == 2


def test_the_folds_of_one_model_may_read_labels_and_weights_of_their_own_fold(make_run, add_image_head, run_report):
    for fold in range(2):
        labels = {"_target_": "hsl.data.labels.pseudo_labels.PseudoLabels", "folder": f"outputs/labels/fold{fold}"}
        requested = f"outputs/cls/fold{fold}/2026-01-01_00-00-00/checkpoints/best.ckpt"
        used = {"requested": requested, "source": "file:best.ckpt", "sha256": str(fold) * 64}
        config = {"data": {"labels": labels}, "encoder": {"name": "a", "weights": requested}}
        add_image_head(make_run("a", fold=fold, config=config, provenance={"weights_used": used}), fold)
    _, results, _ = run_report()
    (model,) = results["models"]
    assert (model["folds"], model["initialisation"]) == ([0, 1], "file:outputs/cls/fold*/checkpoints/best.ckpt")


def test_an_unknown_metric(make_run, run_report):
    with pytest.raises(ConfigError, match=r"`image_metric` should be one of accuracy, .* Found `image_metric = f2`"):
        run_report("image_metric=f2")


RIGHT, WRONG = [0.8, 0.1, 0.1], [0.1, 0.8, 0.1]
HEALTHY = np.zeros(4, dtype=int)


@pytest.fixture
def models(tmp_path):
    def found():
        runs = gather([str(tmp_path / "outputs")])
        return [model.on_images() for model in models_of(runs, ["name", "fold", "seed"], "encoder.name")]

    return found


@pytest.fixture
def head(make_run, add_image_head):
    def make(name, fold, right, **options):
        given = (HEALTHY, np.array([RIGHT if one == "1" else WRONG for one in right]))
        return add_image_head(make_run(name, name, fold), fold, given=given, dense=False, **options)

    return make


def cells(table, key):
    return [row[[column.key for column in table.columns].index(key)] for row in table.rows]


def test_the_ranking_by_mean_pools_out_of_fold_and_ranks_only_what_is_complete(head, models, make_run):
    for fold in range(2):
        head("a", fold, "1100")
        head("b", fold, ("1111", "1000")[fold])
    head("c", 0, "1111")
    make_run("d", "d", 0, status="failed")
    ranking = ranked(models(), "accuracy", ScoredOn("val"))
    assert [(rank, model.label) for rank, model in ranking] == [
        (1, "b"),
        (2, "a"),
        (None, "c"),
        (None, "d (none finished)"),
    ]
    table = ranking_table(ranking, ScoredOn("val"), "accuracy", {"b": Estimate(0.6, 9, Interval(0.6, 0.5, 0.755))})
    assert cells(table, "accuracy")[:2] == [
        Summary(0.625, pytest.approx(0.75 / math.sqrt(2)), 2),
        Summary(0.5, 0.0, 2),
    ]
    assert cells(table, "accuracy_pooled") == [0.625, 0.5, 1.0, None]
    assert cells(table, "macro_f1_pooled")[0] == pytest.approx(5 / 13)
    assert cells(table, "interval") == ["[50.00, 75.50]", None, None, None]
    assert cells(table, "folds") == ["2 of 3", "2 of 3", "1 of 3", "0 of 3"]
    assert table.texts[0][2] == "62.50 ± 53.03"
    assert table.texts[3][2] == "–"
    keys = [column.key for column in table.columns]
    assert "exact_match" not in keys
    assert "accuracy_tta" not in keys


def test_the_test_part_is_not_pooled(make_run, add_image_head, models):
    given = (np.array([0, 1]), np.array([RIGHT, RIGHT]))
    for fold in range(2):
        add_image_head(make_run(fold=fold), fold, part="test", given=given)
    table = ranking_table(ranked(models(), "accuracy", ScoredOn("test")), ScoredOn("test"), "accuracy")
    assert table.name == "image_ranking_test"
    assert cells(table, "accuracy") == [Summary(0.5, 0.0, 2)]
    assert "accuracy_pooled" not in [column.key for column in table.columns]
    classes = per_class_table(models(), ScoredOn("test"))
    assert cells(classes, "support") == [1, 1, 0]  # the same two pictures in both folds


def test_per_class(head, models):
    head("a", 0, "1110")
    head("a", 1, "1111")
    table = per_class_table(models(), ScoredOn("val"))
    assert cells(table, "class") == ["healthy", "miner", "rust"]
    assert cells(table, "support") == [8, 0, 0]
    healthy, miner, rust = cells(table, "f1")
    assert healthy == Summary(pytest.approx((6 / 7 + 1) / 2), pytest.approx((1 / 7) / math.sqrt(2)), 2)
    assert (miner.mean, miner.num) == (0.0, 1)  # in fold 1 neither in truth nor in prediction
    assert rust.num == 0
    assert table.texts[2][3:] == ["–"] * 5
    assert table.texts[1][5] == "0.00 (1 fold)"


def test_folds_name_the_value_that_was_monitored(head, models):
    head("a", 1, "1110")
    table = folds_table(models(), "val")
    assert cells(table, "fold") == ["0", "1", "2"]
    assert cells(table, "status") == ["no run folder", "finished", "no run folder"]
    assert cells(table, "accuracy") == [None, 0.75, None]
    assert cells(table, "monitor")[1] == "val/accuracy"
    assert cells(table, "monitored")[1] == 0.5
    assert not any("mIoU" in column.title for column in table.columns)


def test_a_reverted_run_is_marked_in_every_table(head, models):
    folder = head("a", 0, "1110")
    (folder / "rollback.json").write_text('{"decision": "reverted"}')
    (model,) = found = models()
    assert model.label == "a (reverted)"
    assert cells(folds_table(found, "val"), "status")[0] == "finished, reverted"
    assert cells(folds_table(found, "val"), "status")[0] == "finished, reverted"
    assert cells(per_class_table(found, ScoredOn("val")), "model") == ["a (reverted)"] * 3


def test_thresholds_and_exact_match_of_several_classes(make_run, add_image_head, models):
    for fold in range(2):
        add_image_head(make_run(fold=fold), fold, several=True)
    table = thresholds_table(models(), "val")
    assert cells(table, "class") == ["healthy", "miner", "rust"]
    assert cells(table, "threshold") == [Summary(0.5, 0.0, 2)] * 3
    assert table.texts[0][2:] == ["0.5000 ± 0.0000", "0.5000", "0.5000"]
    ranking = ranking_table(ranked(models(), "exact_match", ScoredOn("val")), ScoredOn("val"), "exact_match")
    assert 0 <= cells(ranking, "exact_match")[0].mean <= cells(ranking, "accuracy")[0].mean


def test_no_thresholds_with_one_class_per_picture(head, models):
    head("a", 0, "1110")
    assert thresholds_table(models(), "val") is None


def test_pairs(head, models):
    head("a", 0, "1111")
    head("b", 0, "0001")
    (folder := head("c", 0, "0001")).joinpath("image_predictions.csv").unlink()
    assert folder.exists()
    table = pairwise_table(compare(models(), ScoredOn("val"), 200, 0, "accuracy"), "accuracy", "image_pairwise")
    first, second, _ = table.rows
    assert first[:3] == ["a", "b", "too few independent groups to say (2; at least 6)"]
    assert cells(table, "difference")[0] == 0.75
    assert table.texts[0][4] == "+75.00"
    assert cells(table, "wins") == [3, None, None]
    assert cells(table, "mcnemar_holm_p")[0] == 0.25
    assert second[2].startswith("not paired: c has no complete image predictions")
