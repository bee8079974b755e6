"""The frozen encoder of a gate: which may be one, and that it comes back as it was."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from hsl.errors import ConfigError, DataError
from hsl.exporting.generic_encoder import ENCODER, FrozenEncoder
from hsl.models.encoders import Encoder, build_encoder

NORMAL = {"mean": [0.5] * 3, "std": [0.25] * 3}


def build(weights: str | None, **options: Any) -> Encoder:
    return build_encoder("tu-resnet10t.c3_in1k", weights=weights, normalization=NORMAL, **options)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "resnet10t.pt"
    torch.manual_seed(3)
    torch.save(build(None).body.state_dict(), path)
    return path


@pytest.mark.filterwarnings("ignore:`tu-resnet10t")
def test_the_copy_beside_the_gate_gives_the_same_features(weights: Path, tmp_path: Path) -> None:
    frozen = FrozenEncoder.freeze(build(str(weights)), 64, 32)
    frozen.save(tmp_path)
    gate: Any = SimpleNamespace(encoder=frozen.facts)
    again = FrozenEncoder.open(tmp_path, gate)
    images = [np.random.default_rng(i).integers(0, 256, (40 + i, 90, 3), np.uint8) for i in range(3)]
    features = frozen.features_of(images)
    assert features.shape == (3, 512) == (3, frozen.facts.dimension)
    np.testing.assert_array_equal(again.features_of(images), features)
    np.testing.assert_array_equal(again.features(images[1]), features[1])
    assert not any(parameter.requires_grad for parameter in again.network.parameters())
    gate.encoder = replace(frozen.facts, name="tu-resnet18.a1_in1k")
    with pytest.raises(DataError, match=r"should fit `tu-resnet18\.a1_in1k`"):
        FrozenEncoder.open(tmp_path, gate)
    gate.encoder = replace(frozen.facts, stored_sha256="0" * 64)
    with pytest.raises(DataError, match=r"\(SHA-256 00000000\)\. Found another file"):
        FrozenEncoder.open(tmp_path, gate)
    (tmp_path / ENCODER).unlink()
    with pytest.raises(DataError, match="Found none"):
        FrozenEncoder.open(tmp_path, gate)


@pytest.mark.filterwarnings("ignore:`tu-resnet10t")
def test_random_and_trained_encoders_are_refused(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"`tu-resnet10t.c3_in1k` with weights that are random\. Choose one"):
        FrozenEncoder.freeze(build(None), 64, 64)
    with pytest.raises(ConfigError, match=r"with random parts \(1 modules"):
        FrozenEncoder.freeze(build(str(weights), cbam_stages=[4]), 64, 64)
    trained = build(str(weights))
    trained.weights_used = {**trained.weights_used, "source": "run"}
    with pytest.raises(ConfigError, match="weights that are of a run"):
        FrozenEncoder.freeze(trained, 64, 64)
    frozen = FrozenEncoder.freeze(build(str(weights)), 64, 64)
    assert frozen.facts.source == "file:resnet10t.pt", "the way out works"
