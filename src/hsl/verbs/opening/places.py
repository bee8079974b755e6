"""The places that a command names, looked at before anything heavy is imported: a wrong path is answered at once."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra.utils import instantiate

from hsl.config.calls import check_calls
from hsl.errors import ConfigError
from hsl.run_folder.layout import CONFIG


def check_places(content: Mapping[str, Any]) -> None:
    """Look for the run folder and the data that a verb is given.

    Where nothing lies at ``data.root``, the reader is asked at once: it refuses a missing folder, and draws or fetches
    data that are made there.

    Args:
        content: a resolved config.

    Raises:
        ConfigError: ``run`` is not a run folder.
        DataError: the data set cannot be read.
    """
    if isinstance(run := content.get("run"), str):
        config_of(run)
    data = content.get("data")
    if isinstance(data, dict) and isinstance(root := data.get("root"), str) and not Path(root).exists():
        reader = {"data": {"reader": data["reader"]}}
        check_calls(reader)
        instantiate(reader)["data"]["reader"](root)


def config_of(run: str) -> Path:
    """The config of a run folder.

    Raises:
        ConfigError: there is none.
    """
    file = Path(run) / CONFIG
    if not file.is_file():
        raise ConfigError(
            f"`run` should be a run folder. Found `run = {run}`, which has no {CONFIG}. They lie below `outputs/`."
        )
    return file
