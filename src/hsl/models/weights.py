"""Where the first weights of an encoder come from, and how they get in.

``encoder.weights`` is ``auto`` (published weights, else random with a warning), ``imagenet`` (published or an
error), ``null`` (random), the path of a state dict, or a run folder of ours. Published weights are looked for in
an installed package, then in the local cache of the hub, then on the hub itself, if it answers within seconds.
"""

import functools
import hashlib
import importlib.util
import queue
import threading
import urllib.error
import urllib.request
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import timm
from huggingface_hub import constants
from segmentation_models_pytorch.encoders import encoders as smp_encoders
from torch import nn

from hsl.errors import ConfigError
from hsl.models.families import PUBLISHED, weights_file
from hsl.models.plain_pyramid import PlainPyramid
from hsl.models.state_dict import Filled, fill_encoder, first_line, read_state_dict
from hsl.run_folder.layout import BEST, CHECKPOINTS, best_checkpoint

RUN_PREFIX = "network.encoder.body."
"""What the keys of an encoder start with in a checkpoint of ours."""

HUB_FILE = "model.safetensors"
PROBE_TIMEOUT_S = 5.0
"""The hub library repeats a failed request for half a minute, so it is asked only after one quick knock."""


class WeightsUnavailableError(ConfigError):
    """Published weights exist but are not to be had here, or none were ever published."""


@dataclass(frozen=True)
class Origin:
    """A file with weights. Published ones must fill the encoder to the last key; a user's file need not."""

    source: str
    tag: str
    path: Path
    published: bool


def load_weights(
    body: nn.Module, name: str, requested: str | None, package: str | None, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Put weights into an encoder and say which.

    Args:
        body: the encoder of smp, changed in place.
        name: its name, ``tu-...`` for one of timm.
        requested: ``auto``, ``imagenet``, a path or ``None``. A run folder fills the encoder to the last key
            from its best checkpoint, whatever its decoder and heads were.
        package: an installed Python package with the weights as a ``.pth`` file, asked before the hub.
        options: what timm was given besides the name.

    Returns:
        What a run records: ``requested``, ``source`` (``package:``, ``hub:`` or ``file:`` and a name, or
        ``random``; ``run`` with its ``path``), ``tag``, ``sha256`` of the file, ``reason`` for random weights,
        ``missing`` and ``unexpected`` keys and the number of ``head_keys``, which only the classifier could take.

    Raises:
        ConfigError: the weights are not to be had, do not fit in shape, or have no key in common.
        DataError: the file cannot be read.
    """
    if requested is None:
        return _record(requested, reason="`encoder.weights=null`")
    if (folder := Path(requested).expanduser()).is_dir():
        digest = _load_run(body, name, folder)
        return {**_record(requested), "source": "run", "path": str(folder), "sha256": digest}
    try:
        origin = locate(name, requested, package)
    except WeightsUnavailableError as error:
        if requested != "auto":
            raise
        warnings.warn(
            f"THE ENCODER STARTS FROM RANDOM WEIGHTS: scores will be lower than with pretraining. {error}",
            stacklevel=2,
        )
        return _record(requested, reason=str(error))
    published = body.model if isinstance(body, PlainPyramid) else body  # of a plain transformer; its levels are ours
    filled = fill_encoder(published, name, read_state_dict(origin.path), options, where=str(origin.path))
    _check(filled, origin, name)
    digest = hashlib.sha256(origin.path.read_bytes()).hexdigest()
    return _record(requested, origin=origin, sha256=digest, filled=filled)


def locate(name: str, requested: str, package: str | None) -> Origin:
    """Find the file: on disk if `requested` is a path, else in the package, the hub's cache or on the hub."""
    if requested not in PUBLISHED:
        path = weights_file(requested)
        return Origin(f"file:{path.name}", path.stem, path, published=False)
    if package is not None and (path_in_package := _file_of_package(package)):
        return Origin(f"package:{package}", path_in_package.stem, path_in_package, published=True)
    repository, revision, tag = _published(name)
    path = _file_of_hub(repository, revision)
    return Origin(f"hub:{repository}", tag, path, published=True)


def are_at_hand(name: str, package: str | None) -> bool:
    """Whether published weights of an encoder are to be had here, without fetching them."""
    if package is not None and _file_of_package(package):
        return True
    try:
        repository, revision, _ = _published(name)
    except WeightsUnavailableError:
        return False
    cached = huggingface_hub.try_to_load_from_cache(
        repository, HUB_FILE, cache_dir=constants.HF_HUB_CACHE, revision=revision
    )
    return isinstance(cached, str) or not (constants.HF_HUB_OFFLINE or _hub_is_away(constants.ENDPOINT))


@functools.cache
def _hub_is_away(url: str) -> bool:
    return _connection_problem(url) is not None


def _load_run(body: nn.Module, name: str, folder: Path) -> str:
    checkpoint = best_checkpoint(folder)
    if not checkpoint.is_file():
        raise ConfigError(
            f"`encoder.weights = {folder}` should be a finished run. Found no {CHECKPOINTS / BEST} in it. "
            "Finish it with `resume=last`, or choose another."
        )
    state = read_state_dict(checkpoint)
    own = {key.removeprefix(RUN_PREFIX): value for key, value in state.items() if key.startswith(RUN_PREFIX)}
    wanted = body.state_dict()
    unlike = [key for key in own.keys() & wanted.keys() if own[key].shape != wanted[key].shape]
    wrong = sorted([*(own.keys() ^ wanted.keys()), *unlike])
    if wrong:
        raise ConfigError(
            f"`encoder.weights = {folder}` should be a run with the encoder `{name}` at the same `data.image_size`. "
            f"Found other tensors: {_some(wrong)}. Choose the encoder and size of that run."
        )
    nn.Module.load_state_dict(body, own)  # smp's encoders override it with other signatures
    return hashlib.sha256(checkpoint.read_bytes()).hexdigest()


def _file_of_package(package: str) -> Path | None:
    if not package.isidentifier():  # to look for one inside another would import the outer one
        raise ConfigError(f"`encoder.package` should be the name of one package. Found `encoder.package = {package}`.")
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    files = sorted(Path(spec.origin).parent.rglob("*.pth"))
    if len(files) != 1:
        raise ConfigError(f"Package `{package}` should hold one .pth file. Found {len(files)}. Install it anew.")
    return files[0]


def _published(name: str) -> tuple[str, str | None, str]:
    if name in smp_encoders:
        settings = smp_encoders[name]["pretrained_settings"]
        if "imagenet" in settings:
            hub = settings["imagenet"]
            return hub["repo_id"], hub["revision"], f"{name}.imagenet"
    else:
        cfg = timm.models.get_pretrained_cfg(name.removeprefix("tu-"), allow_unregistered=False)
        if cfg is not None and cfg.hf_hub_id:
            return cfg.hf_hub_id, None, f"{cfg.architecture}.{cfg.tag}"
    raise WeightsUnavailableError(
        f"No ImageNet weights of `{name}` are published on the hub. "
        "Pass a state dict with `encoder.weights=PATH` or choose `encoder.weights=null`."
    )


def _file_of_hub(repository: str, revision: str | None, filename: str = HUB_FILE) -> Path:
    cache = constants.HF_HUB_CACHE
    cached = huggingface_hub.try_to_load_from_cache(repository, filename, cache_dir=cache, revision=revision)
    if isinstance(cached, str):
        return Path(cached)
    problem = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else _connection_problem(constants.ENDPOINT)
    if problem is None:
        try:
            return Path(huggingface_hub.hf_hub_download(repository, filename, cache_dir=cache, revision=revision))
        except OSError as error:  # every error of the hub library that means "not now" or "not for you"
            problem = first_line(error)
    raise WeightsUnavailableError(
        f"The weights `{repository}` are not in the cache of the hub and cannot be downloaded ({problem}). "
        f"Where there is a network run `hf download {repository} {filename}`, bring the file here and pass "
        "`encoder.weights=PATH`."
    )


def _connection_problem(url: str) -> str | None:
    """Say what keeps us from the hub, or nothing. A thread, because looking up a name obeys no time limit."""
    answer: queue.Queue[str | None] = queue.Queue()

    def ask() -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PROBE_TIMEOUT_S):
                answer.put(None)
        except urllib.error.HTTPError:
            answer.put(None)  # it refuses this address, but it is there
        except OSError as error:
            answer.put(str(getattr(error, "reason", error)))

    threading.Thread(target=ask, daemon=True).start()
    try:
        return answer.get(timeout=PROBE_TIMEOUT_S)
    except queue.Empty:
        return f"no answer within {PROBE_TIMEOUT_S:g} s"


