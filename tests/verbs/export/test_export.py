"""`hsl export`: an artefact says what the run says, or there is none."""

import errno
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from tests.conftest import composed
from tests.data.labels._inputs import write_data
from torch import nn

from hsl import errors
from hsl.errors import ConfigError, UserError, user_sentence
from hsl.exporting import graph
from hsl.exporting.gate import Calibration, Gate
from hsl.exporting.gate_rules import FeatureRule, SegmentationRule
from hsl.exporting.generic_encoder import FrozenEncoder
from hsl.exporting.runner import Runner
from hsl.models.encoders import build_encoder
from hsl.run_folder.layout import ENSEMBLE
from hsl.verbs.export import export as verb
from hsl.verbs.export import gated, quantised
from hsl.verbs.export.card import model_card
from hsl.verbs.export.export import check_settings, export
from hsl.verbs.export.export_smoke import smoke_export
from hsl.verbs.export.parity import RULES
from hsl.verbs.predict.predict import predict
from hsl.verbs.serve import opener_of
from hsl.verbs.train.train import train

SMALL = [
    "encoder=generic", "encoder.name=tu-test_resnet", "encoder.weights=null", "decoder.channels=[8,8,8,8,8]",
    "metrics=none", "callbacks.evaluation.num_examples=0", "callbacks.tta_evaluation=null", "trainer.max_epochs=1",
    "+trainer.limit_train_batches=2",
]  # fmt: skip
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*")


@pytest.fixture(scope="module")
def trained(module_tiny: Callable[..., DictConfig]) -> Path:
    """A run of seconds; not to be changed."""
    cfg = module_tiny(*SMALL)
    train(cfg)
    return next(Path(cfg.output_root).glob("*/fold0/*"))


@pytest.fixture(scope="module")
def captured(trained: Path) -> Callable[..., graph.Captured]:
    """The network of the run is captured once for all tests."""
    known: list[graph.Captured] = []
    capture = graph.capture

    def once(network: nn.Module, size: tuple[int, int] | None) -> graph.Captured:
        if not known:
            known.append(capture(network, size))
        return known[0]

    return once


@pytest.fixture
def quick(captured: Callable[..., graph.Captured], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "capture", captured)


def settings(run: Path, output: Path, *words: str) -> DictConfig:
    places = [f"run={run}", f"output={output}", f"output_root={output.parent / 'outputs'}"]
    return composed([*places, "format=torch_export", "num_pictures=3", *words], "export")


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder but hidden ones."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name[0] != "."]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@pytest.mark.usefixtures("quick")
def test_an_artefact_says_what_its_run_says_and_names_no_place(trained: Path, tmp_path: Path) -> None:
    before = hashes(trained)
    export(settings(trained, tmp_path / "leaves", "licence=CC-BY-4.0"))
    assert hashes(trained) == before
    files = hashes(tmp_path / "leaves")
    assert files.keys() == {"manifest.json", "model.pt2", "parity.json", "README.md"}
    runner = Runner.open(tmp_path / "leaves")
    assert runner.manifest.licence == "CC-BY-4.0"
    assert runner.manifest.provenance["checkpoint_sha256"] == before["checkpoints/best.ckpt"]
    said = runner.predict(np.random.default_rng(0).integers(0, 255, (50, 70, 3), np.uint8))
    assert said.probabilities["segmentation"].shape == (len(runner.heads["segmentation"].classes), 50, 70)
    page = json.loads((tmp_path / "leaves" / "parity.json").read_text())
    assert page["passed"]
    assert page["rules"] == RULES
    assert {row["batch"] for row in page["pictures"]} == {1, 4}
    assert len({(row["id"], row["height"]) for row in page["pictures"]}) == 3 * 3
    assert {row["class"] for row in page["class_iou"]} <= set(runner.heads["segmentation"].classes)
    card = (tmp_path / "leaves" / "README.md").read_text()
    for words in (
        "CC-BY-4.0",
        "95 % interval",
        *runner.heads["segmentation"].classes,
        "## Limits",
        "3 validation pictures",
    ):
        assert words in card
    for name in files:
        content = (tmp_path / "leaves" / name).read_bytes()
        assert not any(str(place).encode() in content for place in (Path.home(), tmp_path, trained.parents[3])), name


