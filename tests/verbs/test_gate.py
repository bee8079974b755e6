"""A gate from trained folds to verdicts of `hsl predict`, a gold set, and what is refused on the way."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hydra.errors import InstantiationException
from omegaconf import DictConfig
from PIL import Image
from tests.conftest import composed
from tests.verbs._asserts import SMALL

from hsl.errors import ConfigError, DataError
from hsl.exporting.gate import Gate, GateModel
from hsl.exporting.generic_encoder import ENCODER
from hsl.files.split_file import read_split
from hsl.models.encoders import build_encoder
from hsl.run_folder.ensemble import read_ensemble, write_ensemble
from hsl.verbs.ensemble.ensemble import ensemble
from hsl.verbs.gate.gate import choose, gate
from hsl.verbs.gate.sample import draw, sample
from hsl.verbs.predict.predict import predict
from hsl.verbs.train.train import train

Make = Callable[..., DictConfig]
NORMAL = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LeafSpec.*", "ignore:.*does not have many workers.*", "ignore:Checkpoint directory.*",
    "ignore:.*have no pixel in the training part.*", "ignore:`tu-resnet10t",
)  # fmt: skip


@pytest.fixture(scope="module")
def runs(module_tiny: Make) -> Path:
    """Two folds of one model."""
    for fold in (0, 1):
        cfg = module_tiny(
            "task=dual_head", "loss=dual_head", "data.image_labels=label", *SMALL, "trainer.max_epochs=1",
            f"fold={fold}", "data.split.num_folds=2", "data.split.groups=null",
        )  # fmt: skip
        train(cfg)
    return Path(cfg.output_root)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an encoder for features, which a network would bring."""
    path = tmp_path_factory.mktemp("weights") / "resnet10t.pt"
    torch.manual_seed(3)
    encoder = build_encoder("tu-resnet10t.c3_in1k", weights=None, normalization=NORMAL)
    torch.save(encoder.body.state_dict(), path)
    return path


def gate_cfg(runs: Path, weights: Path, output: Path, *overrides: str) -> DictConfig:
    return composed(
        [
            f"runs='{runs}/*/*'", f"output={output}", "encoder=resnet10t", f"encoder.weights={weights}",
            "data.image_size=32", "min_miou=0", "coverage=0.6", "k=2", "percentile=20",
            f"cache_dir={runs.parent}/cache", *overrides,
        ],
        "gate",
    )  # fmt: skip


