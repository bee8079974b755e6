"""How a picture travels through a graph, in NumPy: what `hsl.inference` and `hsl.tasks.segmentation` do in torch.

Every step gives the numbers of its twin there, to the last bits of float32; the tests compare them.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from hsl.errors import ConfigError, NonFiniteLogitsError
from hsl.exporting.manifest import Fusion, Model, Window
from hsl.exporting.sessions import Array, Session
from hsl.inference.geometry import SIGMA, TURNS_THEN_MIRROR, WEIGHT_FLOOR

Outputs = dict[str, Array]

AT_ONCE = 4
"""Pictures, or windows, that a graph that takes any number of them sees at once."""


def normalised(images: Sequence[NDArray[np.uint8]], mean: Sequence[float], std: Sequence[float]) -> Array:
    """``float32 (B, 3, H, W)`` of pictures ``uint8 (H, W, 3)`` of one size."""
    batch = np.stack(images).transpose(0, 3, 1, 2).astype(np.float32, order="C")
    batch /= np.float32(255)
    batch -= np.array(mean, np.float32).reshape(3, 1, 1)
    batch /= np.array(std, np.float32).reshape(3, 1, 1)
    return batch


def look(session: Session, model: Model, images: Array) -> Outputs:
    """Outputs by head of normalised pictures ``(B, 3, H, W)``: whole or by windows, averaged over orientations.

    Raises:
        ConfigError: the graph gives something else than the manifest says.
        NonFiniteLogitsError: an output is not finite.
    """
    outputs = (_averaged if model.orientations else _once)(session, model, images)
    for head, output in outputs.items():
        if not np.isfinite(output).all():
            raise NonFiniteLogitsError(
                f"Every output should be finite. Found others in `{head}`. Look at the picture; if it is sound, export "
                "the model again, and train it again where that gives the same."
            )
    return outputs


def reflected_to(images: NDArray[np.float32], height: int, width: int) -> Array:
    """Pictures ``(..., H, W)`` grown at the bottom and at the right, as `hsl.inference.predictor.reflected_to` does."""
    for axis, target in ((-2, height), (-1, width)):
        if (size := images.shape[axis]) < target:
            period = max(1, 2 * (size - 1))
            position = np.arange(target) % period
            images = np.take(images, np.where(position < size, position, period - position), axis)
    return images


def to_size(logits: Array, height: int, width: int) -> Array:
    """``(C, h, w)`` -> ``(C, height, width)``, bilinear between the middles of pixels, in the order of torch's sums."""
    if logits.shape[1:] == (height, width):
        return logits
    rows, columns = _between(logits.shape[1], height), _between(logits.shape[2], width)
    result = np.empty((len(logits), height, width), np.float32)
    for channel, into in zip(logits, result, strict=True):  # one by one: what lies beside the result stays small
        first, second, share = rows
        tall = channel[first] * (1 - share[:, None]) + channel[second] * share[:, None]
        first, second, share = columns
        np.multiply(np.take(tall, first, 1), 1 - share, out=into)
        into += np.take(tall, second, 1) * share
    return result


def _between(size: int, target: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
    """Of each of ``target`` places the two of ``size`` between which it lies, and the share of the second."""
    scale = np.float64(np.float32(size) / np.float32(target))
    place = np.maximum(scale * (np.arange(target) + 0.5) - 0.5, 0).astype(np.float32)  # rounded once, as torch does
    first = np.minimum(place.astype(np.int64), size - 1)
    return first, np.minimum(first + 1, size - 1), np.clip(place - first.astype(np.float32), 0, 1)


def softmax(logits: Array, axis: int = 0) -> Array:
    """Probabilities along an axis, in float32."""
    powers = logits - logits.max(axis=axis, keepdims=True)
    np.exp(powers, out=powers)
    powers /= powers.sum(axis=axis, keepdims=True)
    return np.asarray(powers)


def sigmoid(logits: Array) -> Array:
    """Of each number, in float32."""
    return np.asarray(1 / (1 + np.exp(-logits)), np.float32)


def log_softmax(logits: Array, axis: int = 0) -> Array:
    """Log-probabilities along an axis, in float32."""
    shifted = logits - logits.max(axis=axis, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=axis, keepdims=True))
    return np.asarray(shifted)


def fused(outputs: Mapping[str, Array], fusion: Fusion) -> Array:
    """``(G, H, W)``: log-probabilities of the global classes; twin of `hsl.inference.global_space.fuse`."""
    signatures = np.array([*fusion.tables.values(), fusion.members])
    distinct = np.unique(signatures, axis=1)
    *columns, owner = distinct[:, distinct[-1].argsort(kind="stable")]
    parts = (log_softmax(outputs[head])[column] for head, column in zip(fusion.tables, columns, strict=True))
    total = next(parts)
    for part in parts:
        total += part
    total = log_softmax(total)
    if len(owner) == owner.max() + 1:
        return total
    top = total.max(axis=0, keepdims=True)
    summed = np.zeros((int(owner.max()) + 1, *total.shape[1:]), np.float32)
    for index, powers in zip(owner, np.exp(total - top), strict=True):
        summed[index] += powers
    return np.asarray(np.log(np.maximum(summed, np.finfo(np.float32).tiny)) + top)


def turn(images: Array, name: str) -> Array:
    """Pictures ``(..., H, W)`` in an orientation."""
    turns, mirror = TURNS_THEN_MIRROR[name]
    turned = np.rot90(images, turns, (-2, -1))
    return turned[..., ::-1] if mirror else turned


