"""The checks a config passes before torch is imported: a typo answers in under two seconds."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, Field, ValidationError


class UserError(ValueError):
    """A mistake that the user can mend: shown as one sentence, exit code 2, no traceback."""


class ConfigError(UserError):
    """A value in the configuration breaks a rule."""


class DataError(UserError):
    """Something on disk is missing, broken or contradicts itself. The message names the file."""


Size = Annotated[int, Field(ge=1, le=16384)]


class DataRules(BaseModel):
    """What every ``data=`` option has to say."""

    model_config = ConfigDict(strict=True)
    root: str
    image_size: Size | Annotated[list[Size], Field(min_length=2, max_length=2)]
    batch_size: Annotated[int, Field(ge=1)]
    split: dict[str, Any]


class TrainerRules(BaseModel):
    """What Lightning takes and then divides by, or takes for something else."""

    model_config = ConfigDict(strict=True)
    max_epochs: Annotated[int, Field(ge=1)]
    check_val_every_n_epoch: Annotated[int, Field(ge=1)]
    accumulate_grad_batches: Annotated[int, Field(ge=1)]
    gradient_clip_val: Annotated[float, Field(ge=0)] | None
    log_every_n_steps: Annotated[int, Field(ge=0)]


class TrainRules(BaseModel):
    """The values of ``train.yaml`` itself; groups are checked by the part they call."""

    model_config = ConfigDict(strict=True)
    name: Annotated[str, Field(min_length=1)]
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)]
    fold: Annotated[int, Field(ge=0)]
    monitor: Annotated[str, Field(min_length=1)]
    monitor_mode: Literal["max", "min"]
    resume: str | None
    rerun: bool
    data: DataRules
    trainer: TrainerRules
    encoder: dict[str, Any]
    inference: dict[str, Any]


def validate(cfg: DictConfig) -> None:
    """Check ranges, types and the rules between groups.

    A config without ``monitor`` (every verb but train) has no such rules and only has to resolve.

    Raises:
        ConfigError: every finding at once: the value, the rule and the way out.
    """
    try:
        content: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        key = error.full_key or error.key
        raise ConfigError(
            f"`{key}` should be chosen. Found no value. Give it on the command line: `{key}=...`."
        ) from error
    if "monitor" not in content:
        return
    try:
        TrainRules.model_validate(content)
    except ValidationError as error:
        raise ConfigError(" ".join(_sentence(finding) for finding in error.errors())) from None
    findings = [*_fold_findings(content), *_size_findings(content)]
    findings += window_findings(content["inference"], content["data"]["evaluation_size"], "data.evaluation_size")
    callbacks = content.get("callbacks", {"evaluation": True})
    if callbacks.get("best_checkpoint", True) is None:
        findings.append("`callbacks.best_checkpoint` should be set: the evaluation reads what it saves. Found null.")
    if not any(callbacks.get(name) for name in ("evaluation", "tta_evaluation")):
        findings.append(
            "`callbacks.evaluation` or `callbacks.tta_evaluation` should be set: one of them scores a run. Found null."
        )
    if findings:
        raise ConfigError(" ".join(findings))


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
    return f"`{key}`: {finding['msg'][0].lower()}{finding['msg'][1:]}. Found `{key} = {finding['input']}`."


def _fold_findings(content: dict[str, Any]) -> list[str]:
    num_folds = content["data"]["split"].get("num_folds")
    if num_folds is None or content["fold"] < num_folds:
        return []
    return [
        f"`fold` should be in [0, {num_folds}). Found `fold = {content['fold']}`. "
        "Choose another, or raise `data.split.num_folds`."
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
