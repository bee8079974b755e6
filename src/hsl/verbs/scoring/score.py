"""A checkpoint scored on the validation and test parts."""

import functools
from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig, OmegaConf

from hsl.callbacks.evaluation import Evaluation
from hsl.callbacks.oom_backoff import OomBackoff
from hsl.callbacks.progress import quieten_lightning, scoring_bar
from hsl.data.datamodule import DataModule
from hsl.reports.page.pictures import colours_of
from hsl.run_folder.layout import OBJECTS
from hsl.tasks.segmentation import SegmentationTask
from hsl.verbs.opening.building import load_checkpoint_weights
from hsl.verbs.scoring.class_maps import object_scores, save_class_maps
from hsl.verbs.scoring.results import Monitored, write_results
from hsl.verbs.train.setup import trainer_of


def score_checkpoint(
    task: SegmentationTask,
    data: DataModule,
    cfg: DictConfig,
    callbacks: Sequence[Callback],
    checkpoint: Path,
    folder: Path,
    monitored: Monitored,
) -> None:
    """Score a checkpoint on validation and test parts and write everything that shows it into ``folder``."""
    quieten_lightning()
    load_checkpoint_weights(task, checkpoint)
    evaluations = [callback for callback in callbacks if isinstance(callback, Evaluation)]
    backoff = [callback for callback in callbacks if isinstance(callback, OomBackoff)]
    bar = scoring_bar()
    trainer = trainer_of(
        cfg, callbacks=[*evaluations, *backoff, *bar], logger=False, default_root_dir=folder,
        devices=1, strategy="auto", num_nodes=1, enable_progress_bar=bool(bar), enable_checkpointing=False,
    )  # fmt: skip
    colours = colours_of(data.prepared.classes[data.prepared.head], data.prepared.heads.overlapping)
    keep = functools.partial(save_class_maps, folder, colours=colours)
    task.inferences = {each.inference: each.predictor for each in evaluations}
    classifier = task.problem.scored_head is None  # it finds no objects
    pool = None if classifier else OmegaConf.select(cfg, "metrics.pool")
    with object_scores(folder / OBJECTS, pool, evaluations[0].head, data.prepared) as pooled:
        for evaluation in evaluations:
            evaluation.sinks = [*pooled, keep] if evaluation is evaluations[0] else pooled
        trainer.test(task, datamodule=data, verbose=False)
    write_results(folder, evaluations, data, monitored)
