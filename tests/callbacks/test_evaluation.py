"""What is kept of every image, whatever the batches, and what goes to the pool."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hsl.batch import IGNORE_INDEX, Batch
from hsl.callbacks.evaluation import Evaluation, PartResult
from hsl.callbacks.object_scores import ObjectScores, bind_classes
from hsl.errors import ConfigError
from hsl.files.row_file import read_rows
from hsl.heads import Head, Problem
from hsl.metrics.objects.clustering import clustering_scores
from hsl.metrics.objects.panoptic import panoptic_counts

HEAD = Head("segmentation", "dense", ("clean", "crack"))
TASK: Any = SimpleNamespace(problem=Problem((HEAD,), {HEAD.name: torch.ones(2)}, {}))
POOL_HEAD = "segmentation"


def logits_of(prediction: list[list[int]], margin: float = math.log(3.0)) -> Tensor:
    """Two classes; the predicted one is ``margin`` above the other: confidence 3/4 by default."""
    chosen = torch.tensor(prediction)
    return torch.stack([(chosen == 0) * margin, (chosen == 1) * margin]).float()


def batch_of(ids: list[str], masks: list[list[list[int]]], sizes: list[tuple[int, int]] | None = None) -> Batch:
    target = torch.tensor(masks)
    size = torch.tensor(sizes or [tuple(target.shape[1:])] * len(ids))
    return {"id": ids, "image": torch.zeros(len(ids), 3, 2, 2), "size": size, "masks": {HEAD.name: target}}


def result_of(rights: dict[str, int], num_examples: int, batch_size: int = 2) -> PartResult:
    """Pictures of four pixels of class 0, of which as many as given are predicted rightly."""
    part, ids = PartResult(num_examples), list(rights)
    for start in range(0, len(ids), batch_size):
        names = ids[start : start + batch_size]
        predictions = [logits_of([[int(pixel >= rights[name]) for pixel in range(4)]]) for name in names]
        part.add(torch.stack(predictions), batch_of(names, [[[0, 0, 0, 0]]] * len(names)), HEAD)
    return part


def chosen(part: PartResult) -> tuple[list[str], list[str]]:
    best, worst = part.examples()
    return [one.id for one in best], [one.id for one in worst]


def confusions(part: PartResult) -> list[Any]:
    return [counts["matrices"].sum(axis=0) for counts in part.counts]


def test_one_confusion_and_one_confidence_per_picture() -> None:
    part = PartResult(0)
    logits = torch.stack([logits_of([[0, 1], [1, 1]]), logits_of([[0, 0], [0, 0]], margin=0.0)])
    part.add(logits, batch_of(["a", "b"], [[[0, 0], [1, 1]], [[0, 0], [0, 1]]]), HEAD)
    assert part.ids == ["a", "b"]
    assert [matrix.tolist() for matrix in confusions(part)] == [[[1, 1], [0, 2]], [[3, 0], [1, 0]]]
    assert part.confidences == pytest.approx([0.75, 0.5])


def test_ignored_pixels_count_neither_as_pixels_nor_as_confidence() -> None:
    part = PartResult(0)
    logits = logits_of([[0, 1]])
    logits[:, 0, 1] *= 100  # the ignored pixel is as sure as can be
    part.add(logits[None], batch_of(["a"], [[[0, IGNORE_INDEX]]]), HEAD)
    assert confusions(part)[0].tolist() == [[1, 0], [0, 0]]
    assert part.confidences == pytest.approx([0.75])


def test_without_a_valid_pixel_the_confidence_is_nan_and_the_picture_no_example() -> None:
    part = PartResult(5)
    logits = torch.stack([logits_of([[0, 0]])] * 2)
    part.add(logits, batch_of(["empty", "full"], [[[IGNORE_INDEX] * 2], [[0, 0]]]), HEAD)
    assert confusions(part)[0].sum() == 0
    assert math.isnan(part.confidences[0])
    assert part.confidences[1] == pytest.approx(0.75)
    assert chosen(part)[0] == ["full"]


def test_padding_changes_nothing() -> None:
    alone, padded = PartResult(1), PartResult(1)
    alone.add(logits_of([[0, 1]])[None], batch_of(["a"], [[[0, 0]]]), HEAD)
    logits = torch.zeros(1, 2, 2, 3)
    logits[0, :, :1, :2] = logits_of([[0, 1]])
    mask = [[0, 0, IGNORE_INDEX], [IGNORE_INDEX] * 3]
    padded.add(logits, batch_of(["a"], [mask], [(1, 2)]), HEAD)
    assert confusions(padded)[0].tolist() == confusions(alone)[0].tolist() == [[1, 1], [0, 0]]
    assert padded.confidences == pytest.approx(alone.confidences)
    (example,) = padded.examples()[0]
    assert example.prediction.dtype == np.uint8
    assert example.prediction.tolist() == [[0, 1]]
    np.testing.assert_allclose(example.confidence, [[0.75, 0.75]])


def test_examples_are_best_first_and_worst_first() -> None:
    part = result_of({"c": 2, "a": 4, "e": 0, "b": 3, "d": 1}, num_examples=2)
    best, worst = part.examples()
    assert [one.id for one in best] == ["a", "b"]
    assert [one.id for one in worst] == ["e", "d"]
    # class 0: rights of 4; class 1 is only predicted, so 0; the mean over both unless all is right
    assert [one.miou for one in best] == pytest.approx([1.0, 3 / 8])
    assert [one.miou for one in worst] == pytest.approx([0.0, 1 / 8])


@pytest.mark.parametrize(
    ("rights", "best", "worst"),
    [
        ({"a": 4}, ["a"], []),
        ({"a": 4, "b": 1}, ["a"], ["b"]),
        ({"a": 1, "b": 4, "c": 2}, ["b", "c"], ["a"]),
        ({"a": 4, "b": 4}, ["b"], ["a"]),  # equals are in one list only
    ],
)
def test_few_pictures_are_shared_out(rights: dict[str, int], best: list[str], worst: list[str]) -> None:
    assert chosen(result_of(rights, num_examples=30)) == (best, worst)


def test_equals_are_never_in_both_lists() -> None:
    assert chosen(result_of(dict.fromkeys("abcd", 4), num_examples=1)) == (["d"], ["a"])


@pytest.mark.parametrize("batch_size", [1, 3, 6])
def test_neither_order_nor_batches_matter(batch_size: int) -> None:
    rights = {"a": 4, "b": 0, "c": 4, "d": 2, "e": 4, "f": 0, "g": 0}
    expected = (["e", "c"], ["b", "f"])  # of equals, the later ids are better
    assert chosen(result_of(rights, 2, batch_size)) == expected
    assert chosen(result_of(dict(reversed(rights.items())), 2, batch_size)) == expected


def test_no_examples_are_kept_where_none_are_wanted() -> None:
    assert result_of({"a": 4, "b": 1}, num_examples=0).examples() == ([], [])


def trainer_of(*parts: str) -> Any:
    return SimpleNamespace(datamodule=SimpleNamespace(prepared=SimpleNamespace(evaluation_parts=parts)))


def test_the_callback_scores_parts_apart_and_starts_anew() -> None:
    evaluation = Evaluation("plain", num_examples=0)
    outputs = {"plain": {HEAD.name: logits_of([[0, 1]])[None]}}
    trainer = trainer_of("val", "test")
    for start in range(2):
        evaluation.on_test_start(trainer, TASK)
        for loader, name in enumerate(("v", "t")):
            batch = batch_of([f"{name}{start}"], [[[0, 0]]])
            evaluation.on_test_batch_end(trainer, TASK, outputs, batch, 0, loader)
    assert {loader: part.ids for loader, part in evaluation.parts.items()} == {0: ["v1"], 1: ["t1"]}


def test_it_reads_what_its_own_predictor_said() -> None:
    evaluation = Evaluation("tta", 0)
    batch = batch_of(["a"], [[[1, 1]]])
    outputs = {"plain": {HEAD.name: logits_of([[0, 0]])[None]}, "tta": {HEAD.name: logits_of([[1, 1]])[None]}}
    evaluation.on_test_batch_end(trainer_of("val"), TASK, outputs, batch, 0)
    assert confusions(evaluation.parts[0])[0].tolist() == [[0, 0], [0, 2]]


def test_sinks_get_every_class_map_at_the_size_of_its_source() -> None:
    evaluation, got = Evaluation("tta", 0), []
    evaluation.sinks = [lambda part, batch, class_maps, objects: got.append((part, batch["id"], class_maps))]
    batch = batch_of(["a", "b"], [[[0, 1]], [[0, IGNORE_INDEX]]], [(1, 2), (1, 1)])
    outputs = {"tta": {HEAD.name: torch.stack([logits_of([[0, 1]]), logits_of([[1, 1]])])}}
    evaluation.on_test_batch_end(trainer_of("val"), TASK, outputs, batch, 0)
    ((part, ids, class_maps),) = got
    assert (part, ids) == ("val/tta", ["a", "b"])
    assert [one.tolist() for one in class_maps] == [[[0, 1]], [[1]]]


def pool_trainer(epoch: int, *, sanity: bool = False, rank: int = 0, world: int = 1) -> Any:
    data = SimpleNamespace(
        prepared=SimpleNamespace(classes={POOL_HEAD: ("clean", "crack")}, instances=lambda name: None)
    )
    return SimpleNamespace(
        current_epoch=epoch, sanity_checking=sanity, global_rank=rank, world_size=world, datamodule=data,
        is_global_zero=rank == 0, strategy=SimpleNamespace(barrier=int),
    )  # fmt: skip


def validate(callback: ObjectScores, trainer: Any, name: str) -> None:
    masks = {POOL_HEAD: torch.tensor([[[0, 1, 255], [0, 1, 255]]])}
    batch = {"id": [name], "image": torch.zeros(1), "size": torch.tensor([[2, 2]]), "masks": masks}
    logits = torch.tensor([0.0, 1.0])[:, None, None] * torch.tensor([[0.0, 1.0, 1.0], [0.0, 1.0, 1.0]])
    logits = torch.stack([0.5 * torch.ones(2, 3), logits[1]])
    callback.on_validation_batch_end(trainer, None, {POOL_HEAD: logits[None]}, batch, 0)  # type: ignore[arg-type]


def test_every_nth_epoch_leaves_a_line_per_picture(tmp_path: Path) -> None:
    path = tmp_path / "objects_validation.jsonl"
    callback = ObjectScores(str(path), {"panoptic": panoptic_counts, "clustering": clustering_scores}, 1, 2)
    callback.on_fit_start(pool_trainer(0), None)  # type: ignore[arg-type]
    validate(callback, pool_trainer(0, sanity=True), "a")
    for epoch in range(4):
        callback.on_train_batch_end()
        validate(callback, pool_trainer(epoch), "a")
    callback.on_fit_end(pool_trainer(4), None)  # type: ignore[arg-type]
    rows = list(read_rows(path))
    assert [(row["part"], row["id"]) for row in rows] == [("val/epoch_1", "a"), ("val/epoch_3", "a")]
    assert rows[0]["metrics"]["panoptic"]["tp"] == [0, 1]
    assert rows[0]["metrics"]["clustering"]["valid_pixels"] == 4  # the padding is cut off


def test_a_run_that_breaks_keeps_the_lines_written_and_a_resumed_one_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "objects_validation.jsonl"
    for epoch in range(2):
        callback = ObjectScores(str(path), {"panoptic": panoptic_counts}, 1, 1)
        callback.on_fit_start(pool_trainer(epoch), None)  # type: ignore[arg-type]
        validate(callback, pool_trainer(epoch), "a")
        if epoch == 0:
            while not path.stat().st_size:
                callback.on_train_batch_end()
            callback.on_exception(pool_trainer(epoch), None, KeyboardInterrupt())  # type: ignore[arg-type]
        else:
            callback.on_fit_end(pool_trainer(epoch), None)  # type: ignore[arg-type]
    assert [row["part"] for row in read_rows(path)] == ["val/epoch_0", "val/epoch_1"]


def test_each_process_of_a_distributed_run_has_its_file(tmp_path: Path) -> None:
    callback = ObjectScores(str(tmp_path / "o.jsonl"), {"panoptic": panoptic_counts}, 1, 1)
    callback.on_fit_start(pool_trainer(0, rank=1, world=2), None)  # type: ignore[arg-type]
    callback.on_fit_end(pool_trainer(0, rank=1, world=2), None)  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["o.rank1.jsonl"]


def test_the_files_of_the_processes_become_one(tmp_path: Path) -> None:
    path = tmp_path / "o.jsonl"
    for rank in (1, 0):  # the first one closes last
        callback = ObjectScores(str(path), {"panoptic": panoptic_counts}, 1, 1)
        trainer = pool_trainer(0, rank=rank, world=2)
        callback.on_fit_start(trainer, None)  # type: ignore[arg-type]
        validate(callback, trainer, f"{rank}")
        callback.on_fit_end(trainer, None)  # type: ignore[arg-type]
    assert [row["id"] for row in read_rows(path)] == ["0", "1"]
    assert [one.name for one in tmp_path.iterdir()] == ["o.jsonl"]


def test_the_number_of_epochs_is_checked() -> None:
    with pytest.raises(ConfigError, match=r"`every_n_epochs` should be at least 1. Found `every_n_epochs = 0`"):
        ObjectScores("o.jsonl", {}, 1, 0)


def test_the_number_of_classes_goes_to_those_that_ask() -> None:
    assert bind_classes(lambda prediction, target, num_classes: num_classes, 4)(0, 0) == 4
    assert bind_classes(clustering_scores, 4) is clustering_scores
