"""The network of a run as a graph that runs without the suite: ONNX, OpenVINO, or a program of ``torch.export``.

A graph maps a normalised picture ``image``, ``float32 (B, 3, H, W)``, to an output for each head, by its name. It holds
what the network computes and nothing of where it was made: neither paths nor times, so that two exports are one.
"""

import contextlib
import copy
import io
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, cast
from unittest import mock

import sympy
import torch
import torch.nn.functional as F
from timm.models.maxxvit import PartitionAttention2d, PartitionAttentionCl
from timm.models.swin_transformer import WindowAttention
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.nn.attention import SDPBackend, sdpa_kernel

from hsl.errors import ConfigError
from hsl.heads import Head

MOST_STEPS, MOST_BATCH = 512, 256
"""Of a side in strides, and of a batch: bounds without which a symbolic size is unbounded to torch."""


class Graph(nn.Module):
    """A network in evaluation, with its outputs by head and nothing else.

    Args:
        network: an `hsl.models.network.SegmentationNetwork`; a copy is taken to the processor in float32.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).float().cpu().eval()
        training: set[str] = cast(Any, network).training_heads
        known: Mapping[str, Head] = cast(Any, network).known_heads
        self.known = tuple(head for name, head in known.items() if name not in training)
        self.stride = int(cast(Any, network).stride)
        self.why_fixed = _why_fixed(network)
        _not_in_place(self.network)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Normalised picture ``(B, 3, H, W)`` to the outputs by head."""
        outputs = self.network(image)
        return {head.name: outputs[head.name].contiguous() for head in self.known}


def _not_in_place(network: nn.Module) -> None:
    for module in network.modules():
        if getattr(module, "inplace", False):  # such an activation takes the exporter seconds, not milliseconds
            module.inplace = False  # type: ignore[assignment]


@dataclass(frozen=True)
class Captured:
    """A network as a program.

    Attributes:
        program: what ``torch.export`` made of it.
        heads: its outputs, in their order.
        stride: the sides of a picture are multiples of it.
        input_size: height and width of the only picture that it takes; ``None``: any multiples of `stride`.
        why_fixed: why it takes one size only; empty where it takes others.
    """

    program: ExportedProgram
    heads: tuple[Head, ...]
    stride: int
    input_size: tuple[int, int] | None
    why_fixed: str = ""


def capture(network: nn.Module, size: tuple[int, int] | None) -> Captured:
    """The network as a program for any number of pictures, of any size where the network allows it.

    Args:
        network: an `hsl.models.network.SegmentationNetwork`.
        size: height and width of the pictures that it will see, for a network that takes one size; ``None``: they
            differ.

    Raises:
        ConfigError: it cannot be exported at all, or takes one size only where pictures differ.
    """
    graph = Graph(network)
    why = graph.why_fixed
    if not why:
        try:
            return Captured(_program(graph, None), graph.known, graph.stride, None)
        except _REFUSALS as error:
            why = str(error).strip().partition("\n")[0]
    if size is None:
        raise ConfigError(
            f"A network that is exported for pictures of their own size should take any. Found one that takes a single "
            f"size ({why}). Export with `inference=sliding_window`, or with `evaluation_size` as in the run."
        )
    try:
        return Captured(_program(graph, size), graph.known, graph.stride, size, why)
    except _REFUSALS as error:
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(
            f"The network should be one that `torch.export` can follow. Found: {reason[:300]}. docs/export.md lists "
            "the encoders that export; choose one of them."
        ) from error


def _why_fixed(network: nn.Module) -> str:
    """Why a network is not tried with sizes of any kind; empty where it is."""
    if cast(Any, network).encoder.fixed_size:
        return "its attention is built for one size"
    if any(isinstance(module, WindowAttention) for module in network.modules()):
        return "shifted windows of symbolic sizes take torch.export more than minutes"
    if any(isinstance(module, PartitionAttention2d | PartitionAttentionCl) for module in network.modules()):
        return "windows and grids of symbolic sizes take torch.export more than a minute"
    return ""


_REFUSALS = (RuntimeError, ValueError, TypeError, AttributeError, LookupError, NotImplementedError, AssertionError)
"""What ``torch.export`` raises of a network that it cannot follow; it has no error type of its own for all of them."""


def _program(graph: Graph, size: tuple[int, int] | None) -> ExportedProgram:
    """The program for pictures of one size; ``None``: of any."""
    shape: dict[int, Any] = {0: Dim("batch", min=1, max=MOST_BATCH)}
    example = size or (2 * graph.stride, 3 * graph.stride)
    if size is None:
        for axis, name in ((2, "rows"), (3, "columns")):
            shape[axis] = graph.stride * Dim(name, min=1, max=MOST_STEPS)
    images = torch.zeros(2, 3, *example)
    # the mathematical form of attention has the same layout in memory everywhere, the fused one has not
    with torch.no_grad(), _quiet(), _static_padding(), sdpa_kernel(SDPBackend.MATH):
        program = torch.export.export(graph, (images,), dynamic_shapes=(shape,))
    return _without_traces(_constant_factors(program))


