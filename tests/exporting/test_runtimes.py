"""An artefact where nothing but NumPy, OpenCV and onnxruntime is installed, and in the other runtimes."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

import hsl
from hsl.batch import DISTANCE
from hsl.errors import ConfigError
from hsl.exporting.gate import Calibration, Gate, GenericEncoder
from hsl.exporting.gate_rules import FeatureRule, SegmentationRule
from hsl.exporting.manifest import (
    GATE_ENCODER,
    GATE_FOLDER,
    Decoding,
    Manifest,
    Model,
    Runtime,
    read_manifest,
    write_manifest,
)
from hsl.exporting.runner import Runner
from hsl.heads import Head

pytestmark = pytest.mark.extras
DENSE, SIGNS = Head("segmentation", "dense", ("clean", "rust", "hole")), Head("signs", "image", ("x", "y"), True)
THERE = ("numpy", "numpy.libs", "cv2", "opencv_python_headless.libs", "onnxruntime", "flatbuffers", "packaging")
"""What ``pip install numpy opencv-python-headless onnxruntime`` brings."""


def write_graph(path: Path) -> None:
    """A convolution for the pixels, and the mean of each channel for the picture; any size, any number."""
    from onnx import TensorProto, helper, numpy_helper, save

    generator = np.random.default_rng(0)
    weights = generator.normal(size=(3, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["image", "weights"], [DENSE.name], pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["image"], ["means"]),
        helper.make_node("Flatten", ["means"], ["flat"]),
        helper.make_node("MatMul", ["flat", "mixing"], [SIGNS.name]),
    ]
    shapes = {"image": ["B", 3, "H", "W"], DENSE.name: ["B", 3, "H", "W"], SIGNS.name: ["B", 2]}
    image, *outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, of) for name, of in shapes.items()]
    mixing = generator.normal(size=(3, 2)).astype(np.float32)
    numbers = [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(mixing, "mixing")]
    graph = helper.make_graph(nodes, "tiny", [image], outputs, numbers)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)


def write_artefact(folder: Path, file: str, runtime: Runtime = "onnx") -> Path:
    model = Model(file, (DENSE, SIGNS), (24, 40), (0.5, 0.4, 0.3), (0.2, 0.2, 0.2), 8)
    decoding, thresholds = Decoding(None, None, 300.0), {SIGNS.name: (0.5, 0.4)}
    write_manifest(folder, Manifest("tiny", runtime, (DENSE, SIGNS), decoding, (model,), thresholds=thresholds))
    return folder


@pytest.fixture
def artefact(tmp_path: Path) -> Path:
    folder = tmp_path / "artefact"
    folder.mkdir()
    write_graph(folder / "model.onnx")
    return write_artefact(folder, "model.onnx")


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A folder of packages in which all others are missing."""
    import onnxruntime

    site = tmp_path / "site"
    site.mkdir()
    installed = Path(onnxruntime.__file__).parents[1]
    for name in THERE:
        if (installed / name).exists():
            (site / name).symlink_to(installed / name)
    return site


def run(site: Path, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    source = Path(hsl.__file__).parents[1]
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{site}:{source}", "PYTHONWARNINGS": "error"}
    return subprocess.run([sys.executable, "-S", *arguments], capture_output=True, text=True, env=env, check=False)


def picture() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (33, 47, 3), dtype=np.uint8)


