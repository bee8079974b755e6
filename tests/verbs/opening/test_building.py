"""A checkpoint that cannot be used is refused by its name."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import nn

from hsl.errors import ConfigError
from hsl.tasks.segmentation import SegmentationTask
from hsl.verbs.opening.building import load_checkpoint_weights


def task() -> SegmentationTask:
    """Any module will do: only its weights are asked for."""
    return cast(SegmentationTask, nn.Linear(2, 1))


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_checkpoint_weights(task(), path)
    assert f"`{path}`" in str(caught.value)
    return str(caught.value)


def test_weights_are_loaded(tmp_path: Path) -> None:
    trained, fresh = task(), task()
    torch.save({"state_dict": trained.state_dict(), "epoch": 1}, tmp_path / "best.ckpt")
    load_checkpoint_weights(fresh, tmp_path / "best.ckpt")
    torch.testing.assert_close(dict(fresh.state_dict()), dict(trained.state_dict()), rtol=0, atol=0)


def test_a_missing_one(tmp_path: Path) -> None:
    assert "Has the run finished?" in refusal(tmp_path / "best.ckpt")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 half a zip"])
def test_a_broken_one(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "best.ckpt"
    path.write_bytes(content)
    assert "should be a checkpoint of hsl" in refusal(path)


def test_half_of_one(tmp_path: Path) -> None:
    path = tmp_path / "best.ckpt"
    torch.save({"state_dict": task().state_dict()}, path)
    path.write_bytes(path.read_bytes()[:-200])
    assert "should be a checkpoint of hsl" in refusal(path)


def test_one_that_would_run_code(tmp_path: Path) -> None:
    path = tmp_path / "best.ckpt"
    torch.save({"state_dict": task().state_dict(), "more": Path("object")}, path)
    assert "should be a checkpoint of hsl" in refusal(path)


def test_one_of_another_program(tmp_path: Path) -> None:
    path = tmp_path / "best.ckpt"
    torch.save({"weights": task().state_dict()}, path)
    assert "state_dict" in refusal(path)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"weight": torch.zeros(1, 2)}, "bias"),  # one missing
        ({"weight": torch.zeros(1, 2), "bias": torch.zeros(1), "more": torch.zeros(1)}, "more"),
        ({"weight": torch.zeros(1, 3), "bias": torch.zeros(1)}, "size mismatch for weight"),
    ],
)
def test_one_of_another_model(tmp_path: Path, other: dict[str, Any], named: str) -> None:
    path = tmp_path / "best.ckpt"
    torch.save({"state_dict": other}, path)
    message = refusal(path)
    assert "should fit the model of this run" in message
    assert named in message


def test_one_of_another_model_is_told_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "best.ckpt"
    torch.save({"state_dict": nn.Sequential(*[nn.Linear(2, 2) for _ in range(9)]).state_dict()}, path)
    said = refusal(path)
    assert "\n" not in said
    assert "0.weight" in said
    assert len(said) < 500 + len(str(path))
