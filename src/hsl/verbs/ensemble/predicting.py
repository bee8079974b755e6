"""What the members say of pictures, one model in memory after the other, and what is made of it."""

import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig
from torch import Tensor

from hsl.batch import Batch
from hsl.config.targets import allowed_targets
from hsl.data.files.decoding import Decoding
from hsl.data.files.records import Record
from hsl.ensembles.dense import combine_maps
from hsl.ensembles.rows import Rows
from hsl.errors import ConfigError
from hsl.files.names import below
from hsl.heads import Head, of_kind
from hsl.inference.combining import FLOOR, tempered
from hsl.metrics.images.imagewise import probabilities_of
from hsl.run_folder.ensemble import is_ensemble
from hsl.verbs.ensemble.artefact import OpenedEnsemble, open_ensemble
from hsl.verbs.ensemble.member_rows import pooled_features
from hsl.verbs.ensemble.stages.variants import Chosen
from hsl.verbs.predict.outputs import OnBatch, OnBroken, RunModel, predicted_outputs

CHUNK = 16  # pictures whose maps are kept at once where all models are in memory
KEEP = ("one", "all")
FEATURES = Head("features", "image")
"""Pooled features are summed over the folds as probabilities are."""
Floats = NDArray[np.float32]


@dataclass(eq=False)
class MemberSums:
    """Probabilities of the members, summed over their folds; those of pixels lie on the disk."""

    folder: Path
    sums: dict[tuple[str, str], dict[str, Floats]] = field(default_factory=dict)

    def add(self, member: str, head: Head, name: str, values: Floats) -> None:
        """Take what one fold of a member says of one picture."""
        if head.kind == "image":
            kept = self.sums.setdefault((member, head.name), {})
            kept[name] = kept[name] + values if name in kept else values
            return
        path = self._path(member, head, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, np.load(path) + values if path.is_file() else values)

    def mean(self, member: str, head: Head, name: str, num_folds: int) -> Floats:
        """The mean over the folds."""
        kept = self.sums[member, head.name][name] if head.kind == "image" else np.load(self._path(member, head, name))
        return np.asarray(kept / num_folds)

    def clear(self) -> None:
        """Forget everything."""
        self.sums.clear()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, member: str, head: Head, name: str) -> Path:
        return below(self.folder / member / head.name, f"{name}.npy")


@dataclass(frozen=True, eq=False)
class EnsembleModel:
    """An ensemble as a model: what `hsl.verbs.predict.outputs.RunModel` has, of the recommended combinations.

    Attributes:
        ensemble: opened.
        models: of the members' runs, by member; weights are not loaded yet.
        keep_all: all models stay in memory; else one after the other is loaded and freed.
    """

    ensemble: OpenedEnsemble
    models: Mapping[str, Sequence[RunModel]]
    keep_all: bool

    @classmethod
    def open(cls, cfg: DictConfig) -> "EnsembleModel":
        """That of ``cfg.run``."""
        allowed = allowed_targets(cfg)
        if cfg.keep not in KEEP:
            raise ConfigError(f"`keep` should be one of {', '.join(KEEP)}. Found `keep = {cfg.keep}`. Choose one.")
        ensemble = open_ensemble(Path(cfg.run), allowed)
        runs = {member: ensemble.runs(member) for member in ensemble.members}
        models = {member: [RunModel.of(str(run), cfg, allowed) for run in some] for member, some in runs.items()}
        return cls(ensemble, models, cfg.keep == "all")

    @property
    def reads_features(self) -> bool:
        """Whether pooled features were among what the combinations were fitted on."""
        return any(variant.rows.features for variant in self.ensemble.variants.values())

    @property
    def first(self) -> RunModel:
        """One of the members, for what they have in common."""
        return next(iter(self.models.values()))[0]

    @property
    def runs(self) -> list[RunModel]:
        """Those of the members, fold by fold."""
        return [run for some in self.models.values() for run in some]

    @property
    def folders(self) -> list[Path]:
        """What is read."""
        return [self.ensemble.folder, *(run.folder for run in self.runs)]

    @property
    def scored_folders(self) -> list[Path]:
        """What has the scores of the recommended combinations, fold by fold; not those of its members."""
        made = [(self.ensemble.folder / head / one.name).glob("*") for head, one in self.ensemble.variants.items()]
        return [folder for some in made for folder in sorted(some)]

    @property
    def facts(self) -> Mapping[str, Any]:
        """The provenance of a member: how pictures are decoded."""
        return self.first.facts

    @property
    def heads(self) -> Mapping[str, Head]:
        """What is combined."""
        return self.ensemble.heads

    @property
    def dense(self) -> Collection[str]:
        """The heads that give masks."""
        return [head.name for head in of_kind(self.heads.values(), "dense")]

    @property
    def max_megapixels(self) -> float:
        """Of a picture."""
        return self.first.max_megapixels

    @property
    def thresholds(self) -> dict[str, list[float]]:
        """Of the image heads that may show several classes."""
        return {name: list(one.thresholds) for name, one in self.ensemble.page.heads.items() if one.thresholds}

    def outputs(
        self, records: Sequence[Record], decoding: Decoding, on_broken: OnBroken, on_batch: OnBatch, folder: Path
    ) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """Id and combined log-probabilities by head of every picture, as a network's logits would be.

        Args:
            records: the pictures.
            decoding: how they are decoded.
            on_broken: called for each picture that some member cannot do; it is left out.
            on_batch: called with each batch of the first model.
            folder: for what the members say of pixels until all have spoken: float32 maps of all pictures or, where
                all models stay, of `CHUNK` of them.
        """
        size = CHUNK if self.keep_all else max(1, len(records))
        for start in range(0, len(records), size):
            yield from self._outputs(records[start : start + size], decoding, on_broken, on_batch, folder)

    def _outputs(
        self, records: Sequence[Record], decoding: Decoding, on_broken: OnBroken, on_batch: OnBatch, folder: Path
    ) -> Iterator[tuple[str, dict[str, Tensor]]]:
        sums, left, look = MemberSums(folder), list(records), on_batch
        for member, models in self.models.items():
            heads = [self.heads[name] for name, variant in self.ensemble.variants.items() if member in variant.members]
            for model in models:
                used = model if self.keep_all else replace(model)  # a copy loads weights of its own, and is freed
                seen = set()
                for batch in used.data.predict_dataloader(left, decoding, on_broken=on_broken):
                    look(batch)
                    if self.reads_features:
                        for name, row in zip(batch["id"], _features(used, batch), strict=True):
                            sums.add(member, FEATURES, name, row)
                    for name, outputs in predicted_outputs(used.task, used.data, batch, on_broken):
                        seen.add(name)
                        for head in heads:
                            sums.add(member, head, name, _probabilities(outputs[head.name], head))
                left = [record for record in left if record.id in seen]  # what one cannot do, none is asked
                look = _nothing
        for record in left:
            yield record.id, self._combined(sums, record.id)
        sums.clear()

    def _combined(self, sums: MemberSums, name: str) -> dict[str, Tensor]:
        combined = {}
        for head_name, variant in self.ensemble.variants.items():
            head, members = self.heads[head_name], variant.members
            means = [sums.mean(member, head, name, len(self.models[member])) for member in members]
            temperature = self.ensemble.page.heads[head_name].temperature
            pooled = {}
            if self.reads_features:
                pooled = {one: sums.mean(one, FEATURES, name, len(self.models[one]))[None] for one in members}
            combined[head_name] = combine(variant, head, name, np.stack(means), temperature, pooled)
        return combined


