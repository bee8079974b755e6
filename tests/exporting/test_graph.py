"""Which encoders and decoders export: the table of docs/export.md, tried out."""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from tests.conftest import composed

from hsl.errors import ConfigError
from hsl.exporting import graph
from hsl.exporting.sessions import onnx_session, torch_session

PAGE = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf8")
SIDE = 64
TABLE: dict[str, str] = dict(re.findall(r"^\| `([\w=.]+)` \| (any|fixed) \|", PAGE, re.MULTILINE))
QUICK = ("encoder=generic encoder.name=tu-test_resnet", "encoder=generic encoder.name=tu-test_convnext")
"""Networks of a few layers, of which timm has one for most families."""


def built(words: str) -> Any:
    cfg: DictConfig = composed([f"data.image_size={SIDE}", *words.split()], "smoke")
    torch.manual_seed(0)
    return instantiate(cfg.network).eval()


def assert_alike(network: Any, captured: graph.Captured, folder: Path) -> None:
    """Both graphs give the numbers of the network, for all the sizes that it takes."""
    graph.write_onnx(captured, folder / "model.onnx")
    graph.write_program(captured, folder / "model.pt2")
    sessions = [onnx_session(folder / "model.onnx", 1), torch_session(folder / "model.pt2", 1)]
    sizes = [(1, SIDE, SIDE), (3, SIDE, SIDE)]
    if captured.input_size is None:
        stride = captured.stride
        sizes += [(1, stride, stride), (2, 2 * stride, 3 * stride), (1, 5 * stride, stride)]
    for number, height, width in sizes:
        images = torch.randn(number, 3, height, width)
        with torch.inference_mode():
            wanted = network(images)
        for session in sessions:
            found = session(images.numpy())
            assert list(found) == [head.name for head in captured.heads]
            assert found.keys() == wanted.keys()
            for head, output in wanted.items():
                scale = max(1.0, float(output.abs().max()))
                np.testing.assert_allclose(found[head], output.numpy(), rtol=0, atol=1e-4 * scale)


@pytest.mark.extras
@pytest.mark.parametrize("words", [*QUICK, "encoder=mit_b0", "encoder=maxvit_pico", "encoder=efficientnet_lite0_cbam"])
def test_small_networks_export(words: str, tmp_path: Path) -> None:
    network = built(words)
    captured = graph.capture(network, (SIDE, SIDE))
    stated = TABLE.get(words.removeprefix("encoder="), "any")
    assert ("fixed" if captured.input_size else "any") == stated
    assert_alike(network, captured, tmp_path)


@pytest.mark.extras
@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(TABLE))
def test_every_row_of_the_table_exports(name: str, tmp_path: Path) -> None:
    network = built(f"encoder=resnet10t {name}" if name.startswith("decoder=") else f"encoder={name}")
    captured = graph.capture(network, (SIDE, SIDE))
    assert ("fixed" if captured.input_size else "any") == TABLE[name]
    assert_alike(network, captured, tmp_path)


def test_the_table_names_every_encoder_and_decoder() -> None:
    conf = Path(__file__).parents[2] / "conf"
    several = {"hierarchical", "multihead"}  # of several tasks
    decoders = {f"decoder={path.stem}" for path in (conf / "decoder").glob("*.yaml") if path.stem not in several}
    encoders = {path.stem for path in (conf / "encoder").glob("*.yaml")} - {"generic"}
    others = re.findall(r"^Not as ONNX, and so not for OpenVINO: (.*)$", PAGE, re.MULTILINE)
    named = [name for name in re.findall(r"`([\w=.]+)`", " ".join(others)) if name in encoders | decoders]
    assert sorted([*TABLE, *named]) == sorted(encoders | decoders)


@pytest.mark.extras
@pytest.mark.slow
def test_what_onnx_cannot_say_is_told(tmp_path: Path) -> None:
    captured = graph.capture(built("encoder=resnet10t decoder=upernet"), (SIDE, SIDE))
    with pytest.raises(ConfigError, match="`format=torch_export`"):
        graph.write_onnx(captured, tmp_path / "model.onnx")


@pytest.mark.extras
def test_graphs_are_the_same_whatever_was_exported_before(tmp_path: Path) -> None:
    first, second = (built(words) for words in QUICK)
    found: list[list[str]] = []
    for number, network in enumerate((first, second, first)):
        captured = graph.capture(network, (SIDE, SIDE))
        folder = tmp_path / str(number)
        folder.mkdir()
        graph.write_onnx(captured, folder / "model.onnx")
        graph.write_program(captured, folder / "model.pt2")
        graph.write_openvino(folder / "model.onnx", folder / "model.xml")
        paths = sorted(folder.iterdir())
        for path in paths:
            for word in (str(Path(torch.__file__).parent), str(tmp_path), str(Path(__file__).parents[2])):
                assert word.encode() not in path.read_bytes(), path.name
        found.append([hashlib.sha256(path.read_bytes()).hexdigest() for path in paths])
    assert found[0] == found[2]
    assert found[0] != found[1]


@pytest.mark.extras
def test_a_map_is_enlarged_by_a_factor_whatever_the_picture(tmp_path: Path) -> None:
    import onnx

    network = built(f"{QUICK[0]} decoder=unet")
    graph.write_onnx(graph.capture(network, None), tmp_path / "model.onnx")
    operations = onnx.load(tmp_path / "model.onnx").graph.node
    enlarged = [one for one in operations if one.op_type == "Resize" and one.input[2]]
    assert len(enlarged) >= 4
    assert not [one for one in operations if one.op_type == "Shape"]


def test_a_network_of_one_size_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    program = graph._program
    sizes: list[Any] = []

    def refuse(made: graph.Graph, size: Any) -> Any:
        sizes.append(size)
        if size is None:
            raise RuntimeError("Constraints violated (rows)!\nmore of it")
        return program(made, size)

    monkeypatch.setattr(graph, "_program", refuse)
    network = built(QUICK[0])
    with pytest.raises(ConfigError, match=r"Found one that takes a single size \(Constraints violated \(rows\)!\)"):
        graph.capture(network, None)
    captured = graph.capture(network, (SIDE, SIDE))
    assert captured.input_size == (SIDE, SIDE)
    assert captured.why_fixed == "Constraints violated (rows)!"
    assert sizes == [None, None, (SIDE, SIDE)]


def test_what_cannot_be_followed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise NotImplementedError("no such operation\nmore of it")

    monkeypatch.setattr(graph, "_program", refuse)
    with pytest.raises(ConfigError, match=r"Found: no such operation\. docs/export\.md"):
        graph.capture(built(QUICK[0]), (SIDE, SIDE))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5])
def test_padding_is_that_of_timm_where_sides_are_multiples(stride: int, kernel: int) -> None:
    from timm.layers.padding import pad_same

    pad: Callable[..., Any] = graph._pad_static
    images = torch.rand(1, 2, 8, 12)
    wanted = pad_same(images, [kernel, kernel], [stride, stride], value=-1)
    torch.testing.assert_close(pad(images, [kernel, kernel], [stride, stride], value=-1), wanted)
