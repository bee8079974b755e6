"""Test-time augmentation: the mean over the picture's orientations."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from hsl.batch import Outputs
from hsl.errors import ConfigError
from hsl.inference.geometry import TURNS_THEN_MIRROR
from hsl.inference.predictor import Network, Predictor


class TestTimeAugmentation:
    r"""Mean of the class probabilities over several orientations of the picture.

    .. math:: \log \bar p = \log \frac{1}{T} \sum_{t=1}^{T} t^{-1}\bigl(\mathrm{softmax}(f(t(x)))\bigr)

    with ``f`` the predictor inside, ``t`` one of ``T`` symmetries of the square and the softmax over classes.
    Of an image head, whose output ``(B, K)`` is the same whatever the orientation, it is the mean of the logits: one
    that says which of several classes are present has a sigmoid for each, not a softmax over all. Of a map,
    such as a distance, it is the mean of the values.
    The mean is returned as log-probabilities: ``softmax`` of an output is exactly the mean, so losses,
    metrics and calibration read it like any logits. It is summed in float32 and in log space, so a
    probability too small for a float stays apart from zero. The orientations run one after the other; memory
    does not grow with their number.

    Args:
        predictor: ``(network, images) -> outputs``; any predictor, so this composes with a sliding window.
        transforms: names among identity, hflip, vflip, rot90, rot180, rot270, transpose, antitranspose;
            ``dihedral`` stands for all eight. Quarter turns swap height and width.

    Raises:
        ConfigError: an unknown name, a name given twice (it would count twice), or no name.
    """

    __test__ = False  # pytest takes classes named Test* for tests

    def __init__(self, predictor: Predictor, transforms: str | Sequence[str]) -> None:
        names = [transforms] if isinstance(transforms, str) else list(transforms)
        self.predictor = predictor
        self.transforms = _checked([each for name in names for each in _expand(name)])

    def __call__(self, network: Network, images: Tensor) -> Outputs:
        """Log-probabilities ``float32 (B, C, H, W)`` of every dense head, for ``images`` ``(B, 3, H, W)``.

        Raises:
            ConfigError: a head gives embeddings.
        """
        total: Outputs = {}
        for name in self.transforms:
            for head, output in self.predictor(network, turn(images, name)).items():
                kind = network.known_heads[head].kind
                if kind == "dense":
                    seen = turn_back(_log_probabilities(output.float()), name)
                    total[head] = torch.logaddexp(total[head], seen) if head in total else seen
                    continue
                if kind == "embedding":
                    raise ConfigError(
                        f"Head `{head}` should give classes or a map for test-time augmentation. Found embeddings, "
                        "whose mean means nothing. Evaluate it with `inference=whole`."
                    )
                share = (turn_back(output.float(), name) if kind == "map" else output.float()) / len(self.transforms)
                total[head] = total[head] + share if head in total else share
        return {
            head: output - math.log(len(self.transforms)) if network.known_heads[head].kind == "dense" else output
            for head, output in total.items()
        }


def _log_probabilities(logits: Tensor) -> Tensor:
    """Log-softmax; NaN for an image with a logit that is not finite: an infinite one would vanish in the mean."""
    places = (1, 2, 3)
    mark = 0 * logits.amin(places, keepdim=True) + 0 * logits.amax(places, keepdim=True)
    return logits.log_softmax(1) + mark


def turn(images: Tensor, name: str) -> Tensor:
    """Bring the last two axes of ``images`` into the orientation ``name``."""
    turns, mirror = TURNS_THEN_MIRROR[name]
    turned = torch.rot90(images, turns, (-2, -1))
    return turned.flip(-1) if mirror else turned


def turn_back(images: Tensor, name: str) -> Tensor:
    """Undo `turn`, exactly."""
    turns, mirror = TURNS_THEN_MIRROR[name]
    return torch.rot90(images.flip(-1) if mirror else images, -turns, (-2, -1))


def _expand(name: str) -> tuple[str, ...]:
    return tuple(TURNS_THEN_MIRROR) if name == "dihedral" else (name,)


def _checked(names: list[str]) -> tuple[str, ...]:
    choices = ", ".join([*TURNS_THEN_MIRROR, "dihedral (all eight)"])
    if unknown := [name for name in names if name not in TURNS_THEN_MIRROR]:
        raise ConfigError(f"`transforms` should be among {choices}. Found `{', '.join(map(str, unknown))}`.")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(
            f"`transforms` should name each orientation once. Found `{', '.join(twice)}` twice: "
            "it would count double. Leave one out."
        )
    if not names:
        raise ConfigError(f"`transforms` should not be empty. Choose among {choices}.")
    return tuple(names)
