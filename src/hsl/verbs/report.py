"""`hsl report`: the models of finished runs compared."""

from pathlib import Path

from omegaconf import DictConfig

from hsl.errors import ConfigError
from hsl.metrics.pixels.pixel_counts import METRICS
from hsl.reports.scores import IMAGE_METRICS
from hsl.run_folder.run import gather


def report(cfg: DictConfig) -> Path:
    """Compare the models of the runs that match ``cfg.runs``, see `hsl.reports.report.report_on`.

    Returns:
        The page.

    Raises:
        ConfigError: ``metric`` or ``image_metric`` is none of the scores.
        DataError: no run folder matches.
    """
    if cfg.metric is not None and cfg.metric not in METRICS:
        raise ConfigError(f"`metric` should be one of {', '.join(METRICS)}. Found `metric = {cfg.metric}`.")
    if cfg.image_metric not in IMAGE_METRICS:
        raise ConfigError(
            f"`image_metric` should be one of {', '.join(IMAGE_METRICS)}. Found `image_metric = {cfg.image_metric}`."
        )
    runs = gather([cfg.runs] if isinstance(cfg.runs, str) else [str(pattern) for pattern in cfg.runs])
    from hsl.reports.report import report_on  # statistics and plots take seconds to import; a mistake needs neither

    return report_on(runs, cfg)
