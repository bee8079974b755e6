"""What is known of an encoder before it is built: its family, and the file of its weights. No torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from hsl.errors import ConfigError

PUBLISHED = ("auto", "imagenet")
"""Words for weights that others have trained; anything else is a path."""
Family = Literal["CNN", "transformer", "hybrid", "unknown"]

HYBRID = (
    "bat_", "botnet", "caformer", "coat_", "coatnet", "coatnext", "edgenext", "efficientformer", "efficientvit_b",
    "efficientvit_l", "efficientvit_m", "fastvit", "halo", "hybrid", "iformer", "lambda", "lamhalobotnet", "levit",
    "lowformer", "maxvit", "maxxvit", "mobilevit", "nextvit", "sebotnet", "sehalonet", "shvit", "swiftformer",
    "tiny_vit", "visformer", "vitamin", "vit_base_r", "vit_large_r", "vit_small_r", "vit_tiny_r",
)  # fmt: skip
TRANSFORMER = (
    "aimv2", "beit", "cait", "convit", "crossvit", "davit", "deit", "eva", "flexivit", "gcvit", "hiera", "mit_b",
    "mvitv2", "naflexvit", "nest", "pit_", "pvt", "sam", "swin", "tnt", "twins", "vit", "volo", "xcit",
)  # fmt: skip
CNN = (
    "convformer", "convmixer", "convnext", "cs3", "csp", "darknet", "densenet", "dla", "dpn", "eca_", "efficientnet",
    "fasternet", "fbnet", "focalnet", "gernet", "ghostnet", "hardcorenas", "hgnet", "hrnet", "inception", "lcnet",
    "legacy_", "mambaout", "mixnet", "mnasnet", "mobilenet", "mobileone", "nasnet", "nfnet", "rdnet", "regnet",
    "repghost", "repvgg", "repvit", "res2net", "resnest", "resnet", "resnext", "rexnet", "selecsls", "semnasnet",
    "senet", "skresne", "spnasnet", "starnet", "tinynet", "tresnet", "vgg", "vovnet", "xception",
)  # fmt: skip


def family_of(name: str) -> Family:
    """The family of an encoder by its name in smp or timm; ``unknown`` where the name is none of those listed.

    Example:
        >>> [family_of(name) for name in ("tu-convnext_tiny.fb_in1k", "mit_b3", "tu-maxvit_tiny_tf_384.in1k")]
        ['CNN', 'transformer', 'hybrid']
    """
    stem = name.removeprefix("tu-").removeprefix("timm-").removeprefix("tf_").lower()
    if _starts(stem, HYBRID):
        return "hybrid"
    if _starts(stem, CNN):
        return "CNN"
    if _starts(stem, TRANSFORMER):
        return "transformer"
    return "CNN" if any(word in stem for word in CNN) else "unknown"


def _starts(stem: str, words: Sequence[str]) -> bool:
    """Whether the name, or what stands behind a `_` in it, begins with one of the words."""
    return any(stem.startswith(word) or f"_{word}" in stem for word in words)


def weights_file(requested: str) -> Path:
    """The file, or run folder, that ``encoder.weights`` names where it is no word.

    Raises:
        ConfigError: there is none.
    """
    path = Path(requested).expanduser()
    if not path.exists():
        raise ConfigError(
            "`encoder.weights` should be auto, imagenet, null, a run folder or the path of a state dict. "
            f"Found `encoder.weights = {requested}`, which is no file. Correct the path."
        )
    return path
