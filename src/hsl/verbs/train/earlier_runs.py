"""What a run takes over from an earlier one: a checkpoint to go on from, or first weights; never across a split."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from hsl.config.moved import with_present_targets
from hsl.data.bands.bands import BandStatistics
from hsl.data.datamodule import DataModule
from hsl.data.files.scan import annotation_hashes
from hsl.data.prepared import PreparedData
from hsl.errors import ConfigError
from hsl.files.split_file import read_split
from hsl.run_folder.checkpoint import TRAINING, read_checkpoint, whole_sibling
from hsl.run_folder.claim import RunFolder
from hsl.run_folder.earlier import differing, epochs_done, in_words
from hsl.run_folder.layout import BEST, SPLITS
from hsl.run_folder.provenance import read_provenance
from hsl.tasks.segmentation import SegmentationTask
from hsl.terminal import say
from hsl.verbs.opening.building import fill_task
from hsl.verbs.scoring.results import check_same_split


def learned_from(facts: Mapping[str, Any], data: PreparedData) -> bool:
    """Whether a run of this provenance saw these very pictures in their range, masks and labels.

    Older ones do not tell of masks and labels.

    Args:
        facts: The provenance.
        data: Prepared data.
    """
    found = annotation_hashes(data.catalogue, data.scan, data.parts)
    same = facts.get("split_sha256") == data.fold_assignment.sha256 and facts.get("annotations_sha256", found) == found
    return same and _same_range(facts, data) and _same_bands(facts, data)


def _same_range(facts: Mapping[str, Any], data: PreparedData) -> bool:
    trained = facts.get("value_range")
    return (None if trained is None else tuple(trained)) == data.catalogue.value_range


def _same_bands(facts: Mapping[str, Any], data: PreparedData) -> bool:
    trained = BandStatistics.read(facts.get("bands"))
    return (None if trained is None else trained.bands) == data.catalogue.bands


def check_same_range(run: Path, data: PreparedData) -> None:
    """Refuse pictures whose black and white, or whose channels, are not those that the run was trained with.

    Raises:
        ConfigError: ``value_range`` or ``bands`` differ.
    """
    facts = read_provenance(run)
    if not _same_range(facts, data):
        found = data.catalogue.value_range
        raise ConfigError(
            f"`value_range` should be that of the run, {facts.get('value_range')}. Found "
            f"{None if found is None else list(found)}. Restore the line `value_range` of dataset.yaml."
        )
    if not _same_bands(facts, data):
        trained, bands = BandStatistics.read(facts.get("bands")), data.catalogue.bands
        both = None if trained is None else trained.bands, bands
        names = [None if each is None else list(each.names) for each in both]
        raise ConfigError(
            f"`bands` should be those of the run, {names[0]}. Found {names[1]}, or other ranges. Restore the lines "
            "`bands` and `shown` of dataset.yaml."
        )


def take_over(folder: RunFolder, cfg: DictConfig, data: PreparedData, task: SegmentationTask) -> None:
    """Load the weights that a training goes on with, and see that it can, before anything is written.

    Args:
        folder: With a checkpoint.
        cfg: Of this run.
        data: Those of this run, prepared.
        task: Of this run; gets the weights.

    Raises:
        ConfigError: the checkpoint is damaged, of another model, optimizer, fold or data, or has no epoch left to
            train.
    """
    checkpoint = folder.checkpoint
    if checkpoint is None:
        return
    content = _read(checkpoint)
    facts = content["provenance"]
    fill_task(task, checkpoint, content)
    cast(Any, task.network).encoder.weights_used = facts["weights_used"]  # where the training began
    check_resumable(checkpoint, facts, cfg.fold, data)
    _check_epochs(checkpoint, epochs_done(content), cfg.trainer.max_epochs, new=folder.new)
    _check_optimizer(checkpoint, content, cfg, task)
    if folder.new:
        _announce(checkpoint, facts, cfg, longer=folder.longer)
    elif not checkpoint.with_name(BEST).is_file():
        if not _has_best(content):  # it was interrupted before its first validation
            return
        raise ConfigError(
            f"`{checkpoint.with_name(BEST)}` should be there: it is the best of the epochs that are done. Found "
            "none. Put it back, or start a new run with `resume=null`."
        )
    else:
        read_checkpoint(checkpoint.with_name(BEST), TRAINING)


def _has_best(content: Mapping[str, Any]) -> bool:
    states = [state for state in content["callbacks"].values() if isinstance(state, dict)]
    return any(state.get("best_model_score") is not None for state in states)


def same_schedule(cfg: DictConfig, data: DataModule, epochs: int, steps: int) -> bool:
    """Whether the learning rates of the first ``steps`` are the same in a run of ``epochs`` as in one of ``cfg``."""
    batches = len(data.train_dataloader())
    limit = cfg.trainer.get("limit_train_batches") or 1.0
    batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    per_epoch = math.ceil(batches / cfg.trainer.accumulate_grad_batches)
    curves = [_learning_rates(cfg, total, per_epoch, steps) for total in (epochs, cfg.trainer.max_epochs)]
    return all(one == other for one, other in zip(*curves, strict=True))


def _learning_rates(cfg: DictConfig, epochs: int, per_epoch: int, steps: int) -> Iterator[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = instantiate(cfg.task.scheduler)(optimizer, total_steps=epochs * per_epoch, steps_per_epoch=per_epoch)
    for _ in range(steps):
        yield optimizer.param_groups[0]["lr"]
        optimizer.step()
        scheduler.step()


def _read(checkpoint: Path) -> dict[str, Any]:
    """The checkpoint; of a damaged one it is said which other one is whole."""
    try:
        return read_checkpoint(checkpoint, TRAINING)
    except ConfigError as error:
        other = whole_sibling(checkpoint)
        way_out = "Start a new run with `resume=null`."
        if other is not None:
            way_out = f"Go on with `resume={other[0]}`, which is whole (epoch {other[1] + 1})."
        raise ConfigError(f"{error} {way_out}") from None


def _check_epochs(checkpoint: Path, done: int, wanted: int, *, new: bool) -> None:
    """A run may find all its epochs done (it was killed while it was scored); another one has to train."""
    if wanted < done or (new and wanted == done):
        raise ConfigError(
            f"`trainer.max_epochs` should be more than the {done} epochs that `resume = {checkpoint}` has done. Found "
            f"`trainer.max_epochs = {wanted}`. Set it higher, or start a new run with `resume=null`."
        )


def _check_optimizer(checkpoint: Path, content: Mapping[str, Any], cfg: DictConfig, task: SegmentationTask) -> None:
    """The state of another optimizer, or of other groups of parameters, would be taken for that of this one."""
    trained = [[len(group["params"]) for group in state["param_groups"]] for state in content["optimizer_states"]]
    own = [[len(group["params"]) for group in task.optimizer(task).param_groups]]
    before = with_present_targets(content["provenance"].get("config", {})).get("optimizer", {}).get("_target_")
    if trained != own or before not in (None, cfg.optimizer._target_):
        raise ConfigError(
            f"`resume = {checkpoint}` should have been trained with this optimizer, over the same groups of "
            f"parameters. Found `optimizer._target_ = {before}` over groups of {trained}, here "
            f"`{cfg.optimizer._target_}` over {own}. Choose the one of its run, or start a new run with `resume=null`."
        )


def _announce(checkpoint: Path, facts: Mapping[str, Any], cfg: DictConfig, *, longer: bool) -> None:
    now: Any = OmegaConf.to_container(cfg, resolve=True)
    differences = differing(facts.get("config", {}), now)
    unlike = in_words(differences) if differences else "nothing that its provenance tells"
    best = "Its best checkpoint counts here, too." if longer else "The best epoch is sought among those to come."
    say(
        f"! resume: a new run goes on from {checkpoint}, whose run differs in {unlike}. The optimizer with its base "
        f"learning rate is that of the checkpoint, the schedule is that of this run. {best}"
    )


def check_resumable(checkpoint: Path, facts: Mapping[str, Any], fold: int, data: PreparedData) -> None:
    """Refuse a checkpoint that learned from other pictures than this run may.

    Args:
        checkpoint: Its path.
        facts: The provenance that it holds.
        fold: That of this run.
        data: Those of this run.

    Raises:
        ConfigError: it is of another fold, or the pictures, their sides, masks or labels changed.
    """
    split = data.fold_assignment
    wanted = {"fold": fold, "split_sha256": split.sha256}
    if unlike := {name: facts.get(name) for name, value in wanted.items() if facts.get(name) != value}:
        raise ConfigError(
            f"`resume = {checkpoint}` should be of this fold of these very pictures, {wanted}; else the model has "
            f"learned from what this run holds out. Found {unlike}. Start a new run with `resume=null`."
        )
    if not learned_from(facts, data):
        raise ConfigError(
            f"`resume = {checkpoint}` should go on with the masks, labels and `value_range` that it began with. Found "
            "others: they have changed since. Start a new run with `resume=null`."
        )
    run = checkpoint.parent.parent
    if (run / SPLITS).is_file():
        check_same_split(run, split)


def check_first_weights(weights: str | None, data: PreparedData, key: str = "encoder.weights") -> None:
    """Refuse weights of a run on these data that was trained on a picture which this run holds out.

    Args:
        weights: what the key names; only a run folder is looked at.
        data: those of this run, prepared.
        key: what asks for the weights.

    Raises:
        ConfigError: there is such a picture.
    """
    run = Path(weights or "")
    if weights is None or not (run / SPLITS).is_file():
        return  # no run of ours
    trained = read_split(run / SPLITS)
    if trained.sha256 != data.fold_assignment.sha256:
        return  # equal ids of other data are other pictures
    parts = trained.parts(read_provenance(run)["fold"])
    held_out = set(parts["train"]).difference(data.parts["train"])
    if "stop" in data.parts:  # then what chose the epoch of those weights has to be apart from what is scored, too
        held_out |= set(parts.get("stop", parts["val"])).intersection(data.parts["val"] + data.parts["test"])
    if held_out:
        raise ConfigError(
            f"`{key} = {run}` should not have learned from pictures that this run holds out. Found "
            f"{len(held_out)}, such as {min(held_out)}. Take the run of the same fold and `data.split`."
        )
