"""`hsl analyze` on two classifiers that were never trained; everything else of their run folders is real."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from hsl.data.datamodule import DataModule
from hsl.errors import ConfigError
from hsl.verbs.analyze.analyze import analyze
from hsl.verbs.analyze.analyzed_runs import OpenedRun, run_labels
from hsl.verbs.opening.building import build_task, facts_of

Make = Callable[..., DictConfig]
KINDS = ["crack", "scratch", "paint_loss", "stain", "puncture"]

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*", "ignore:.*have no pixel in the training part.*")


def make_run(folder: Path, tiny: Make, *overrides: str, always: str | None = None) -> Path:
    """The folder of a run that was finished before its first step; it may be made to say ``always`` the same."""
    cfg = tiny("task=classifier", "loss=image_ce", "data.image_labels=label", "monitor=val/accuracy", *overrides)
    data: DataModule = instantiate(cfg.data)
    data.prepare()
    facts = {
        **facts_of(data.prepared),
        "split_sha256": data.prepared.fold_assignment.sha256,
        "fold": data.prepared.fold,
    }
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(cfg, resolve=True))
    (folder / "provenance.json").write_text(json.dumps(facts))
    (folder / "splits.json").write_text(data.prepared.fold_assignment.to_json())
    torch.manual_seed(0)
    state = build_task(cfg, data.prepared).state_dict()
    if always is not None:
        state["network.heads.classification.classify.bias"][
            data.prepared.image_classes["classification"].index(always)
        ] = 50
    torch.save({"state_dict": state}, folder / "checkpoints" / "best.ckpt")
    return folder


@pytest.fixture(scope="module")
def runs(module_tiny: Make, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("runs")
    other = ("encoder=efficientnet_lite0", "encoder.weights=null", "data.image_size=96")
    return [make_run(root / "mit", module_tiny), make_run(root / "lite", module_tiny, *other, always="paint_loss")]


def analysed(tiny: Make, output: Path, runs: list[Path], *overrides: str) -> dict[str, Any]:
    named = ",".join(str(run) for run in runs)
    analyze(tiny(f"runs=[{named}]", f"output={output}", "examples=2", *overrides, verb="analyze"))
    page: dict[str, Any] = json.loads((output / "analysis.json").read_text())
    return page


def test_two_classifiers(tiny: Make, tmp_path: Path, runs: list[Path], drawn: None) -> None:
    output = tmp_path / "analysis"
    page = analysed(tiny, output, runs)
    val = json.loads((runs[0] / "splits.json").read_text())["folds"][0]["val"]
    assert page["num_pictures"] == len(val) == sum(page["classes"].values())
    assert {name for names in page["examples"].values() for name in names} <= set(val)
    assert [run["encoder"] for run in page["runs"]] == ["mit_b0", "tu-tf_efficientnet_lite0.in1k"]
    first, second = page["runs"]
    assert (set(first["stages"]), set(second["stages"])) == ({*"48", "16", "32"}, {*"248", "16", "32"})
    for run in page["runs"]:
        found = run["attention"]
        assert (found["paint_loss"]["num_pictures"], found["paint_loss"]["share"]) == (0, None)  # none in this part
        for name, one in found.items():
            assert one["num_pictures"] + one["left_out"] == page["classes"][name]
            assert one["share"] is None or 0 <= one["share"] <= 1
        assert 0 < found["stain"]["area"] < 1
    table = pd.read_csv(output / "errors.csv", keep_default_na=False)
    wrong = [set(table.loc[table[f"prediction/{run['label']}"] != table["target"], "id"]) for run in page["runs"]]
    assert [len(one) for one in wrong] == [run["num_wrong"] for run in page["runs"]]
    assert set(page["errors"]["wrong_in_all"]) == wrong[0] & wrong[1]
    assert set(page["errors"]["wrong_in_one"][first["label"]]) == wrong[0] - wrong[1]
    assert second["num_wrong"] == page["num_pictures"] - page["classes"]["paint_loss"] == 8
    assert page["notes"] == ["no picture of the part shows paint_loss."]
    assert page["errors"]["overlap"][0][1] == pytest.approx(len(wrong[0] & wrong[1]) / len(wrong[0] | wrong[1]))
    alike = np.array(page["feature_similarity"])
    assert alike.diagonal() == pytest.approx([1, 1])
    assert alike[0, 1] == alike[1, 0] < 1
    table = pd.read_csv(output / "feature_similarity.csv", index_col="run")
    assert table.to_numpy() == pytest.approx(alike)
    assert not [key for key in page["files"] if key.startswith("confused")]  # two classes: the errors say it all
    for name in [run["heat_maps"] for run in page["runs"]] + [*page["files"].values()]:
        assert (output / name).is_file(), name
        assert name.endswith(".csv") or f"]({name})" in (output / "index.md").read_text()
        if name.endswith(".png"):
            with Image.open(output / name) as picture:
                assert np.asarray(picture).std() > 0, name


def test_a_chart_of_the_confused_classes_where_there_are_three(tiny: Make, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", tiny, "data.image_labels=material", always="wood")
    page = analysed(tiny, tmp_path / "analysis", [run])
    name = page["files"]["confused_01"]
    assert (
        f"![classes that {page['runs'][0]['label']} confuses most]({name})"
        in (tmp_path / "analysis" / "index.md").read_text()
    )
    table = pd.read_csv(tmp_path / "analysis" / name.replace(".png", ".csv"))
    assert set(table["predicted class"]) == {"wood"}
    assert table["pictures"].sum() == page["runs"][0]["num_wrong"]


def test_bad_input_is_refused_before_anything_is_written(
    tiny: Make, tmp_path: Path, runs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    output, broken = tmp_path / "analysis", tmp_path / "unlike"
    monkeypatch.setattr("hsl.verbs.analyze.analyze.look_into", lambda *_: pytest.fail("a run was loaded"))
    cases: list[tuple[list[Path], tuple[str, ...], str]] = [
        (runs, ("part=test",), r"train or val\. Found `part = test`.*hsl evaluate"),
        (runs, ("examples=0",), "integer from 1 up"),
        (runs, (f"output={runs[0]}",), "should neither be nor hold"),
        ([], (), r"Found none"),
        ([runs[0], runs[0]], (), "each run folder once"),
        ([tmp_path / "nowhere"], (), "no config.yaml"),
        ([runs[0], broken], (), "has no head for the class of a picture"),
    ]
    broken.mkdir()
    cfg: Any = OmegaConf.load(runs[1] / "config.yaml")
    dense = cfg.copy()
    dense.task.network.heads = {"segmentation": dense.task.network.heads.classification}
    (broken / "config.yaml").write_text(OmegaConf.to_yaml(dense))
    for chosen, overrides, message in cases:
        with pytest.raises(ConfigError, match=message):
            analysed(tiny, output, chosen, *overrides)
    (broken / "config.yaml").write_text(OmegaConf.to_yaml(cfg))
    facts = json.loads((runs[1] / "provenance.json").read_text())
    facts["image_classes"]["classification"][0], facts["fold"] = "spotless", 2
    (broken / "provenance.json").write_text(json.dumps(facts))
    with pytest.raises(ConfigError, match=r"has no splits\.json.*has no checkpoints/best\.ckpt"):
        analysed(tiny, output, [runs[0], broken])
    (broken / "checkpoints").mkdir()
    (broken / "checkpoints" / "best.ckpt").touch()
    split = (runs[1] / "splits.json").read_text()
    (broken / "splits.json").write_text(split.replace('"test": [', '"test": ["another", '))
    with pytest.raises(ConfigError, match=r"(?s)fold assignment.*fold 2.*image classes \['spotless'"):
        analysed(tiny, output, [runs[0], broken])
    with pytest.raises(ConfigError, match="another"):  # the data are not those of the run any more
        analysed(tiny, output, [broken])
    assert not output.exists()


def test_several_classes_per_picture_and_a_checkpoint_that_is_broken(tiny: Make, tmp_path: Path) -> None:
    several = ("loss=focal_multilabel", f"data.image_labels=[{','.join(KINDS)}]", "name=both")
    run = make_run(tmp_path / "run", tiny, *several)
    with pytest.raises(ConfigError, match=r"has no metrics\.json"):
        analysed(tiny, tmp_path / "out", [run])
    thresholds = dict.fromkeys(KINDS, 0.999)
    head = {"classification": {"kind": "multi", "num_images": 1, "thresholds": thresholds}}  # so that it says none
    monitor = {"name": "val/macro_f1", "mode": "max", "value": 0.5, "epoch": 0}
    scores = {
        "classes": [],
        "image_classes": {"classification": KINDS},
        "parts": {"val": {"plain": {"image_heads": head}}},
    }
    (run / "metrics.json").write_text(json.dumps({"monitor": monitor, **scores}))
    page = analysed(tiny, tmp_path / "out", [run], "part=train")
    assert page["part"] == "train"
    assert page["runs"][0]["label"] == "both"
    data: DataModule = instantiate(OmegaConf.load(run / "config.yaml").data)
    data.prepare()
    pictures = Path(
        data.prepared.catalogue.records[0].image.name
    ).parent  # the root may hold other data sets beside this one
    labels = pd.read_csv(pictures.parent / "labels.csv").set_index("id").loc[:, KINDS]
    train = json.loads((run / "splits.json").read_text())["folds"][0]["train"]
    shown = labels.loc[train]
    assert page["classes"] == shown.sum().to_dict()
    assert page["runs"][0]["num_wrong"] == (shown.sum(axis=1) > 0).sum()
    with Image.open(tmp_path / "out" / page["files"]["wrong_in_all"]) as picture:
        assert np.asarray(picture).std() > 0
    (run / "checkpoints" / "best.ckpt").write_bytes(b"")
    with pytest.raises(ConfigError, match="should be a checkpoint"):
        analysed(tiny, tmp_path / "again", [run])
    assert not (tmp_path / "again").exists()


def test_labels_are_as_short_as_they_can_be() -> None:
    def opened(path: str, name: str) -> OpenedRun:
        return OpenedRun(path, Path(path), OmegaConf.create({"name": name}))

    assert run_labels([opened("/o/a/fold0/1", "a"), opened("/o/b/fold0/1", "b")]) == ["a", "b"]
    assert run_labels([opened("/o/a/fold0/1", "a"), opened("/o/a/fold0/2", "a")]) == ["a/fold0/1", "a/fold0/2"]
    assert run_labels([opened("/o/a/fold0/1", "a"), opened("/p/a/fold0/1", "a")]) == ["/o/a/fold0/1", "/p/a/fold0/1"]
