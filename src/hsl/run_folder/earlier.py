"""Earlier run folders: which are runs of the same config, in what the nearest one differs, and what is said of it."""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from hsl.config.moved import with_first_targets, without_later
from hsl.errors import DataError
from hsl.run_folder.checkpoint import TRAINING, read_checkpoint
from hsl.run_folder.layout import CONFIG, PROVENANCE, last_checkpoint
from hsl.run_folder.provenance import read_provenance
from hsl.terminal import say

EPOCHS = "trainer.max_epochs"

RUNTIME_KEYS = ("resume", "rerun", "run_dir", "output_root", "cache_dir", "entry")
RUNTIME_DATA_KEYS = ("num_workers", "cache", "cache_gigabytes", "cache_dir", "audit", "root")
"""Where the data lie is no part of a run, what they are is: a run remembers the hashes of its pictures and masks."""

PLACES = ("path", "dirpath", "save_dir")
SHOWN = 5

log = logging.getLogger(__name__)


def config_identity(cfg: DictConfig) -> str:
    """SHA-256 of everything in the config that can change a number; paths and worker counts are left out."""
    copy: Any = OmegaConf.create(OmegaConf.to_container(cfg, resolve=False))
    OmegaConf.set_struct(copy, False)
    for key in RUNTIME_KEYS:
        copy[key] = None
    content: Any = OmegaConf.to_container(copy, resolve=True)
    return hashlib.sha256(json.dumps(_comparable(content), sort_keys=True).encode()).hexdigest()


def differing(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The keys in which two resolved configs are another run, each with its earlier and its present value.

    Example:
        >>> differing({"seed": 0, "data": {"batch_size": 8}}, {"seed": 0, "data": {"batch_size": 4}})
        {'data.batch_size': (8, 4)}
    """
    one, two = _flat(_comparable(earlier)), _flat(_comparable(now))
    keys = sorted(one.keys() | two.keys())
    return {key: (one.get(key), two.get(key)) for key in keys if one.get(key) != two.get(key)}


def in_words(differences: Mapping[str, tuple[Any, Any]]) -> str:
    """The first of the differing keys.

    Example:
        >>> in_words({"seed": (0, 1), "data.batch_size": (8, 4)})
        '`seed` (0, now 1), `data.batch_size` (8, now 4)'
    """
    listed = [f"`{key}` ({earlier}, now {now})" for key, (earlier, now) in list(differences.items())[:SHOWN]]
    more = len(differences) - len(listed)
    return ", ".join(listed) + (f" and {more} more" if more else "")


def same_config(
    base: Path, identity: str, counts: Callable[[Mapping[str, Any]], bool]
) -> list[tuple[Path, Mapping[str, Any]]]:
    """Run folders below ``base`` of this very config and these very data, newest first, with their provenance."""
    found = []
    for folder, facts in _earlier(base):
        if facts.get("identity") == identity and counts(facts):
            found.append((folder, facts))
        elif facts.get("identity") == identity:
            log.warning("%s has other pictures, masks or labels than these. It is passed over.", folder)
    return found


def resumable(folder: Path) -> Path | None:
    """Where the run of a folder stopped; ``None`` before its first epoch was over."""
    path = last_checkpoint(folder)
    return path if path.is_file() else None


def go_on_longer(
    base: Path, cfg: DictConfig, counts: Callable[[Mapping[str, Any]], bool], alike: Callable[[int, int], bool]
) -> Path | None:
    """The checkpoint of a run that is this one with fewer epochs; else it is said why a new run starts.

    Args:
        base: where the run folders of this name and fold are.
        cfg: of a run that has no folder yet.
        counts: of a provenance, whether the data are still those.
        alike: of a number of epochs and of steps, whether a schedule over so many epochs has had the same learning
            rates in those steps as that of ``cfg``.
    """
    now: Any = OmegaConf.to_container(cfg, resolve=True)
    unlike = {folder: differing(facts["config"], now) for folder, facts in _earlier(base)
              if facts.get("config") and counts(facts)}  # fmt: skip
    if not unlike:
        say(f"! resume=last: there is no earlier run of these data below {base.absolute()}. A new run starts.")
        return None
    nearest = min(unlike, key=lambda folder: len(unlike[folder]))  # of equals the first, which is the newest
    differences = unlike[nearest]
    said = f"! resume=last: no run below {base} has this very config. {nearest} differs in {in_words(differences)}."
    checkpoint = resumable(nearest)
    if differences.keys() != {EPOCHS} or checkpoint is None or cfg.get("phases"):
        say(f"{said} A new run starts.")
        return None
    epochs, wanted = differences[EPOCHS]
    content = read_checkpoint(checkpoint, TRAINING)
    if epochs_done(content) >= wanted:
        say(f"{said} It has done {epochs_done(content)} epochs. A new run starts.")
    elif not alike(epochs, content["global_step"]):
        say(
            f"{said} The learning rate follows a curve over all epochs, so its epochs are not the first of {wanted}. "
            f"A new run starts. To go on all the same, along the curve of {wanted} from there: `resume={nearest}`."
        )
    else:
        say(f"{said} This run goes on from its {epochs_done(content)} epochs, in a folder of its own.")
        return checkpoint
    return None


def epochs_done(checkpoint: Mapping[str, Any]) -> int:
    """How many epochs a checkpoint has behind it; one within an epoch does not count that one."""
    return int(checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"])


def _earlier(base: Path) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """The run folders below ``base`` and their provenance, newest first; those of which nothing is known are named."""
    for folder in sorted(
        (path for path in base.glob("[!.]*/") if path.is_dir()), key=lambda one: one.name, reverse=True
    ):
        try:
            facts = read_provenance(folder)
            if not facts and (folder / CONFIG).is_file():
                raise DataError(f"`{folder / PROVENANCE}` is missing.")
            known = [facts[key] for key in ("identity", "status")] if facts else []
        except DataError as error:  # whose run it was is not known any more; this one goes on without it
            log.warning("%s It is passed over.", error)
            continue
        if known:
            yield folder, facts


def _comparable(content: Mapping[str, Any]) -> dict[str, Any]:
    """A resolved config without what changes no number."""
    known = without_later(with_first_targets(content))
    kept = {key: value for key, value in known.items() if key not in RUNTIME_KEYS}
    if isinstance(kept.get("data"), Mapping):
        kept["data"] = {key: value for key, value in kept["data"].items() if key not in RUNTIME_DATA_KEYS}
    return kept | {group: _without_places(kept[group]) for group in ("logger", "callbacks") if group in kept}


def _without_places(node: Any) -> Any:
    if isinstance(node, Mapping):
        return {key: _without_places(value) for key, value in node.items() if key not in PLACES}
    return node


def _flat(node: Any, place: str = "") -> dict[str, Any]:
    if not isinstance(node, Mapping) or not node:
        return {place: node}
    return {key: value for name, inner in node.items() for key, value in _flat(inner, f"{place}.{name}"
            if place else str(name)).items()}  # fmt: skip
