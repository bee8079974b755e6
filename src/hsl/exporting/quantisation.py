"""An ONNX graph with weights and activations of 8 bits, calibrated on pictures."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class _Pictures:
    """Normalised pictures, one after the other, as onnxruntime asks for them."""

    def __init__(self, pictures: Sequence[NDArray[Any]]) -> None:
        self._left: Iterator[NDArray[Any]] = iter(pictures)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        picture = next(self._left, None)
        return None if picture is None else {"image": np.asarray(picture, np.float32)}


def quantise(path: Path, output: Path, pictures: Sequence[NDArray[Any]]) -> None:
    """Write a copy of a graph in which convolutions and matrix products are of 8 bits.

    Weights have a scale for each channel, activations one that reaches from their smallest to their largest value over
    the pictures.

    Args:
        path: the graph in float32.
        output: the file that is written.
        pictures: ``float32 (B, 3, H, W)`` each, normalised, of the training part.
    """
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = output.with_name(f"{output.name}.prepared")
    quant_pre_process(path, prepared, skip_symbolic_shape=True)
    quantization.quantize_static(
        prepared,
        output,
        _Pictures(pictures),
        quant_format=quantization.QuantFormat.QDQ,
        op_types_to_quantize=["Conv", "MatMul", "Gemm"],
        per_channel=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
    )
    prepared.unlink()
