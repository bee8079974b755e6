"""Object scores of a validation, written while the training goes on."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hsl.callbacks.object_scores import ObjectScores, bind_classes
from hsl.errors import ConfigError
from hsl.files.row_file import read_rows
from hsl.metrics.objects.clustering import clustering_scores
from hsl.metrics.objects.panoptic import panoptic_counts

HEAD = "segmentation"


def trainer_of(epoch: int, *, sanity: bool = False, rank: int = 0, world: int = 1) -> Any:
    data = SimpleNamespace(prepared=SimpleNamespace(classes={HEAD: ("clean", "crack")}, instances=lambda name: None))
    return SimpleNamespace(
        current_epoch=epoch, sanity_checking=sanity, global_rank=rank, world_size=world, datamodule=data
    )


def validate(callback: ObjectScores, trainer: Any, name: str) -> None:
    masks = {HEAD: torch.tensor([[[0, 1, 255], [0, 1, 255]]])}
    batch = {"id": [name], "image": torch.zeros(1), "size": torch.tensor([[2, 2]]), "masks": masks}
    logits = torch.tensor([0.0, 1.0])[:, None, None] * torch.tensor([[0.0, 1.0, 1.0], [0.0, 1.0, 1.0]])
    logits = torch.stack([0.5 * torch.ones(2, 3), logits[1]])
    callback.on_validation_batch_end(trainer, None, {HEAD: logits[None]}, batch, 0)  # type: ignore[arg-type]


def test_every_nth_epoch_leaves_a_line_per_picture(tmp_path: Path) -> None:
    path = tmp_path / "objects_validation.jsonl"
    callback = ObjectScores(str(path), {"panoptic": panoptic_counts, "clustering": clustering_scores}, 1, 2)
    callback.on_fit_start(trainer_of(0), None)  # type: ignore[arg-type]
    validate(callback, trainer_of(0, sanity=True), "a")
    for epoch in range(4):
        callback.on_train_batch_end()
        validate(callback, trainer_of(epoch), "a")
    callback.on_fit_end(trainer_of(4), None)  # type: ignore[arg-type]
    rows = list(read_rows(path))
    assert [(row["part"], row["id"]) for row in rows] == [("val/epoch_1", "a"), ("val/epoch_3", "a")]
    assert rows[0]["metrics"]["panoptic"]["tp"] == [0, 1]
    assert rows[0]["metrics"]["clustering"]["valid_pixels"] == 4  # the padding is cut off


def test_a_run_that_breaks_keeps_the_lines_written_and_a_resumed_one_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "objects_validation.jsonl"
    for epoch in range(2):
        callback = ObjectScores(str(path), {"panoptic": panoptic_counts}, 1, 1)
        callback.on_fit_start(trainer_of(epoch), None)  # type: ignore[arg-type]
        validate(callback, trainer_of(epoch), "a")
        if epoch == 0:
            while not path.stat().st_size:
                callback.on_train_batch_end()
            callback.on_exception(trainer_of(epoch), None, KeyboardInterrupt())  # type: ignore[arg-type]
        else:
            callback.on_fit_end(trainer_of(epoch), None)  # type: ignore[arg-type]
    assert [row["part"] for row in read_rows(path)] == ["val/epoch_0", "val/epoch_1"]


def test_each_process_of_a_distributed_run_has_its_file(tmp_path: Path) -> None:
    callback = ObjectScores(str(tmp_path / "o.jsonl"), {"panoptic": panoptic_counts}, 1, 1)
    callback.on_fit_start(trainer_of(0, rank=1, world=2), None)  # type: ignore[arg-type]
    callback.on_fit_end(trainer_of(0), None)  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["o.rank1.jsonl"]


def test_the_number_of_epochs_is_checked() -> None:
    with pytest.raises(ConfigError, match=r"`every_n_epochs` should be at least 1. Found `every_n_epochs = 0`"):
        ObjectScores("o.jsonl", {}, 1, 0)


def test_the_number_of_classes_goes_to_those_that_ask() -> None:
    assert bind_classes(lambda prediction, target, num_classes: num_classes, 4)(0, 0) == 4
    assert bind_classes(clustering_scores, 4) is clustering_scores