def _constant_factors(program: ExportedProgram) -> ExportedProgram:
    """Enlargement to a computed size by its factor, where that is whole: the same pixels, by the nearest neighbour.

    onnxruntime keeps its blocked layout of channels through a factor, not through a size: 4 % of a U-Net's time.
    """
    operation = torch.ops.aten.upsample_nearest2d.vec
    for node in program.graph.nodes:
        if node.target is not operation or node.args[1] is None:
            continue
        given, made = (part.meta["val"].shape[-2:] for part in (node.args[0], node))
        factors = [_expression(after) / _expression(before) for before, after in zip(given, made, strict=True)]
        if all(factor.is_Integer for factor in factors):
            node.args = (node.args[0], None, [float(factor) for factor in factors])
    program.graph.eliminate_dead_code()  # what computed the sizes
    program.graph_module.recompile()
    return program


def _expression(side: Any) -> Any:
    """A side of a picture, symbolic or a number, as sympy has it."""
    return sympy.sympify(side.node.expr if isinstance(side, torch.SymInt) else side)


def _pad_static(
    x: Tensor, kernel_size: Sequence[int], stride: Sequence[int], dilation: Sequence[int] = (1, 1), value: float = 0
) -> Tensor:
    """timm's padding, of sides that are multiples of the stride: then it does not depend on them."""
    totals = [
        max((side - 1) * spread + 1 - step, 0) for side, step, spread in zip(kernel_size, stride, dilation, strict=True)
    ]
    rows, columns = totals
    return F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2), value=value)


@contextlib.contextmanager
def _static_padding() -> Iterator[None]:
    """Convolutions that pad as TensorFlow does compute it from symbolic sides, in terms that grow without end."""
    with contextlib.ExitStack() as stack:
        for name in ("conv2d_same", "pool2d_same", "std_conv"):  # `timm.layers` hides some behind their functions
            stack.enter_context(mock.patch.object(import_module(f"timm.layers.{name}"), "pad_same", _pad_static))
        yield


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporters print of their progress."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def _without_traces(program: ExportedProgram) -> ExportedProgram:
    """Without the lines of code that each operation came from, which name files of this machine."""
    for node in program.graph.nodes:
        for name in ("stack_trace", "from_node"):
            node.meta.pop(name, None)
    return program


def write_program(captured: Captured, path: Path) -> None:
    """Write a program of ``torch.export``, which `hsl.exporting.runner` runs with torch."""
    with _quiet():
        torch.export.save(captured.program, path)


def write_onnx(captured: Captured, path: Path) -> None:
    """Write an ONNX graph.

    Raises:
        ConfigError: torch's exporter cannot translate it.
    """
    _write_onnx(captured.program, [head.name for head in captured.heads], path)


def write_features(network: nn.Module, height: int, width: int, path: Path) -> None:
    """Write the encoder of a gate as ONNX: ``image``, ``float32 (1, 3, height, width)``, to ``features (1, D)``.

    Args:
        network: an `hsl.exporting.generic_encoder.PooledEncoder`; a copy is taken to the processor.
        height: of the only image that it takes.
        width: the same.
        path: of the file.

    Raises:
        ConfigError: torch cannot follow it, or its exporter cannot translate it.
    """
    frozen = copy.deepcopy(network).float().cpu().eval()
    _not_in_place(frozen)
    try:
        with torch.no_grad(), _quiet(), sdpa_kernel(SDPBackend.MATH):
            program = torch.export.export(frozen, (torch.zeros(1, 3, height, width),))
    except _REFUSALS as error:
        reason = str(error).strip().partition("\n")[0]
        raise ConfigError(
            f"The encoder of the gate should be one that `torch.export` can follow. Found: {reason[:300]}. Make a gate "
            "with another `encoder`, one that docs/export.md lists."
        ) from error
    _write_onnx(_without_traces(program), ["features"], path)


def _write_onnx(program: ExportedProgram, names: Sequence[str], path: Path) -> None:
    import onnx  # an extra

    try:
        with _quiet(), sdpa_kernel(SDPBackend.MATH):  # views are chosen anew, by the layout of attention
            made: Any = torch.onnx.export(
                program, (), input_names=["image"], output_names=names, dynamo=True, verbose=False
            )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
        cause = str(error.__cause__ or error).strip().partition("\n")[0]
        raise ConfigError(
            f"The network should be one that torch can write as ONNX. Found: {cause[:300]}. Take "
            "`format=torch_export`, or another encoder of docs/export.md."
        ) from error
    model = _anonymous(made.model_proto)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))


def _anonymous(model: Any) -> Any:
    """The graph without what says where and how it was made, and with sizes named as people name them."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer, *model.functions):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    del graph.value_info[:]  # sizes in between, under names that depend on what was exported before
    for value in (*graph.input, *graph.output):
        for axis, size in enumerate(value.type.tensor_type.shape.dim):
            if not size.HasField("dim_value"):
                size.dim_param = ("batch", "", "height", "width")[axis]
    return model


def write_openvino(onnx_file: Path, path: Path) -> None:
    """Write the graph of an ONNX file as OpenVINO's pair of files, ``.xml`` and ``.bin``, in float32."""
    import openvino  # an extra

    openvino.save_model(openvino.convert_model(onnx_file), path, compress_to_fp16=False)
    # operations without a name are counted over all graphs of the process
    text = re.sub(r'(<layer id="(\d+)" name=")\w+_\d+(" type="(\w+)")', r"\1\4_\2\3", path.read_text("utf8"))
    path.write_text(text, encoding="utf8")
