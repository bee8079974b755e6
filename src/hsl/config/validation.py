"""The checks a config passes before torch is imported: a typo answers in under two seconds."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hsl.config.processes import process_findings
from hsl.errors import ConfigError, unresolved

Size = Annotated[int, Field(ge=1, le=16384)]


class DataRules(BaseModel):
    """What every ``data=`` option has to say."""

    model_config = ConfigDict(strict=True)
    root: str
    image_size: Size | Annotated[list[Size], Field(min_length=2, max_length=2)]
    batch_size: Annotated[int, Field(ge=1)]
    split: dict[str, Any]


PRECISIONS = {"auto": "auto", "32-true": "32", "bf16-mixed": "bf16", "16-mixed": "16"}
"""What ``trainer.precision`` may be, and its short names in Lightning."""

_SMALL = "For a quick try, set `trainer.max_epochs=1` and `+trainer.limit_train_batches=2`."
UNFIT: dict[str, tuple[tuple[Any, ...], str, str]] = {
    "fast_dev_run": ((False, 0, None), "it saves no checkpoint, so nothing could be evaluated", _SMALL),
    "barebones": ((False, None), "it saves no checkpoint and logs nothing, so nothing could be evaluated", _SMALL),
    "enable_checkpointing": ((True, None), "the evaluation and `resume=last` read what is saved", "Delete it."),
    "overfit_batches": ((0, 0.0), "it validates on the pictures that it trains on", _SMALL),
    "val_check_interval": ((1.0, None), "history, best epoch and `resume=last` count whole epochs",
                           "`trainer.check_val_every_n_epoch` validates less often."),
    "limit_test_batches": ((1.0, None), "scores of a part of the pictures would pass for those of all", "Delete it."),
    "limit_predict_batches": ((1.0, None), "the trainer predicts nothing", "Delete it."),
    "reload_dataloaders_every_n_epochs": ((0,), "a resumed run goes on within its loaders", "Delete it."),
    "logger": ((None,), "the run gives its own", "Choose one by `logger=tensorboard` or `logger=none`."),
    "callbacks": ((None,), "the run gives its own", "Choose them by `callbacks=`."),
    "default_root_dir": ((None,), "everything lies in the run folder", "Set `output_root`."),
    "model_registry": ((None,), "everything lies in the run folder", "Set `output_root`."),
}  # fmt: skip
"""Arguments of the trainer that break what a run promises: the values that do not, the reason, the way out."""

REQUIRED_CALLBACKS = {
    "hsl.callbacks.monitored.BestCheckpoint": "saves what the evaluation reads",
    "hsl.callbacks.evaluation.Evaluation": "scores the run",
}
PROGRESS_BAR = "hsl.callbacks.progress.progress_bar"


class TrainerRules(BaseModel):
    """What Lightning takes and then divides by, or takes for something else."""

    model_config = ConfigDict(strict=True)
    max_epochs: Annotated[int, Field(ge=1)]
    min_epochs: Annotated[int, Field(ge=0)] | None = None
    max_steps: Annotated[int, Field(ge=-1)] = -1
    check_val_every_n_epoch: Annotated[int, Field(ge=1)]
    accumulate_grad_batches: Annotated[int, Field(ge=1)]
    gradient_clip_val: Annotated[float, Field(ge=0)] | None
    log_every_n_steps: Annotated[int, Field(ge=0)]
    num_sanity_val_steps: Annotated[int, Field(ge=-1)] | None = None


class TrainRules(BaseModel):
    """The values of ``train.yaml`` itself; groups are checked by the part they call."""

    model_config = ConfigDict(strict=True)
    name: Annotated[str, Field(min_length=1)]
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)]
    fold: Annotated[int, Field(ge=0)]
    monitor: Annotated[str, Field(min_length=1)]
    monitor_mode: Literal["auto", "max", "min"]
    resume: str | None
    rerun: bool
    data: DataRules
    trainer: TrainerRules
    encoder: dict[str, Any]
    inference: dict[str, Any]


def validate(cfg: DictConfig) -> None:
    """Check ranges, types and the rules between groups.

    A config without ``monitor`` (every verb but train) only has to resolve, and to name a fold that there is.

    Raises:
        ConfigError: every finding at once: the value, the rule and the way out.
    """
    try:
        content: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(unresolved(error)) from error
    if "monitor" not in content:
        if findings := _fold_findings(content):
            raise ConfigError(" ".join(findings))
        return
    try:
        TrainRules.model_validate(content)
    except ValidationError as error:
        raise ConfigError(" ".join(_sentence(finding) for finding in error.errors())) from None
    findings = [*_fold_findings(content), *_size_findings(content), *_stream_findings(content["data"])]
    findings += window_findings(content["inference"], content["data"]["evaluation_size"], "data.evaluation_size")
    findings += trainer_findings(content["trainer"])
    findings += _callback_findings(content.get("callbacks"), content["trainer"])
    findings += process_findings(content)
    if findings:
        raise ConfigError(" ".join(findings))


def trainer_findings(trainer: Mapping[str, Any]) -> list[str]:
    """What is wrong with the arguments of the trainer, each of which has the right type."""
    found = [
        f"`trainer.{key}` should be left out: {reason}. Found `trainer.{key} = {trainer[key]}`. {way}"
        for key, (fit, reason, way) in UNFIT.items()
        if key in trainer and not any(type(trainer[key]) is type(one) and trainer[key] == one for one in fit)
    ]
    for key in ("limit_train_batches", "limit_val_batches"):
        limit = trainer.get(key)
        if limit is not None and not (limit >= 1 if type(limit) is int else type(limit) is float and 0 < limit <= 1):
            found.append(
                f"`trainer.{key}` should be a number of batches of at least 1, or a share above 0 and up to 1.0. Found "
                f"`trainer.{key} = {limit}`."
            )
    every, epochs = int(trainer["check_val_every_n_epoch"]), int(trainer["max_epochs"])
    least = trainer.get("min_epochs")
    if every > epochs:
        found.append(
            f"`trainer.check_val_every_n_epoch` should be at most `trainer.max_epochs`, {epochs}, so that there is a "
            f"validation. Found `trainer.check_val_every_n_epoch = {every}`."
        )
    if (least or 0) > epochs:
        found.append(
            f"`trainer.min_epochs` should be at most `trainer.max_epochs`, {epochs}. "
            f"Found `trainer.min_epochs = {least}`."
        )
    found += _time_findings(trainer.get("max_time"))
    if trainer.get("max_steps") == 0:
        found.append("`trainer.max_steps` should be -1 or at least 1. Found `trainer.max_steps = 0`.")
    if (precision := trainer.get("precision")) is not None and str(precision) not in {
        *PRECISIONS,
        *PRECISIONS.values(),
    }:
        found.append(
            f"`trainer.precision` should be one of {', '.join(PRECISIONS)}: pictures, losses and scores are float32, "
            f"which other weights do not take. Found `trainer.precision = {precision}`."
        )
    return found


def _callback_findings(callbacks: Mapping[str, Any] | None, trainer: Mapping[str, Any]) -> list[str]:
    """Callbacks that a run cannot do without, and one that would show what the trainer is told to hide."""
    if callbacks is None:
        return []
    targets = {name: node.get("_target_", "") for name, node in callbacks.items() if node is not None}
    if any(not target.startswith(("hsl.", "lightning.")) for target in targets.values()):
        return []  # one of the user's own may do the same
    off = " and ".join(f"`callbacks.{name}`" for name, node in callbacks.items() if node is None)
    way = f"Leave null away from {off}, or choose `callbacks=default`." if off else "Choose `callbacks=default`."
    found = [
        f"`callbacks` should hold a `{target}`, which {reason}. Found {', '.join(targets) or 'none'}. {way}"
        for target, reason in REQUIRED_CALLBACKS.items()
        if target not in targets.values()
    ]
    for name, target in targets.items():
        if target == PROGRESS_BAR and trainer.get("enable_progress_bar") is False:
            found.append(
                "`trainer.enable_progress_bar` should be left out where a callback shows the progress. Found "
                f"`trainer.enable_progress_bar = False`. Set `callbacks.{name}=null` too, or instead."
            )
    return found


def _time_findings(time: Any) -> list[str]:
    if time is None or (re.fullmatch(r"\d+:\d\d:\d\d:\d\d", str(time)) and re.search("[1-9]", str(time))):
        return []
    return [
        "`trainer.max_time` should be text, DD:HH:MM:SS, long enough to train and validate an epoch. Found "
        f"`trainer.max_time = {time}`."
    ]


def nearest_multiples(size: int, multiple: int) -> tuple[int, int]:
    """The multiples of ``multiple`` just below and just above ``size``, none of them 0.

    Example:
        >>> nearest_multiples(130, 32)
        (128, 160)
    """
    below = max(1, size // multiple) * multiple
    return below, below + multiple


def _sentence(finding: Any) -> str:
    key = ".".join(
        str(part) for part in finding["loc"] if not str(part).startswith(("constrained", "function", "list["))
    )
    hint = ""
    if isinstance(finding["input"], str) and finding["type"] in ("int_type", "float_type", "bool_type"):
        hint = (
            " That is text. A variable gives a value as `$NAME` of the shell, in a file as "
            "`${oc.decode:${oc.env:NAME}}`."
        )
    return f"`{key}`: {finding['msg'][0].lower()}{finding['msg'][1:]}. Found `{key} = {finding['input']}`.{hint}"


def _fold_findings(content: dict[str, Any]) -> list[str]:
    num_folds, fold = content.get("data", {}).get("split", {}).get("num_folds"), content.get("fold")
    if not isinstance(num_folds, int) or not isinstance(fold, int) or fold < num_folds:
        return []  # types are checked with those of the other arguments
    return [
        f"`fold` should be in [0, {num_folds}). Found `fold = {fold}`. Choose another, or raise `data.split.num_folds`."
    ]


def _stream_findings(data: Mapping[str, Any]) -> list[str]:
    reader, sampling = data.get("reader") or {}, data.get("sampling")
    if not reader.get("streaming") or sampling is None:
        return []
    return [
        "`data.reader.streaming` should be false where pictures are drawn by chance: a stream is read block by block. "
        f"Found `data.reader.streaming = {reader['streaming']}` with `{sampling.get('_target_')}`. Choose "
        "`data/sampling=shuffle`, or set `data.reader.streaming=false`."
    ]


def window_findings(predictor: Mapping[str, Any], evaluation_size: str, key: str) -> list[str]:
    """A predictor that slides a window needs pictures at their own size: a shrunken one is whole already."""
    inner = predictor.get("predictor", predictor)  # test-time augmentation goes around another
    if "window" not in inner or evaluation_size == "source":
        return []
    return [
        f"`{key}` should be source where a window slides over the picture. Found `{key} = {evaluation_size}`. "
        f"Set `{key}=source`, or `inference=whole`."
    ]


def _size_findings(content: dict[str, Any]) -> list[str]:
    """Some encoders (windows, grids) take only multiples of a size; the reader learns the nearest ones."""
    multiple = content["encoder"].get("size_multiple") or 1
    predictor = content["inference"]
    window = predictor.get("predictor", predictor).get("window")
    findings = []
    for key, size in (("data.image_size", content["data"]["image_size"]), ("inference.window", window or multiple)):
        for one in size if isinstance(size, list) else [size]:
            if one % multiple:
                below, above = nearest_multiples(one, multiple)
                findings.append(
                    f"`{key}` should be a multiple of {multiple} for this encoder. "
                    f"Found `{key} = {size}`. The nearest sizes are {below} and {above}."
                )
    return findings
