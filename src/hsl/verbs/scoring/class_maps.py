"""Where the class maps of an evaluation go: into files, and to the metrics that run on other cores."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lightning
import numpy as np
from hydra.utils import instantiate
from numpy.typing import NDArray
from omegaconf import DictConfig

from hsl.batch import Batch
from hsl.callbacks.evaluation import ClassMaps, ObjectMaps, Sink
from hsl.callbacks.object_scores import open_pool, submit
from hsl.data.prepared import PreparedData
from hsl.files.names import file_name
from hsl.files.row_file import join_rows
from hsl.reports.page.pictures import write_class_map
from hsl.run_folder.layout import PREDICTIONS, of_rank, of_ranks
from hsl.terminal import say

FOLDER = PREDICTIONS / "classes"


def class_map_path(part: str, inference: str, name: str) -> Path:
    """Where, below the run folder, the class map of a picture lies.

    Example:
        >>> class_map_path("val", "plain", "exp1_num_3").as_posix()
        'predictions/classes/val_plain/exp1_num_3.png'
        >>> class_map_path("val", "plain", "site 1/a").name  # another id must not end at the same file
        'site-1-a-3580befc.png'
    """
    return FOLDER / file_name(f"{part}_{inference}") / f"{file_name(name)}.png"


def save_class_maps(
    folder: Path,
    part: str,
    batch: Batch,
    class_maps: ClassMaps,
    _objects: ObjectMaps | None = None,
    *,
    colours: NDArray[np.uint8] | None = None,
) -> None:
    """Write each class map as an index PNG, in the class colours or these, below the run folder."""
    where, inference = part.split("/")
    for name, classes in zip(batch["id"], class_maps, strict=True):
        write_class_map(folder / class_map_path(where, inference, name), classes, colours)


@contextmanager
def object_scores(
    path: Path, settings: DictConfig | None, head: str, data: PreparedData, trainer: lightning.Trainer
) -> Iterator[list[Sink]]:
    """A pool of processes that fills ``path`` with a line per picture, as a sink; no sink without settings.

    Args:
        path: the JSON lines; what an earlier, killed evaluation left is taken up by one process. Several begin anew:
            each has a file of its own, of which the first makes one.
        settings: ``workers`` and ``metrics``: name to a function of prediction, target and, where it names them,
            ``num_classes`` and ``target_instances``.
        head: whose masks are the target.
        data: knows the object ids, where the data set has them; else objects are connected components.
        trainer: knows the processes.
    """
    if settings is None:
        yield []
        return
    metrics, num_classes = instantiate(settings.metrics), len(data.classes[head])
    rank, alone = trainer.global_rank, trainer.world_size == 1
    own = of_rank(path, rank) if rank else path
    if not alone:
        own.unlink(missing_ok=True)
    with open_pool(own, metrics, settings.workers, num_classes) as pool:
        yield [functools.partial(submit, pool, head, data.instances)]
    summary = pool.close()
    trainer.strategy.barrier()
    if trainer.is_global_zero:
        if not alone:
            join_rows(path, [of_rank(path, each) for each in range(1, trainer.world_size)])
        for left in of_ranks(path):  # by an evaluation with more processes that was killed
            left.unlink()
    if summary.failed:
        part, name = summary.failed[0]
        say(
            f"! {len(summary.failed)} of {summary.num_pictures} pictures have an error record in {path}, "
            f"first `{name}` ({part}). Their other scores stand."
        )