@pytest.fixture(scope="module")
def made(runs: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gate")
    (folder / "noise").mkdir()
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 256, (40, 50, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "noise" / f"{i}.png")
    gate(gate_cfg(runs, weights, folder / "gate", f"foreign=[{folder}/noise]"))
    return folder / "gate"


def test_a_gate_is_made_of_held_out_pictures(runs: Path, made: Path) -> None:
    found = Gate.read(made)
    folder = next(runs.rglob("splits.json")).parent
    folds = read_split(folder / "splits.json").folds
    held = pd.read_csv(made / "held_out.csv")
    assert sorted(held["id"]) == sorted([*folds[0].val, *folds[1].val])
    for row in held.itertuples():
        assert row.id in folds[row.fold].val
    assert held["accepted"].equals(held["segmentation"] & held["features"])
    assert found.calibration.reference_groups + found.calibration.calibration_groups == held["group"].nunique()
    assert found.encoder.source == "file:resnet10t.pt"
    (model,) = found.models
    assert list(model.checkpoints) == ["0", "1"]
    assert "only model" in found.chosen
    page = (made / "index.html").read_text(encoding="utf8")
    assert "of 3 foreign ones" in page
    assert f"{held['accepted'].sum()} of {len(held)} held-out pictures" in page
    assert page.count("<img") >= 4
    assert str(runs) not in (made / "gate.json").read_text(encoding="utf8"), "no path of this machine"


def test_predict_marks_what_the_gate_refuses(runs: Path, made: Path, tmp_path: Path, capsys: Any) -> None:
    run, root = next(runs.rglob("config.yaml")).parent, made.parent / "noise"

    def predicted(gate_folder: Path | None, *overrides: str) -> Path:
        output = tmp_path / ("plain" if gate_folder is None else "gated")
        predict(composed([f"run={run}", f"input={root}", f"output={output}", *overrides,
                          *([f"gate={gate_folder}"] if gate_folder else [])], "predict"))  # fmt: skip
        return output

    found = Gate.read(made)
    strict = tmp_path / "strict"
    strict.mkdir()
    Gate(**{**vars(found), "feature": type(found.feature)(**{**vars(found.feature), "threshold": 0.0})}).write(strict)
    (strict / ENCODER).write_bytes((made / ENCODER).read_bytes())
    plain, gated = predicted(None), predicted(strict)
    told = capsys.readouterr().out
    assert "refuses 3 of 3 pictures: `0`, `1`, `2`. They were done all the same" in told
    assert "this model is another" not in told
    table = pd.read_csv(gated / "gate.csv")
    assert list(table["verdict"]) == ["rejected"] * 3
    assert table["reasons"].str.contains("training pictures should be at most 0").all()
    for path in plain.rglob("*"):
        if path.is_file() and not path.name.startswith("."):
            assert (gated / path.relative_to(plain)).read_bytes() == path.read_bytes(), path


def test_a_gate_of_other_classes_or_another_model_is_told(runs: Path, made: Path, tmp_path: Path, capsys: Any) -> None:
    run, found = next(runs.rglob("config.yaml")).parent, Gate.read(made)
    words = [f"run={run}", f"input={made.parent}/noise", f"output={tmp_path}/out", f"gate={tmp_path}"]
    (tmp_path / ENCODER).write_bytes((made / ENCODER).read_bytes())
    rule = type(found.segmentation)(**{**vars(found.segmentation), "classes": ("a", "b")})
    Gate(**{**vars(found), "segmentation": rule}).write(tmp_path)
    with pytest.raises(DataError, match="should have the head `segmentation` of a, b, as that of the gate"):
        predict(composed(words, "predict"))
    Gate(**{**vars(found), "models": (GateModel("other", "light", 1.0, 0.9, {"0": "00"}),)}).write(tmp_path)
    predict(composed(words, "predict"))
    assert "calibrated with other, and this model is another" in capsys.readouterr().out


@pytest.mark.slow
def test_three_models_vote_and_one_of_them_alone_is_told(
    module_tiny: Make, weights: Path, tmp_path: Path, capsys: Any
) -> None:
    for seed in range(3):
        for fold in (0, 1):
            cfg = module_tiny(
                "task=dual_head", "loss=dual_head", "data.image_labels=label", *SMALL, "trainer.max_epochs=1",
                f"fold={fold}", f"seed={seed}", "data.split.num_folds=2", "data.split.groups=null", "data.split.seed=0",
                f"output_root={tmp_path}/three", "name=three",
            )  # fmt: skip
            train(cfg)
    places = [f"output_root={tmp_path}/three", f"cache_dir={tmp_path}/cache"]
    words = [f"runs='{tmp_path}/three/*/*/*'", "vote=3", *places]
    gate(gate_cfg(Path(cfg.output_root), weights, tmp_path / "gate", *words))
    made = Gate.read(tmp_path / "gate")
    assert len(made.models) == 3
    assert "vote by their mean" in made.chosen
    combined = tmp_path / "combined"
    stages = ["heads=[image,dense]", "stages=[votes]", "num_parts=2", "resamples=50", f"output={combined}"]
    ensemble(composed([*places, *stages, f"runs={tmp_path}/three/three"], "ensemble"))
    page = read_ensemble(combined)
    for head in page.heads.values():
        head.recommended = "votes/soft"
    write_ensemble(combined, page)
    pictures = next(Path(cfg.data.root).glob("**/images"))
    run = next((tmp_path / "three").rglob("config.yaml")).parent
    for model, told in ((combined, False), (run, True)):
        common = [f"run={model}", f"input={pictures}", f"output={tmp_path / model.name}-out", f"gate={tmp_path}/gate"]
        predict(composed(common, "predict"))
        assert ("and this model is without" in capsys.readouterr().out) == told
    assert (tmp_path / "combined-out" / "gate.csv").is_file()


def test_bad_input_is_one_sentence(runs: Path, weights: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("hsl.verbs.gate.gate.measure", lambda _: {"tier": "light", "bytes_per_picture": 2**20})

    def refused(sentence: str, *overrides: str, of: Path = runs) -> None:
        with pytest.raises((ConfigError, DataError), match=sentence):
            gate(gate_cfg(of, weights, tmp_path / "out", *overrides))

    refused(r"`coverage` should be in \[0.5, 0.9999\]. Found `coverage = 1`", "coverage=1")
    refused("`vote` should be one of 1, 3. Found `vote = 2`", "vote=2")
    refused("`distance` should be one of neighbours, mahalanobis", "distance=cosine")
    refused("unlike names, which are the kinds. Found a, a", "foreign=[x/a,y/a]")
    refused("should match 3 models .* Found mobilenet", "vote=3")
    refused("or lower `min_miou`", "min_miou=1")
    refused("`signals` should name dense classes, .* Found rust", "signals=[rust]")
    refused(r"weights that are random\. Choose one", "encoder.weights=null")
    refused(r"A coverage of 0.99 needs at least 99 groups that calibrate\. Found \d+", "coverage=0.99")
    one = tmp_path / "outputs" / "one"
    one.mkdir(parents=True)
    (one / "fold0").symlink_to(next(runs.rglob("fold0")))
    refused(r"fold 1 is missing", of=one.parent)


@pytest.mark.filterwarnings("ignore:THE ENCODER")
def test_without_weights_the_way_out_works(runs: Path, weights: Path, tmp_path: Path) -> None:
    """`made` follows it: `encoder.weights=PATH`."""
    with pytest.raises(InstantiationException, match=r"pass `encoder.weights=PATH`"):
        gate(gate_cfg(runs, weights, tmp_path / "out", "encoder.weights=imagenet"))


def test_the_lightest_good_model_gates() -> None:
    light, medium, heavy = (
        GateModel(name, tier, 1.0, miou, {})
        for name, tier, miou in (("a", "light", 0.6), ("b", "medium", 0.7), ("c", "heavy", 0.9))
    )
    tiers = ["light", "medium", "high", "heavy"]
    chosen, why = choose([heavy, medium, light], tiers, 0.65)
    assert chosen == [1]
    assert why == (
        "b (0.700) gates: the best of the lightest tier (medium) with a mean IoU of at least 0.65 out of fold. Lighter "
        "ones do not reach 0.65: a (0.600)."
    )
    assert choose([light, medium, heavy], tiers, 0.5)[0] == [0]
    chosen, why = choose([light, medium, heavy], tiers, 0.5, vote=3)
    assert chosen == [2, 1, 0]
    assert "vote by their mean: c (0.900), b (0.700), a (0.600)." in why


def test_a_gold_set_spreads_over_classes_and_groups() -> None:
    classes = {f"p{i:02d}": "abc"[i % 3] for i in range(60)}
    groups = {name: f"g{int(name[1:]) % 12}" for name in classes}  # 4 groups a class
    foreground = {name: 0.1 if of == "b" else 0.5 for name, of in classes.items()}
    chosen = draw(classes, groups, foreground, 5, 3, 0)
    counts = {of: [name for name in chosen if classes[name] == of] for of in "abc"}
    assert {of: len(names) for of, names in counts.items()} == {"a": 5, "b": 8, "c": 5}
    for names in counts.values():
        times = [sum(groups[name] == group for name in names) for group in {groups[name] for name in names}]
        assert len(times) == 4
        assert max(times) - min(times) <= 1
    assert draw(classes, groups, foreground, 5, 3, 0) == chosen != draw(classes, groups, foreground, 5, 3, 1)


def test_a_gold_set_is_written_once_and_gone_on_with(runs: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    opened: list[Any] = []
    monkeypatch.setattr("hsl.verbs.gate.sample.review", opened.append)
    words = [f"runs='{runs}/*/*'", f"output={tmp_path}/gold", "per_class=2", "more=1", f"cache_dir={runs.parent}/cache"]
    sample(composed(words, "gate_sample"))
    table = pd.read_csv(tmp_path / "gold" / "labels.csv")
    assert set(table["tier"]) == {"A"}
    counts = table["label"].value_counts()
    assert counts.max() == 3
    assert f"{len(table)} pictures" in capsys.readouterr().out
    for row in table.itertuples():
        mask = np.asarray(Image.open(tmp_path / "gold" / "masks" / f"{row.id}.png"))
        assert mask.shape == np.asarray(Image.open(row.image)).shape[:2]
    page = json.loads((tmp_path / "gold" / "labels.json").read_text())
    assert page["fold"] is None
    (tmp_path / "gold" / "review.json").write_text("kept")
    sample(composed(words, "gate_sample"))
    assert (tmp_path / "gold" / "review.json").read_text() == "kept"
    assert [one.per_class_and_tier for one in opened] == [3, 3]
    with pytest.raises(ConfigError, match="of which parameters differ"):
        sample(composed([*words, "seed=1"], "gate_sample"))
