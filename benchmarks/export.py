"""A picture of 384 px through a network, batch 1, one thread: onnxruntime beside torch eager and torch.compile."""

import copy
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from hsl.exporting import graph
from hsl.exporting.quantisation import quantise
from hsl.exporting.runner import onnx_session

SIDE, ROUNDS, WARM_UP, GOAL = 384, 9, 2, 1.3
ENCODERS = {
    "resnet18": ["encoder=generic", "encoder.name=resnet18"],
    "efficientnet_lite0": ["encoder=efficientnet_lite0"],
    "convnext_atto": ["encoder=convnext_atto"],
}
Work = Callable[[], Any]


def network_of(words: list[str]) -> Any:
    """The encoder with the decoder that a training takes by default."""
    with initialize_config_dir(str(Path(__file__).parents[1] / "conf"), version_base=None):
        cfg = compose("smoke", [f"data.image_size={SIDE}", "decoder=unet", *words])
    torch.manual_seed(0)
    return instantiate(cfg.network, _convert_="all").eval().to(memory_format=torch.channels_last)


def ways(network: Any, folder: Path) -> dict[str, Work]:
    """What is timed, by name; all see one picture."""
    image = torch.randn(1, 3, SIDE, SIDE)
    captured = graph.capture(network, (SIDE, SIDE))
    graph.write_onnx(captured, folder / "model.onnx")
    quantise(folder / "model.onnx", folder / "int8.onnx", [np.random.default_rng(0).normal(size=image.shape)] * 4)
    given = image.numpy()
    exported, small = (onnx_session(folder / name, 1) for name in ("model.onnx", "int8.onnx"))
    compiled = torch.compile(network)
    found, wanted = exported(given), network(image)
    for head, output in wanted.items():
        if np.abs(found[head] - output.detach().numpy()).max() > 1e-3 * max(1, output.abs().max().item()):
            raise RuntimeError(f"Both paths should say the same. `{head}` differs.")
    at_hand = image.contiguous(memory_format=torch.channels_last)
    ordinary = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
    return {
        "onnxruntime": lambda: exported(given),
        "int8": lambda: small(given),
        "eager": lambda: ordinary(image),
        "eager in channels_last": lambda: network(at_hand),  # as `hsl predict` runs it
        "torch.compile": lambda: compiled(at_hand),
    }


@torch.inference_mode()
def seconds(works: Mapping[str, Work]) -> dict[str, float]:
    """Median time of the processor, the ways in turn: what other processes take does not count."""
    for work in works.values():
        for _ in range(WARM_UP):
            work()
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(ROUNDS):
        for name, work in works.items():
            start = time.process_time()
            work()
            taken[name].append(time.process_time() - start)
    return {name: statistics.median(values) for name, values in taken.items()}


def run() -> list[dict[str, Any]]:
    torch.set_num_threads(1)
    versions = {name: version(name) for name in ("torch", "onnx", "onnxruntime")}
    rows = []
    for encoder, words in ENCODERS.items():
        with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
            found = seconds(ways(network_of(words), Path(folder)))
        load = round(os.getloadavg()[0], 1)
        sizes = {"pixels": SIDE, "batch": 1, "threads": 1, "rounds": ROUNDS, "load": load, "unit": "seconds"}
        for ours, peer, goal in (
            ("onnxruntime", "eager", GOAL),
            ("onnxruntime", "eager in channels_last", 0),
            ("onnxruntime", "torch.compile", 0),
            ("int8", "eager", 0),
        ):
            ratio = found[peer] / found[ours]
            rows.append(
                {
                    "name": f"export, {encoder}: time of {peer} by {ours}",
                    "sizes": sizes,
                    "versions": versions,
                    "ours": round(found[ours], 4),
                    "peer": round(found[peer], 4),
                    "ratio": round(ratio, 4),
                    "goal": goal,
                    "holds": ratio >= goal,
                }
            )
    return rows
