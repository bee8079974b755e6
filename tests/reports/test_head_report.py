import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from hsl.errors import ConfigError
from hsl.reports.plots.plot_files import save_plots
from hsl.reports.report import report

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
