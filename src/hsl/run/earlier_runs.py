"""What a run takes over from an earlier one: a checkpoint to go on from, or first weights; never across a split."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hsl.callbacks.provenance import read_provenance
from hsl.config import ConfigError
from hsl.data.datamodule import DataModule
from hsl.data.scan import annotation_hashes
from hsl.data.splits import read_split
from hsl.run.results import check_same_split


def learned_from(facts: Mapping[str, Any], data: DataModule) -> bool:
    """Whether a run of this provenance saw these very pictures, masks and labels; older ones do not tell of the latter.

    Args:
        facts: The provenance.
        data: Prepared data.
    """
    found = annotation_hashes(data.catalogue, data.scan, data.parts)
    return facts.get("split_sha256") == data.fold_assignment.sha256 and facts.get("annotations_sha256", found) == found


def check_resumable(checkpoint: Path, facts: Mapping[str, Any], fold: int, data: DataModule) -> None:
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
            f"`resume = {checkpoint}` should go on with the masks and labels that it began with. Found others: "
            "they have changed since. Start a new run with `resume=null`."
        )
    run = checkpoint.parent.parent
    if (run / "splits.json").is_file():
        check_same_split(run, split)


def check_first_weights(weights: str | None, data: DataModule) -> None:
    """Refuse first weights of a run on these data that was trained on a picture which this run holds out.

    Raises:
        ConfigError: there is such a picture.
    """
    run = Path(weights or "")
    if weights is None or not (run / "splits.json").is_file():
        return  # no run of ours
    trained = read_split(run / "splits.json")
    if trained.sha256 != data.fold_assignment.sha256:
        return  # equal ids of other data are other pictures
    learned = set(trained.parts(read_provenance(run / "provenance.json")["fold"])["train"])
    held_out = learned & {*data.parts["val"], *data.parts["test"]}
    if held_out:
        raise ConfigError(
            f"`encoder.weights = {run}` should not have learned from pictures that this run holds out. Found "
            f"{len(held_out)}, such as {min(held_out)}. Take the run of the same fold."
        )
