"""What `hsl label` is asked to do: which sources take part, and whether the settings keep their rules."""

from collections.abc import Mapping

from omegaconf import DictConfig

from hsl.data.labels.image_labels import HEAD
from hsl.data.prepared import PreparedData
from hsl.errors import ConfigError
from hsl.pseudo_labels.quality import renormalise

SOURCES = ("grabcut", "gradcam", "sam")


def present_sources(cfg: DictConfig) -> dict[str, float]:
    """The weights of the sources that are asked for and there, with the sum 1.

    Raises:
        ConfigError: none is left, or one is asked for in vain.
    """
    asked = {name: weight for name, weight in cfg.sources.items() if weight is not None}
    if set(asked) - set(SOURCES) or any(weight <= 0 for weight in asked.values()):
        raise ConfigError(
            f"`sources` should give {', '.join(SOURCES)} a weight above 0, or null. Found `sources = {cfg.sources}`."
        )
    if "gradcam" in asked and not cfg.classifiers and cfg.sam is None:
        raise ConfigError(
            "`classifiers` should be run folders of trained classifiers. Found none, and no `sam`. Train one with "
            "`task=classifier`, or label by colour alone with `sources.gradcam=null`."
        )
    if "grabcut" in asked and cfg.seeds is None:
        raise ConfigError(
            "`seeds` should be the colours that GrabCut starts from. Found none. Choose them with `labelling=`, or set "
            "`sources.grabcut=null`."
        )
    given = {"grabcut": cfg.seeds is not None, "gradcam": bool(cfg.classifiers), "sam": cfg.sam is not None}
    for name, there in given.items():
        if there and name not in asked and name != "grabcut":
            key = "classifiers" if name == "gradcam" else name
            raise ConfigError(f"`{key}` is given, but `sources.{name}` is null. Give it a weight, or remove `{key}`.")
    present = {name: float(weight) for name, weight in asked.items() if given[name]}
    if not set(present) - {"sam"}:
        raise ConfigError(
            f"`sources` should hold GrabCut or Grad-CAM; SAM only sharpens their votes. Found {sorted(present)}. Give "
            "`sources.grabcut` or `sources.gradcam` a weight."
        )
    return renormalise(present, present)


def check_settings(cfg: DictConfig) -> None:
    """Check what needs no data.

    Raises:
        ConfigError: a setting breaks its rule.
    """
    if not 0 <= cfg.uncertain_below < 1:
        raise ConfigError(f"`uncertain_below` should be in [0, 1). Found `uncertain_below = {cfg.uncertain_below}`.")
    if cfg.workers != "auto" and not (isinstance(cfg.workers, int) and cfg.workers >= 1):
        raise ConfigError(f"`workers` should be auto or at least 1. Found `workers = {cfg.workers}`.")
    if not isinstance(cfg.data.image_labels, str):
        raise ConfigError(
            "`data.image_labels` should be the column that names the class of each picture. Found "
            f"`data.image_labels = {cfg.data.image_labels}`. Name one column of labels.csv."
        )
    if cfg.data.labels is not None:
        raise ConfigError("`data.labels` should be null: labels are not made from labels. Set `data/labels=masks`.")


def class_channels(channels: Mapping[str, str], data: PreparedData) -> dict[str, int]:
    """The dense class that each image class shows.

    Raises:
        ConfigError: an image class has none, or a name is unknown.
    """
    names, classes = data.image_classes[HEAD], data.catalogue.classes
    wrong = [name for name in names if channels.get(name) not in classes]
    if wrong or set(channels) - set(names):
        raise ConfigError(
            f"`channels` should give each image class {list(names)} one of the classes {list(classes)}. Found "
            f"`channels = {dict(channels)}`. Correct {sorted({*wrong, *(set(channels) - set(names))})}."
        )
    return {name: classes.index(channels[name]) for name in names}
