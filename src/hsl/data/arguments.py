"""What the arguments of the data module should be."""

from collections.abc import Mapping, Sequence

from hsl.config import ConfigError


def check_arguments(
    image_size: int | Sequence[int],
    batch_size: int,
    num_workers: int | str,
    normalization: Mapping[str, Sequence[float]],
    evaluation_size: str = "image_size",
) -> None:
    """See `hsl.data.datamodule.DataModule`.

    Raises:
        ConfigError: An argument is outside its range; all of them are named.
    """
    findings = []
    sides = [image_size] if isinstance(image_size, int) else list(image_size)
    if len(sides) > 2 or not sides or min(sides) < 1:
        findings.append(
            "`data.image_size` should be a side of at least 1, or [height, width]. "
            f"Found `data.image_size = {image_size}`."
        )
    if batch_size < 1:
        findings.append(f"`data.batch_size` should be at least 1. Found `data.batch_size = {batch_size}`.")
    if num_workers != "auto" and (isinstance(num_workers, str) or num_workers < 0):
        findings.append(f"`data.num_workers` should be auto or at least 0. Found `data.num_workers = {num_workers}`.")
    if evaluation_size not in ("image_size", "source"):
        findings.append(
            f"`data.evaluation_size` should be image_size or source. Found `data.evaluation_size = {evaluation_size}`."
        )
    for name in ("mean", "std"):
        if len(normalization[name]) != 3:
            findings.append(f"`encoder.normalization.{name}` should have 3 values. Found {list(normalization[name])}.")
    if findings:
        raise ConfigError(" ".join(findings))