@pytest.mark.usefixtures("quick")
def test_a_failed_gate_leaves_nothing(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = verb.write_graphs

    def wrong(*arguments: Any) -> Any:
        made = write(*arguments)
        (model,) = made.manifest.models
        mistaken = replace(model, mean=(0.0, 0.0, 0.9), std=(0.01, 0.2, 5.0))
        return replace(made, manifest=replace(made.manifest, models=(mistaken,)))

    monkeypatch.setattr(verb, "write_graphs", wrong)
    with pytest.raises(UserError, match=r"`\w+` \(\d+ x \d+, batch 1\) should have at most 0.1% .*Found .*%.*Nothing"):
        export(settings(trained, tmp_path / "leaves"))
    assert not (tmp_path / "leaves").exists()


@pytest.mark.usefixtures("quick")
def test_a_wrong_graph_is_found(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = graph.write_program

    def wrong(captured: graph.Captured, path: Path) -> None:
        weight = captured.program.state_dict["network.heads.segmentation.classify.weight"]
        with torch.no_grad():
            weight.neg_()
            write(captured, path)
            weight.neg_()

    monkeypatch.setattr(graph, "write_program", wrong)
    with pytest.raises(UserError, match=r"should have at most 0\.1%"):
        export(settings(trained, tmp_path / "leaves"))
    assert not (tmp_path / "leaves").exists()


@pytest.mark.usefixtures("quick")
def test_a_full_disk_leaves_nothing(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(verb, "write_manifest", full)
    with pytest.raises(OSError, match="No space") as caught:
        export(settings(trained, tmp_path / "leaves"))
    assert "Free some space" in str(user_sentence(caught.value))
    assert not (tmp_path / "leaves").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["format=tflite"], "`format` should be one of onnx, openvino, torch_export. Found `format = tflite`"),
        (["quantisation=int8"], "`quantisation` should be null, or int8 of `format=onnx`"),
        (["num_pictures=0"], "`num_pictures` should be at least 1. Found `num_pictures = 0`"),
        (["run=nowhere"], "`run` should be a run folder"),
    ],
)
def test_what_cannot_be_exported_is_said_in_a_sentence(
    words: Sequence[str], message: str, trained: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        export(settings(trained, tmp_path / "leaves", *words))
    assert not (tmp_path / "leaves").exists()


def test_a_missing_package_is_named_with_its_extra(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errors, "find_spec", lambda name: None if name.startswith("onnx") else name)
    with pytest.raises(ConfigError, match=r"`hsl export` needs onnx, onnxscript and onnxruntime.*hsl\[onnx\]"):
        export(settings(trained, tmp_path / "leaves", "format=openvino"))
    with pytest.raises(ConfigError, match=r"`hsl export gate=` needs onnx, onnxscript and onnxruntime.*hsl\[onnx\]"):
        export(settings(trained, tmp_path / "leaves", "gate=anywhere"))


@pytest.mark.usefixtures("quick")
def test_what_a_folder_lacks_or_holds_is_said(trained: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    (copy / "checkpoints" / "best.ckpt").unlink()
    with pytest.raises(UserError, match=r"best\.ckpt"):
        export(settings(copy, tmp_path / "leaves"))
    (copy / "splits.json").unlink()
    with pytest.raises(ConfigError, match=r"should hold its fold assignment, splits\.json"):
        export(settings(copy, tmp_path / "leaves"))
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"notes\.txt"):
        export(settings(trained, tmp_path / "taken"))
    assert (tmp_path / "taken" / "notes.txt").read_text() == "mine"


@pytest.mark.usefixtures("quick")
def test_data_that_moved_are_found_where_they_are(trained: Path, tmp_path: Path) -> None:
    copy, moved = tmp_path / "run", tmp_path / "moved"
    shutil.copytree(trained, copy)
    text = (copy / "config.yaml").read_text()
    root = next(line.split(": ", 1)[1] for line in text.splitlines() if line.startswith("  root: "))
    shutil.copytree(root, moved)
    (copy / "config.yaml").write_text(text.replace(f"  root: {root}", "  root: gone"))
    with pytest.raises(ConfigError, match="`data_root=FOLDER`"):
        export(settings(copy, tmp_path / "leaves"))
    export(settings(copy, tmp_path / "leaves", f"data_root={moved}"))
    assert (tmp_path / "leaves" / "manifest.json").is_file()


def test_a_card_says_what_is_not_known(trained: Path, tmp_path: Path) -> None:
    from hsl.exporting.manifest import Decoding, Manifest

    provenance: Mapping[str, Any] = {"checkpoint_sha256": "0" * 64, "first_weights": {}}
    manifest = Manifest("m", "onnx", (), Decoding(None, None, 300), (), provenance=dict(provenance))
    card = model_card(
        manifest, [trained], [trained], {"pictures": []}, {"model.onnx": "its attention is built for one size"}
    )
    for words in ("Not stated.", "first weights: unknown", "takes inputs of one size only: its attention"):
        assert words in card


@pytest.mark.extras
def test_the_smoke_of_exports_goes_through(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    smoke_export(composed([f"output={tmp_path / 'smoke'}"], "smoke_export"))
    assert "predicts in a process without torch: ok" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="`output` should be a new or empty folder"):
        smoke_export(composed([f"output={tmp_path / 'smoke'}"], "smoke_export"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "words", "heads"),
    [
        (
            ["task=multitask", "loss=multitask", "data.tasks=demo", "decoder=hierarchical", "decoder.width=16"],
            ["inference=tta"],
            {"damage", "shape", "kind"},
        ),
        (
            ["task=dual_head", "loss=dual_head", "data.image_labels=label", "monitor=val/accuracy"],
            ["inference=tta"],
            {"segmentation", "classification"},
        ),
        (
            [],
            ["inference=sliding_window", "inference.window=64", "inference.stride=48", "evaluation_size=source"],
            {"segmentation"},
        ),
    ],
)
def test_every_kind_of_head_travels(
    task: list[str], words: list[str], heads: set[str], tiny: Callable[..., DictConfig], tmp_path: Path
) -> None:
    cfg = tiny(*[word for word in SMALL if not (task and word.startswith("decoder"))], *task)
    train(cfg)
    run = next(Path(cfg.output_root).glob("*/fold0/*"))
    export(settings(run, tmp_path / "leaves", *words))
    runner = Runner.open(tmp_path / "leaves")
    assert heads <= runner.heads.keys()
    page = json.loads((tmp_path / "leaves" / "parity.json").read_text())
    compared = page["pictures"][0]["changed_pixels"].keys() | page["pictures"][0]["image_probability"].keys()
    assert heads <= compared


@pytest.mark.slow
def test_objects_are_cut_apart_as_predict_cuts_them(tmp_path: Path) -> None:
    root = write_data(tmp_path / "data")
    cfg = composed(
        ["experiment=histology", f"data.root={root}", f"output_root={tmp_path / 'outputs'}", "data.image_size=32",
         "data.batch_size=2", "data.num_workers=0", "data.audit.near_duplicates=off", "data.split.groups=null",
         "decoder=unet", "trainer.accelerator=cpu", "logger=none", *SMALL, "trainer.max_epochs=15",
         "~trainer.limit_train_batches", "optimizer.lr=1e-2"]
    )  # fmt: skip
    train(cfg)
    run = next((tmp_path / "outputs").glob("*/fold0/*"))
    export(settings(run, tmp_path / "nuclei"))
    predict(composed([f"run={run}", f"input={root / 'images'}", f"output={tmp_path / 'here'}"], "predict"))
    runner = Runner.open(tmp_path / "nuclei")
    numbers = []
    for path in sorted((root / "images").iterdir()):
        objects = runner.predict(runner.decode(path.read_bytes(), path.name)).objects
        assert objects is not None
        wanted = np.asarray(Image.open(tmp_path / "here" / "instances" / path.name))
        assert np.mean(borders(objects) != borders(wanted)) <= 1e-3
        numbers.append(int(objects.max()))
    assert max(numbers) > 1, "the training should find objects, or nothing is compared"


def borders(ids: Any) -> Any:
    """Pixels whose right or lower neighbour is of another object."""
    return np.diff(ids.astype(int), axis=0, append=0).astype(bool) | np.diff(ids.astype(int), append=0).astype(bool)


def write_gate(folder: Path, classes: Sequence[str], pictures: Sequence[np.ndarray[Any, Any]]) -> None:
    """A gate that takes the pictures whose features are near the first one's."""
    torch.manual_seed(3)
    folder.mkdir()
    normal = {"mean": [0.5] * 3, "std": [0.25] * 3}
    torch.save(build_encoder("tu-test_resnet", weights=None, normalization=normal).body.state_dict(), folder / "w.pt")
    encoder = build_encoder("tu-test_resnet", weights=str(folder / "w.pt"), normalization=normal)
    frozen = FrozenEncoder.freeze(encoder, 64, 32)
    frozen.save(folder)
    features = frozen.features_of(pictures)
    directions = features / np.linalg.norm(features, axis=1, keepdims=True)
    distances = np.sort(np.linalg.norm(directions - directions[0], axis=1))
    threshold = float(distances[len(distances) // 2 - 1 :][:2].mean())
    Gate(
        models=(),
        chosen="By hand.",
        segmentation=SegmentationRule("segmentation", tuple(classes), (), None, {}, 0.0, 0.0, (), 0.3),
        feature=FeatureRule("neighbours", 1, threshold, 0.9),
        encoder=frozen.facts,
        calibration=Calibration("demo", 5, 1, 1, 1, 1, {}),
        arrays={"reference": features[:1]},
    ).write(folder)


@pytest.mark.extras
@pytest.mark.filterwarnings("ignore:`tu-test_resnet")
def test_a_gate_goes_along_and_says_what_predict_says(
    trained: Path, captured: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph, "capture", captured)
    export(settings(trained, tmp_path / "plain", "format=onnx"))
    plain = Runner.open(tmp_path / "plain")
    (tmp_path / "in").mkdir()
    for i in range(6):  # from plain to noise
        pixels = np.random.default_rng(i).normal(120, 1 + 20 * i, (50, 60 + i, 3)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "in" / f"leaf{i}.png")
    files = sorted((tmp_path / "in").iterdir())
    images = [plain.decode(path.read_bytes(), path.name) for path in files]
    assert plain.judge(images[0], plain.predict(images[0])) is None
    write_gate(tmp_path / "gate", plain.heads["segmentation"].classes, images)
    words = ("format=onnx", f"gate={tmp_path / 'gate'}")
    export(settings(trained, tmp_path / "leaves", *words))
    gate_files = {name for name in hashes(tmp_path / "leaves") if name.startswith("gate/")}
    assert gate_files == {"gate/gate.json", "gate/features.npz", "gate/encoder.onnx"}
    page = json.loads((tmp_path / "leaves" / "parity.json").read_text())
    assert page["rules"] == {**RULES, **gated.RULES}
    assert all(row["gate"]["features"] <= 1e-3 for row in page["pictures"])
    assert all(row["gate"]["torch"] == row["gate"]["artefact"] for row in page["pictures"])
    assert "Features of the gate" in (tmp_path / "leaves" / "README.md").read_text()
    places = [f"run={trained}", f"gate={tmp_path / 'gate'}", f"input={tmp_path / 'in'}", f"output={tmp_path / 'out'}"]
    predict(composed(places, "predict"))
    told = pd.read_csv(tmp_path / "out" / "gate.csv").set_index("id")
    runner = Runner.open(tmp_path / "leaves")
    assert set(told["verdict"]) == {"accepted", "rejected"}
    for path, image in zip(files, images, strict=True):
        verdict = runner.judge(image, runner.predict(image))
        assert verdict is not None
        row = told.loc[path.stem]
        assert row["verdict"] == ("accepted" if verdict.accepted else "rejected")
        assert row["distance"] == pytest.approx(verdict.scores["distance"], abs=1e-4)
        assert row["foreground"] == pytest.approx(verdict.scores["foreground"], abs=1e-3)
    export(settings(trained, tmp_path / "again", *words))
    assert hashes(tmp_path / "again") == hashes(tmp_path / "leaves")
    served = opener_of(composed([f"model={tmp_path / 'leaves'}"], "serve"))()
    assert served.gated
    for image, said in zip(images, served.predict_many(images), strict=True):
        assert served.judge(image, said) == runner.judge(image, runner.predict(image))
    export(settings(trained, tmp_path / "openvino", "format=openvino", *words[1:]))
    other = Runner.open(tmp_path / "openvino")
    for image in images:
        there, here = (one.judge(image, one.predict(image)) for one in (other, runner))
        assert there is not None
        assert here is not None
        assert there.accepted == here.accepted

    def cut(network: Any, *rest: Any) -> None:
        write(nn.Sequential(network, nn.Hardtanh(-1e-3, 1e-3)), *rest)

    write = graph.write_features
    monkeypatch.setattr(gated, "write_features", cut)
    with pytest.raises(UserError, match=r"should have the features of the gate's encoder .* Nothing was written"):
        export(settings(trained, tmp_path / "wrong", *words))
    assert not (tmp_path / "wrong").exists()
    write_gate(tmp_path / "others", ["a", "b"], images)
    with pytest.raises(UserError, match="should have the head `segmentation` of a, b"):
        export(settings(trained, tmp_path / "wrong", "format=torch_export", f"gate={tmp_path / 'others'}"))


@pytest.mark.extras
def test_eight_bits_are_compared_on_the_validation_part(
    trained: Path, captured: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph, "capture", captured)
    monkeypatch.setattr(quantised, "MARGIN", 1.0)
    eight = ("format=onnx", "quantisation=int8")
    export(settings(trained, tmp_path / "small", *eight))
    page = json.loads((tmp_path / "small" / "parity.json").read_text())["quantised"]
    row = page["heads"]["segmentation"]
    assert row["difference"] == pytest.approx(row["int8"] - row["exact"])
    assert page["sentences"][0] in (tmp_path / "small" / "README.md").read_text()
    export(settings(trained, tmp_path / "exact", "format=onnx"))
    sizes = [(tmp_path / name / "model.onnx").stat().st_size for name in ("small", "exact")]
    assert sizes[0] < 0.6 * sizes[1]

    def zeros(path: Path, output: Path, pictures: Sequence[Any]) -> None:
        import onnx

        model = onnx.load(path)
        for tensor in model.graph.initializer:
            if tensor.data_type == onnx.TensorProto.FLOAT and tensor.name.startswith("network."):  # weights
                array = np.zeros_like(onnx.numpy_helper.to_array(tensor))
                tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
        onnx.save(model, output)

    monkeypatch.setattr(quantised, "quantise", zeros)
    with pytest.raises(UserError, match="all its probabilities are alike"):
        export(settings(trained, tmp_path / "zero", *eight))
    assert not (tmp_path / "zero").exists()


def test_an_ensemble_has_no_pictures_to_compare_eight_bits_on(tmp_path: Path) -> None:
    (tmp_path / ENSEMBLE).write_text("{}")
    settings = {"run": str(tmp_path), "format": "onnx", "quantisation": "int8", "num_pictures": 1, "gate": None}
    with pytest.raises(ConfigError, match="Export the ensemble with `quantisation=null`"):
        check_settings(OmegaConf.create(settings))
