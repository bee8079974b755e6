"""`hsl patches`: a data set of patches from one of pictures."""

import os

from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.markup import escape
from rich.table import Table

from hsl.console import PlainConsole
from hsl.data.arguments import check_max_megapixels, check_value_range
from hsl.data.files.decode import Range
from hsl.data.files.records import ruled
from hsl.data.patches.export import PatchSet, write_patch_set
from hsl.errors import ConfigError
from hsl.files.output_folder import OutputFolder
from hsl.reports.plots.run_plots import class_distribution
from hsl.terminal import say


def patches(cfg: DictConfig) -> None:
    """Cut patches from every picture of a data set, write them, print what that did to the classes.

    Raises:
        ConfigError: The output holds files of others, or a setting breaks a rule.
        DataError: A picture cannot be read, or none has foreground.
    """
    if cfg.data.patches is None:
        raise ConfigError("`data/patches` should say where to cut. Found none. Set `data/patches=poisson_disk`.")
    sampling = instantiate(cfg.data.patches)
    with OutputFolder(cfg.output, "patches", inputs=[cfg.data.root]) as output:
        catalogue = ruled(instantiate(cfg.data.reader)(cfg.data.root), *_rules(cfg.data))
        written = write_patch_set(
            catalogue,
            sampling,
            output.work,
            groups=cfg.data.split.groups,
            seed=cfg.seed,
            workers=len(os.sched_getaffinity(0)) if cfg.workers == "auto" else cfg.workers,
            plot=class_distribution,
        )
    _print(written)
    say(cfg.output)


def _rules(data: DictConfig) -> tuple[Range, float]:
    return (
        check_value_range(data.value_range, "data.value_range"),
        check_max_megapixels(data.max_megapixels, "data.max_megapixels"),
    )


def _print(written: PatchSet) -> None:
    console, table = PlainConsole(), Table("class", "before %", "after %", "ratio")
    for row in written.classes.to_dict("records"):
        ratio = f"{row['ratio']:.2f}" if row["pixels_before"] else "–"
        table.add_row(
            escape(str(row["class"])), f"{100 * row['share_before']:.3f}", f"{100 * row['share_after']:.3f}", ratio
        )
    console.print(table)
    found = written.summary
    console.print(
        f"{found['patches']} patches of {found['pictures']} pictures ({found['pictures_without_patch']} without "
        f"foreground), {100 * found['coverage']:.1f} % of the foreground covered; distance between centres at least "
        f"{found['distance_min']:.1f}, median of the nearest {found['distance_median']:.1f} pixels"
    )