def turn_back(images: Array, name: str) -> Array:
    """Undo `turn`."""
    turns, mirror = TURNS_THEN_MIRROR[name]
    return np.rot90(images[..., ::-1] if mirror else images, -turns, (-2, -1))


def _averaged(session: Session, model: Model, images: Array) -> Outputs:
    """Twin of `hsl.inference.tta.TestTimeAugmentation`."""
    kinds, num = {head.name: head.kind for head in model.outputs}, len(model.orientations)
    total: Outputs = {}
    for name in model.orientations:
        for head, output in _once(session, model, np.ascontiguousarray(turn(images, name))).items():
            kind = kinds[head]
            seen = output / np.float32(num) if kind != "dense" else log_softmax(output, axis=1)
            seen = seen if kind == "image" else turn_back(seen, name)
            if head not in total:
                total[head] = seen
            else:
                total[head] = np.logaddexp(total[head], seen) if kind == "dense" else total[head] + seen
    return {
        head: output - np.float32(math.log(num)) if kinds[head] == "dense" else output for head, output in total.items()
    }


def _once(session: Session, model: Model, images: Array) -> Outputs:
    return _whole(session, model, images) if model.window is None else _by_windows(session, model, images, model.window)


def _whole(session: Session, model: Model, images: Array) -> Outputs:
    """Twin of `hsl.inference.predictor.Whole`."""
    height, width = images.shape[-2:]
    padded = reflected_to(images, height + -height % model.stride, width + -width % model.stride)
    outputs = _run(session, model, padded)
    kinds = {head.name: head.kind for head in model.outputs}
    return {
        head: output if kinds[head] == "image" else output[..., :height, :width] for head, output in outputs.items()
    }


def _by_windows(session: Session, model: Model, images: Array, window: Window) -> Outputs:
    """Twin of `hsl.inference.sliding_window.SlidingWindow`: the same windows in the same order, the same weights."""
    height, width = images.shape[-2:]
    images = reflected_to(images, max(height, window.side), max(width, window.side))
    places = list(_places(images.shape, window))
    weights = gaussian(window.side)
    total = np.zeros(images.shape[-2:], np.float32)
    for picture, cut in places:
        if picture == 0:
            total[cut] += weights
    result: Outputs = {}
    for start in range(0, len(places), AT_ONCE):
        batch = places[start : start + AT_ONCE]
        windows = np.stack([images[(picture, slice(None), *cut)] for picture, cut in batch])
        for head, logits in _run(session, model, windows).items():
            if head not in result:
                result[head] = np.zeros((len(images), logits.shape[1], *images.shape[-2:]), np.float32)
            for (picture, cut), one in zip(batch, logits, strict=True):
                result[head][(picture, slice(None), *cut)] += one * (weights / total[cut])
    return {head: output[..., :height, :width] for head, output in result.items()}


def _places(shape: Sequence[int], window: Window) -> Iterator[tuple[int, tuple[slice, slice]]]:
    """Number of the picture and place of every window, the longer side outermost."""
    ends = [side - window.side for side in shape[-2:]]
    tops, lefts = ([*range(0, end, window.stride), end] for end in ends)  # the last is moved back to the border
    for picture in range(shape[0]):
        corners = list(product(tops, lefts))
        for top, left in corners if shape[-2] > shape[-1] else sorted(corners, key=lambda corner: corner[::-1]):
            yield picture, (slice(top, top + window.side), slice(left, left + window.side))


def gaussian(window: int) -> Array:
    """Weights ``(window, window)``: 1 in the middle, sigma an eighth of the window, nowhere below `WEIGHT_FLOOR`."""
    distance = np.arange(window, dtype=np.float32) - np.float32((window - 1) / 2)
    profile = np.exp(-(distance**2) / np.float32(2 * (SIGMA * window) ** 2))
    return np.asarray(np.maximum(profile[:, None] * profile, np.float32(WEIGHT_FLOOR)))


def _run(session: Session, model: Model, images: Array) -> Outputs:
    """What a graph says of inputs ``(B, 3, H, W)``, as many at once as it takes."""
    size = images.shape[-2:]
    if model.input_size is not None and size != tuple(model.input_size):
        wanted = " x ".join(map(str, model.input_size))
        raise ConfigError(
            f"The graph {model.file} takes inputs of {wanted} pixels alone. Found {' x '.join(map(str, size))}. Export "
            "the model with sizes of any kind, or give pictures of this one."
        )
    most = model.batch or AT_ONCE
    parts = []
    for start in range(0, len(images), most):
        part = images[start : start + most]
        lacking = (model.batch or len(part)) - len(part)
        given = np.concatenate([part, part[-1:].repeat(lacking, axis=0)]) if lacking else part
        parts.append({head: output[: len(part)] for head, output in session(np.ascontiguousarray(given)).items()})
    _check(parts[0], model, size)
    return {head.name: np.concatenate([part[head.name] for part in parts]) for head in model.outputs}


def _check(outputs: Mapping[str, Array], model: Model, size: tuple[int, ...]) -> None:
    for head in model.outputs:
        shape = None if head.name not in outputs else outputs[head.name].shape[1:]
        channels = (len(head.classes),) if head.classes else ((shape or (1,))[0],)
        wanted = channels if head.kind == "image" else (*channels, *size)
        if shape != wanted or (head.kind == "image" and model.window is not None):
            raise ConfigError(
                f"The graph {model.file} should give `{head.name}` of shape {('B', *wanted)}. Found "
                f"{'none' if shape is None else ('B', *shape)}. Export the model again."
            )
