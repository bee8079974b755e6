"""What a trained model says of pictures from anywhere, by the path that ``evaluate`` takes."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from hsl.batch import Batch, Outputs
from hsl.config.targets import allowed_targets
from hsl.data.datamodule import DataModule
from hsl.data.files.decoding import Decoding
from hsl.data.files.records import Record
from hsl.errors import ConfigError, NonFiniteLogitsError, UserError
from hsl.exporting.prediction import Prediction
from hsl.heads import Head, of_kind
from hsl.metrics.images.imagewise import probabilities_of
from hsl.run_folder.layout import best_checkpoint
from hsl.run_folder.provenance import read_provenance
from hsl.tasks.micro_batches import pieces
from hsl.tasks.segmentation import SegmentationTask
from hsl.verbs.opening.building import choose_predictor, load_checkpoint_weights, rebuild_data, rebuild_task
from hsl.verbs.opening.opening import building_from, open_run
from hsl.verbs.scoring.image_results import stored_thresholds

OnBroken = Callable[[UserError], None]
OnBatch = Callable[[Batch], None]


@dataclass(frozen=True, eq=False)
class RunModel:
    """The model of a run folder.

    Attributes:
        folder: of the run.
        cfg: its config, with the ``inference`` of the command where one is given.
        facts: its provenance.
        inference: the name under which the run scored itself with this predictor; ``None``: it never did.
    """

    folder: Path
    cfg: DictConfig
    facts: Mapping[str, Any]
    inference: str | None

    @classmethod
    def open(cls, cfg: DictConfig) -> "RunModel":
        """That of ``cfg.run``; weights are not loaded yet."""
        return cls.of(cfg.run, cfg, allowed_targets(cfg))

    @classmethod
    def of(cls, run: str, cfg: DictConfig, allowed: Collection[str]) -> "RunModel":
        """That of a run folder, which may build what is ``allowed``."""
        folder, run_cfg = open_run(run, allowed)
        return cls(folder, run_cfg, read_provenance(folder), choose_predictor(run_cfg, cfg))

    @property
    def folders(self) -> list[Path]:
        """What is read."""
        return [self.folder]

    @property
    def runs(self) -> "list[RunModel]":
        """Itself: the runs behind it."""
        return [self]

    @property
    def scored_folders(self) -> list[Path]:
        """What has its scores."""
        return [self.folder]

    @property
    def heads(self) -> Mapping[str, Head]:
        """What its outputs are, by name."""
        return self.task.heads

    @property
    def dense(self) -> Collection[str]:
        """The heads that give masks."""
        with building_from(self.folder):
            return list(self.facts["classes"])

    @property
    def max_megapixels(self) -> float:
        """Of a picture."""
        return float(self.data.source.max_megapixels)

    @cached_property
    def task(self) -> SegmentationTask:
        """With the weights of the best checkpoint, on the GPU where there is one."""
        with building_from(self.folder):
            task = rebuild_task(self.cfg, self.facts)
        load_checkpoint_weights(task, best_checkpoint(self.folder))
        return task.eval().to("cuda" if torch.cuda.is_available() else "cpu")

    @cached_property
    def data(self) -> DataModule:
        """What brings pictures to the model."""
        with building_from(self.folder):
            return rebuild_data(self.cfg, self.facts)

    @cached_property
    def thresholds(self) -> dict[str, list[float]]:
        """Of the image heads that may show several classes."""
        heads = [head for head in of_kind(self.heads.values(), "image") if head.several]
        return {head.name: stored_thresholds(self.folder, head.name, head.classes, self.inference) for head in heads}

    def outputs(
        self, records: Sequence[Record], decoding: Decoding, on_broken: OnBroken, on_batch: OnBatch, folder: Path | None
    ) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """Id and logits by head, see `predicted_outputs`.

        Args:
            records: the pictures.
            decoding: how they are decoded.
            on_broken: called for each that cannot be done; it is left out.
            on_batch: called with each batch as it is loaded.
            folder: for what is kept meanwhile; here nothing is.
        """
        del folder
        for batch in self.data.predict_dataloader(records, decoding, on_broken=on_broken):
            on_batch(batch)
            yield from predicted_outputs(self.task, self.data, batch, on_broken)

    def predictions(
        self, records: Sequence[Record], decoding: Decoding, on_broken: OnBroken
    ) -> Iterator[tuple[str, Prediction]]:
        """Id and probabilities of every picture that can be done."""
        for name, outputs in self.outputs(records, decoding, on_broken, _unseen, None):
            yield name, prediction_of(outputs, self.heads, self.thresholds)


def refuse_bands(facts: Mapping[str, Any], what: str) -> None:
    """Refuse a model of named channels where pictures come as red, green and blue.

    Raises:
        ConfigError: it is one.
    """
    if (bands := facts.get("bands")) is not None:
        raise ConfigError(
            f"{what} should take red, green and blue. Found one of {len(bands['names'])} channels "
            f"({', '.join(bands['names'])}). Use `hsl predict`."
        )


def _unseen(_: Batch) -> None:
    """The batch needs no look."""


def prediction_of(outputs: Outputs, heads: Mapping[str, Head], thresholds: Mapping[str, Sequence[float]]) -> Prediction:
    """What the dense and image heads say of one picture, from its logits; objects are not cut apart.

    Args:
        outputs: ``(C, H, W)`` at the picture's own size, ``(K,)`` of an image head.
        heads: what they are; heads without outputs are left out.
        thresholds: of the image heads that may show several classes.
    """
    known = {name: head for name, head in heads.items() if name in outputs and head.kind in ("dense", "image")}
    probabilities = {
        name: probabilities_of(outputs[name][None], head.several and head.kind == "image")[0].numpy()
        for name, head in known.items()
    }
    return Prediction(known, probabilities, thresholds)


@torch.inference_mode()
def predicted_outputs(
    task: SegmentationTask, data: DataModule, batch: Batch, on_broken: Callable[[UserError], None]
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Id and logits by head: ``(C, H, W)`` at the picture's own size, ``(K,)`` of an image head.

    By the path that ``evaluate`` takes. Pictures whose logits are not finite are told to `on_broken` and left out.
    """
    batch["image"] = batch["image"].to(task.device)
    try:
        outputs = task.predict(data.on_after_batch_transfer(batch, 0))
    except NonFiniteLogitsError as error:
        if len(batch["id"]) == 1:
            on_broken(error)
            return
        for part in pieces(batch, 1):
            yield from predicted_outputs(task, data, part, on_broken)
        return
    for i, (name, (height, width)) in enumerate(zip(batch["id"], batch["size"].tolist(), strict=True)):
        yield (
            name,
            {
                head: (output[i] if task.heads[head].kind == "image" else output[i, :, :height, :width]).cpu()
                for head, output in outputs.items()
            },
        )
