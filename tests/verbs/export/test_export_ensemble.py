"""`hsl export` of an ensemble: the members leave with what combines them, and say what `hsl predict` says."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from omegaconf import DictConfig
from tests.conftest import composed

from hsl.exporting import command_line
from hsl.exporting.runner import Runner
from hsl.run_folder.ensemble import read_ensemble, write_ensemble
from hsl.verbs.ensemble.ensemble import ensemble
from hsl.verbs.export.export import export
from hsl.verbs.predict.predict import predict
from hsl.verbs.serve import opener_of
from hsl.verbs.train.train import train

MEMBERS = [
    "encoder=generic", "encoder.name=tu-test_resnet", "encoder.weights=null", "task=dual_head", "loss=dual_head",
    "data.image_labels=label", "monitor=val/accuracy", "metrics=none", "callbacks.evaluation.num_examples=0",
    "callbacks.tta_evaluation=null", "trainer.max_epochs=1", "+trainer.limit_train_batches=2",
    "data.split.num_folds=2", "data.split.labels=label", "name=members",
]  # fmt: skip
RECOMMENDED = {"segmentation": "stacking/logistic", "classification": "votes/logit"}


@pytest.mark.extras
def test_an_ensemble_says_elsewhere_what_it_says_here(tiny: Callable[..., DictConfig], tmp_path: Path) -> None:
    for seed in (0, 1):
        for fold in (0, 1):
            cfg = tiny(*MEMBERS, f"seed={seed}", f"fold={fold}")
            train(cfg)
    common, made = [f"output_root={cfg.output_root}"], tmp_path / "made"
    words = ["heads=[image,dense]", "stages=[votes,stacking]", "num_parts=2", "resamples=50"]
    ensemble(composed([*common, *words, f"runs={cfg.output_root}/members", f"output={made}"], "ensemble"))
    page = read_ensemble(made)
    for head, name in RECOMMENDED.items():  # of both members, whatever so little training recommends
        page.heads[head].recommended = name
    write_ensemble(made, page)

    export(composed([*common, f"run={made}", f"output={tmp_path / 'leaves'}", "num_pictures=1"], "export"))
    manifest = Runner.open(tmp_path / "leaves").manifest
    assert [model.member for model in manifest.models] == [name for name in sorted(page.members) for _ in range(2)]
    assert {name: one.formula["kind"] for name, one in manifest.combinations.items()} == {
        "segmentation": "linear", "classification": "logit",
    }  # fmt: skip
    card = (tmp_path / "leaves" / "README.md").read_text()
    scores = [line.split(" | ")[3] for line in card.splitlines() if line.startswith("| fold")]
    assert "4 networks that are combined" in card
    assert scores.count("accuracy") == scores.count("mIoU") == 2  # of what combines them, a row a fold

    pictures = sorted(Path(cfg.data.root).glob("**/images/*"))[:3]
    (tmp_path / "pictures").mkdir()
    for path in pictures:
        (tmp_path / "pictures" / path.name).write_bytes(path.read_bytes())
    here, there = tmp_path / "here", tmp_path / "there"
    predict(composed([f"run={made}", f"input={tmp_path / 'pictures'}", f"output={here}"], "predict"))
    arguments = [str(tmp_path / "leaves"), *map(str, pictures), "--output", str(there), "--keep", "one"]
    assert command_line.main(arguments) == 0
    rows = {row["id"]: row["labels"]["classification"] for row in json.loads((there / command_line.TABLE).read_text())}
    with (here / "labels.csv").open(newline="") as file:
        labels = list(csv.DictReader(file))
    assert {row["id"] for row in labels} == rows.keys()
    for row in labels:
        told = rows[row["id"]]
        assert told["prediction"] == [row["prediction"]]
        for name, probability in told["probabilities"].items():
            assert probability == pytest.approx(float(row[f"probability/{name}"]), abs=1e-3)
        masks = [cv2.imread(str(place / "masks" / f"{row['id']}.png"), cv2.IMREAD_GRAYSCALE) for place in (here, there)]
        assert np.mean(masks[0] != masks[1]) <= 0.001

    images = [cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB) for path in pictures]
    answers = [
        opener_of(composed([f"model={model}"], "serve"))().predict_many(images) for model in (made, tmp_path / "leaves")
    ]
    for ours, theirs, row in zip(*answers, labels, strict=True):
        for head in ("segmentation", "classification"):
            np.testing.assert_allclose(ours.probabilities[head], theirs.probabilities[head], atol=5e-3)
        assert theirs.labels("classification") == [row["prediction"]]