def test_a_picture_is_predicted_where_nothing_else_is_installed(artefact: Path, bare: Path, tmp_path: Path) -> None:
    image = picture()
    cv2.imwrite(str(tmp_path / "one.png"), image[..., ::-1])
    command = ["-m", "hsl.exporting.runner", str(artefact), "--output", str(tmp_path / "out")]
    done = run(bare, [*command, str(tmp_path / "one.png")])
    assert (done.returncode, done.stderr) == (0, "")
    here = Runner.open(artefact).predict(image)
    mask = cv2.imread(str(tmp_path / "out" / "masks" / "one.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(mask, here.class_map(DENSE.name))
    assert len(np.unique(mask)) == 3
    (row,) = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert list(row["labels"][SIGNS.name]["probabilities"].values()) == here.probabilities[SIGNS.name].tolist()

    known = run(
        bare, ["-c", "import hsl.exporting.runner, sys; print(*{name.partition('.')[0] for name in sys.modules})"]
    )
    others = set(known.stdout.split()) - set(sys.stdlib_module_names) - {"hsl", "numpy", "cv2", "onnxruntime"}
    assert not {name for name in others if not name.startswith("_")}


def test_what_is_missing_is_named_and_how_to_install_it(artefact: Path, bare: Path, tmp_path: Path) -> None:
    image = picture()
    tifffile.imwrite(tmp_path / "one.tif", image)
    command = ["-m", "hsl.exporting.runner", str(artefact), "--output", str(tmp_path / "out")]
    done = run(bare, [*command, str(tmp_path / "one.tif")])
    sentence = "Reading a TIFF needs tifffile. Found no `tifffile`. Install it: `pip install tifffile`.\n"
    assert (done.returncode, done.stderr) == (2, sentence)
    (bare / "tifffile").symlink_to(Path(tifffile.__file__).parent)
    assert run(bare, [*command, str(tmp_path / "one.tif")]).returncode == 0

    distances = tmp_path / "distances"
    distances.mkdir()
    write_graph(distances / "model.onnx")
    manifest = read_manifest(artefact)
    model = replace(manifest.models[0], outputs=(DENSE, SIGNS, Head(DISTANCE, "map")))
    write_manifest(distances, replace(manifest, models=(model,)))
    done = run(bare, ["-m", "hsl.exporting.runner", str(distances), "--output", "out", str(tmp_path / "one.tif")])
    wanted = "needs scikit-image and scipy. Found no `skimage`. Install them: `pip install scikit-image scipy`.\n"
    assert (done.returncode, done.stderr) == (2, f"A model that cuts objects apart {wanted}")

    (bare / "onnxruntime").unlink()
    done = run(bare, [*command, str(tmp_path / "one.tif")])
    assert (
        done.stderr
        == "This artefact needs onnxruntime. Found no `onnxruntime`. Install it: `pip install onnxruntime`.\n"
    )


def test_the_gate_of_an_artefact_judges_pictures_there_too(artefact: Path, bare: Path, tmp_path: Path) -> None:
    from onnx import TensorProto, helper, save

    grey = np.full((16, 16, 3), 128, np.uint8)
    encoder = GenericEncoder("means", "by hand", "ab" * 32, "cd" * 32, 8, 8, (0.5,) * 3, (0.5,) * 3, 3)
    gate = Gate(
        (), "By hand.", SegmentationRule(DENSE.name, tuple(DENSE.classes), (), None, {}, 0.0, 0.0, (), 0.5),
        FeatureRule("neighbours", 1, 0.2, 0.99), encoder, Calibration("none", 5, 1, 1, 1, 1, {}),
        {"reference": encoder.input_of(grey).mean((2, 3))},
    )  # fmt: skip
    gate.write(artefact / GATE_FOLDER)
    nodes = [helper.make_node("GlobalAveragePool", ["image"], ["m"]), helper.make_node("Flatten", ["m"], ["features"])]
    values = {"image": [1, 3, 8, 8], "features": [1, 3]}
    image, features = [helper.make_tensor_value_info(name, TensorProto.FLOAT, of) for name, of in values.items()]
    graph = helper.make_graph(nodes, "encoder", [image], [features])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    save(model, artefact / GATE_FOLDER / GATE_ENCODER)
    write_manifest(artefact, read_manifest(artefact))

    for name, pixels in {"near": grey, "far": np.zeros_like(grey)}.items():
        cv2.imwrite(str(tmp_path / f"{name}.png"), pixels)
    pictures = [str(tmp_path / f"{name}.png") for name in ("near", "far")]
    done = run(bare, ["-m", "hsl.exporting.runner", str(artefact), *pictures, "--output", str(tmp_path / "out")])
    assert (done.returncode, done.stderr) == (0, "")
    near, far = (row["gate"] for row in json.loads((tmp_path / "out" / "predictions.json").read_text()))
    assert near == {"accepted": True, "reasons": [], "scores": near["scores"]}
    assert not far["accepted"]
    assert "distance" in far["reasons"][0]


def test_a_graph_that_this_onnxruntime_cannot_open_is_told(artefact: Path) -> None:
    (artefact / "model.onnx").write_bytes(b"junk")
    write_artefact(artefact, "model.onnx")
    with pytest.raises(ConfigError, match=r"can open. Found: .*INVALID_PROTOBUF.* Install a newer"):
        Runner.open(artefact)
    write_graph(artefact / "model.onnx")  # "or export the model again"
    Runner.open(write_artefact(artefact, "model.onnx"))


@pytest.mark.parametrize("runtime", ["openvino", "torch_export"])
def test_the_other_runtimes_say_the_same(runtime: Runtime, artefact: Path, tmp_path: Path) -> None:
    other, image = tmp_path / "other", picture()
    other.mkdir()
    file = {"openvino": "model.xml", "torch_export": "model.pt2"}[runtime]
    if runtime == "openvino":
        import openvino

        openvino.save_model(openvino.convert_model(artefact / "model.onnx"), other / file, compress_to_fp16=False)
    else:
        save_program(artefact / "model.onnx", other / file)
    found = Runner.open(write_artefact(other, file, runtime), threads=1).predict_many([image, image[:20]])
    wanted = Runner.open(artefact, threads=1).predict_many([image, image[:20]])
    for one, expected in zip(found, wanted, strict=True):
        for head in (DENSE.name, SIGNS.name):
            np.testing.assert_allclose(one.probabilities[head], expected.probabilities[head], atol=1e-5)


def save_program(graph: Path, path: Path) -> None:
    import onnx
    import torch
    from torch import Tensor, nn

    weights, mixing = (torch.tensor(onnx.numpy_helper.to_array(each)) for each in onnx.load(graph).graph.initializer)

    class Same(nn.Module):
        def forward(self, image: Tensor) -> dict[str, Tensor]:
            dense = nn.functional.conv2d(image, weights, padding=1)
            return {DENSE.name: dense, SIGNS.name: image.mean((2, 3)) @ mixing}

    batch = torch.export.Dim("batch", max=64)
    torch.export.save(torch.export.export(Same(), (torch.zeros(2, 3, 24, 40),), dynamic_shapes=({0: batch},)), path)
