"""The frozen encoder of a gate in torch: made from published weights, kept beside the gate, opened again."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor, nn

from hsl.errors import ConfigError, DataError
from hsl.exporting.gate import GATE, Gate, GenericEncoder
from hsl.files.io import sha256_of, write_atomically
from hsl.models.encoders import Encoder, build_encoder
from hsl.models.state_dict import read_state_dict

ENCODER = "encoder.safetensors"


class PooledEncoder(nn.Module):
    """Normalised images ``(B, 3, H, W)`` to the mean of the encoder's deepest features ``(B, D)``."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        pooled: Tensor = self.encoder(images)[-1].float().mean(dim=(2, 3))
        return pooled


@dataclass(frozen=True, eq=False)
class FrozenEncoder:
    """An encoder that is never trained, and what `gate.json` says of it."""

    facts: GenericEncoder
    network: PooledEncoder

    @classmethod
    def freeze(cls, encoder: Encoder, height: int, width: int) -> "FrozenEncoder":
        """Take an encoder with published weights, or with those of a file.

        Args:
            encoder: built, with its weights loaded to the last key.
            height: of what it sees, in pixels; any image is brought to this size.
            width: the same.

        Raises:
            ConfigError: its weights are random, of a run, or not whole: distances would mean nothing, or collapse.
        """
        used = encoder.weights_used
        source = "of a run" if used["source"] == "run" else used["source"]
        if len(encoder.cbam) or used["missing"] or source in ("random", "of a run"):
            random = len(encoder.cbam) + len(used["missing"])
            found = f"random parts ({random} modules or tensors)" if random else f"weights that are {source}"
            raise ConfigError(
                f"The encoder of a gate should have weights that neither are random nor saw these pictures. Found "
                f"`{encoder.name}` with {found}. Choose one whose ImageNet weights are here, or pass a state dict that "
                "fills it as `encoder.weights=PATH`."
            )
        network, dimension = PooledEncoder(encoder).eval().requires_grad_(False), encoder.out_channels[-1]
        mean, std = (tuple(encoder.normalization[key]) for key in ("mean", "std"))
        facts = GenericEncoder(encoder.name, used["source"], used["sha256"], "", height, width, mean, std, dimension)
        return cls(replace(facts, stored_sha256=hashlib.sha256(_content(network)).hexdigest()), network)

    @classmethod
    def open(cls, folder: Path, gate: Gate) -> "FrozenEncoder":
        """That of a gate, from the copy beside it; nothing is fetched.

        Raises:
            DataError: the copy is missing, or another file.
        """
        path, facts = folder / ENCODER, gate.encoder
        if not path.is_file() or sha256_of(path) != facts.stored_sha256:
            found = "another file" if path.is_file() else "none"
            raise DataError(
                f"`{path}` should be the encoder that {GATE} names (SHA-256 {facts.stored_sha256[:8]}). Found {found}. "
                "Restore it, or make the gate anew with `hsl gate`."
            )
        normalization = {"mean": facts.mean, "std": facts.std}
        encoder = build_encoder(
            facts.name, weights=None, normalization=normalization, image_size=(facts.height, facts.width)
        )
        network = PooledEncoder(encoder)
        try:
            network.encoder.body.load_state_dict(read_state_dict(path))
        except RuntimeError as error:
            raise DataError(
                f"`{path}` should fit `{facts.name}`, which {GATE} names. Found other tensors. Make the gate anew with "
                "`hsl gate`."
            ) from error
        return cls(facts, network.eval().requires_grad_(False))

    def save(self, folder: Path) -> None:
        """Write the copy of the weights."""
        write_atomically(folder / ENCODER, _content(self.network))

    @torch.inference_mode()
    def features(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """``(D,)`` of an image ``(H, W, 3)``."""
        return np.asarray(self.network(torch.from_numpy(self.facts.input_of(image)))[0].numpy())

    def features_of(self, images: Iterable[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """``(N, D)``, one image after the other: a row does not depend on what stands beside it."""
        return np.stack([self.features(image) for image in images])


def _content(network: PooledEncoder) -> bytes:
    state = {name: tensor.contiguous() for name, tensor in network.encoder.body.state_dict().items()}
    return bytes(save(state))
