"""The places that a command names, looked at before anything heavy is imported: a wrong path is answered at once."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.utils import instantiate

from hsl.config.calls import check_calls
from hsl.errors import ConfigError
from hsl.models.families import PUBLISHED, weights_file
from hsl.run_folder.layout import CONFIG, ENSEMBLE, chosen_checkpoint
from hsl.run_folder.provenance import matching_run_folders


def check_places(content: Mapping[str, Any]) -> None:
    """Look for the run folders, checkpoint, weights, pictures and data that a verb is given.

    Where nothing lies at ``data.root``, the reader is asked at once: it refuses a missing folder, and draws or fetches
    data that are made there.

    Args:
        content: a resolved config.

    Raises:
        ConfigError: there is no such run folder, checkpoint or file of weights.
        DataError: no run folder matches, or the data set or the pictures cannot be read.
    """
    if isinstance(run := content.get("run"), str) and not (Path(run) / ENSEMBLE).is_file():
        config_of(run)
    gathers = "trust" not in content or "ignore" in content  # then runs are patterns, which may match nothing
    runs = content.get("runs")
    named = [runs] if isinstance(runs, str) else [str(one) for one in runs] if isinstance(runs, list) else []
    if gathers and named:
        matching_run_folders(named)
    for run in [] if gathers else named:
        config_of(run, "runs")
    if isinstance(resume := content.get("resume"), str) and resume != "last":
        chosen_checkpoint(Path(resume))
    weights = content.get("encoder", {}).get("weights") if "monitor" in content else None
    if isinstance(weights, str) and weights not in PUBLISHED:
        weights_file(weights)
    if isinstance(pictures := content.get("input"), str) and not Path(pictures).exists():
        from hsl.data.formats.folder import read_pictures  # every command would wait for OpenCV; few come here

        read_pictures(pictures)
    data = content.get("data")
    if isinstance(data, dict) and isinstance(root := data.get("root"), str) and not Path(root).exists():
        reader = {"data": {"reader": data["reader"]}}
        check_calls(reader)
        instantiate(reader)["data"]["reader"](root)


def config_of(run: str, key: str = "run") -> Path:
    """The config of a run folder that a key names.

    Raises:
        ConfigError: there is none.
    """
    file = Path(run) / CONFIG
    if not file.is_file():
        raise ConfigError(
            f"`{key}` should be a run folder. Found `{key} = {run}`, which has no {CONFIG}. They lie below `outputs/`."
        )
    return file
