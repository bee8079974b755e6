"""What runs the graphs of an artefact: onnxruntime, OpenVINO or torch, behind one function."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsl.errors import ConfigError, needs
from hsl.exporting.manifest import Runtime

Array = NDArray[np.float32]
Session = Callable[[Array], Mapping[str, Array]]
"""Runs a graph: ``float32 (B, 3, H, W)``, normalised -> head -> ``float32``."""
OpenSession = Callable[[Path, int | None], Session]
"""Opens a graph; the number is how many threads it may use, ``None``: all."""


def onnx_session(path: Path, threads: int | None) -> Session:
    """A graph in onnxruntime, on the processor."""
    needs("This artefact", ["onnxruntime"])
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as found

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or 0
    broken = (found.Fail, found.InvalidGraph, found.InvalidProtobuf, found.InvalidArgument, found.NotImplemented)
    try:
        opened = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except broken as error:
        raise ConfigError(
            f"`{path}` should be a graph that onnxruntime {onnxruntime.__version__} can open. Found: "
            f"{' '.join(str(error).split())[:300]}. Install a newer onnxruntime, or export the model again."
        ) from error
    names = [output.name for output in opened.get_outputs()]
    return lambda batch: dict(zip(names, opened.run(names, {"image": batch}), strict=True))


def openvino_session(path: Path, threads: int | None) -> Session:
    """A graph in OpenVINO, on the processor, in float32."""
    needs("This artefact", ["openvino"])
    import openvino

    settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads or 0}
    compiled = openvino.Core().compile_model(path, "CPU", settings)
    names = [output.any_name for output in compiled.outputs]

    def run(batch: Array) -> Mapping[str, Array]:
        outputs = compiled(batch)
        return {name: outputs[name] for name in names}

    return run


def torch_session(path: Path, threads: int | None) -> Session:
    """A program of ``torch.export``, which gives its outputs by head."""
    needs("This artefact", ["torch"])
    import torch

    del threads  # torch has one number for the whole process: `torch.set_num_threads`
    # what it guards is the layout in memory, by which a picture of one stride were another network; its numbers are not
    program = torch.export.load(path).module(check_guards=False)

    def run(batch: Array) -> Mapping[str, Array]:
        with torch.inference_mode():
            return {head: output.numpy() for head, output in program(torch.from_numpy(batch)).items()}

    return run


def session_of(runtime: Runtime) -> OpenSession:
    """What opens the graphs of a runtime."""
    if runtime == "onnx":
        return onnx_session
    return openvino_session if runtime == "openvino" else torch_session