def _check(filled: Filled, origin: Origin, name: str) -> None:
    if not filled.loaded:
        raise ConfigError(
            f"{origin.path} should hold weights of `{name}`. Found no key that fits. "
            f"Its keys look like {filled.unexpected[:3]}. Choose the encoder it was made for."
        )
    listed = []
    if filled.missing:
        listed.append(f"missing: {_some(filled.missing)}")
    if filled.unexpected:
        listed.append(f"unexpected: {_some(filled.unexpected)}")
    if listed and origin.published:
        raise ConfigError(
            f"The published weights {origin.path} should fill `{name}`. Found {'; '.join(listed)}. "
            "Delete the file and fetch it again, or pass another with `encoder.weights=PATH`."
        )
    if listed:
        warnings.warn(f"{origin.path} fits `{name}` only in part. {'; '.join(listed)}.", stacklevel=3)


def _some(keys: list[str], most: int = 8) -> str:
    more = f" and {len(keys) - most} more" if len(keys) > most else ""
    return f"{', '.join(keys[:most])}{more}"


def _record(
    requested: str | None,
    *,
    reason: str | None = None,
    origin: Origin | None = None,
    sha256: str | None = None,
    filled: Filled | None = None,
) -> dict[str, Any]:
    return {
        "requested": requested,
        "source": origin.source if origin else "random",
        "tag": origin.tag if origin else None,
        "sha256": sha256,
        "reason": reason,
        "missing": filled.missing if filled else [],
        "unexpected": filled.unexpected if filled else [],
        "head_keys": filled.head_keys if filled else 0,
    }