def open_model(cfg: DictConfig) -> RunModel | EnsembleModel:
    """The run folder or the ensemble that ``cfg.run`` names."""
    return EnsembleModel.open(cfg) if is_ensemble(Path(cfg.run)) else RunModel.open(cfg)


def _nothing(_: Batch) -> None:
    """The pictures were looked at."""


def combine(
    variant: Chosen,
    head: Head,
    name: str,
    values: NDArray[Any],
    temperature: float | None = None,
    features: Mapping[str, NDArray[np.float32]] | None = None,
) -> Tensor:
    """Log-probabilities ``(K,)`` of an image, ``(C, H, W)`` of its pixels; log odds where several may be shown.

    Args:
        variant: how the members are combined.
        head: what is combined.
        name: id of the image.
        values: ``(M, K)`` or ``(M, C, H, W)``, in the order of the variant's members; of pixels they are taken in 8
            bits, as those that the combination was fitted on.
        temperature: that calibrates the result of an image; ``None``: it stays.
        features: member -> ``(1, D)`` pooled features of the image, where they are read.
    """
    if head.kind == "dense":
        maps = np.rint(255 * values).astype(np.uint8)
        kept = torch.from_numpy(combine_maps(variant.combined, maps, variant.members, head.classes))
        return kept.clamp_min(FLOOR).log()
    probabilities = values[:, None].astype(np.float64)
    rows = Rows.unlabelled([name], variant.members, head.classes, head.several, probabilities, features)
    found = np.asarray(variant(rows))
    if temperature is not None:
        found = tempered(found, temperature, head.several)
    kept = torch.from_numpy(np.maximum(found[0], FLOOR)).log()
    logits = kept - torch.from_numpy(np.maximum(1 - found[0], FLOOR)).log() if head.several else kept
    return logits.float()


@torch.inference_mode()
def _features(model: RunModel, batch: Batch) -> Floats:
    """``(B, D)`` as `hsl.verbs.ensemble.member_rows` pools them."""
    moved = cast(Batch, {**batch, "image": batch["image"].to(model.task.device)})
    images = model.data.on_after_batch_transfer(moved, 0)["image"]
    return np.asarray(pooled_features(model.task, model.data, images).cpu().numpy())


def _probabilities(logits: Tensor, head: Head) -> Floats:
    if head.kind == "image":
        return np.asarray(probabilities_of(logits[None], head.several)[0].numpy())
    return np.asarray(logits.softmax(dim=0).numpy())
