"""A checkpoint scored on the validation and test parts: after a training, and again by `hsl evaluate`."""

import functools
from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch.callbacks import Callback
from omegaconf import DictConfig, OmegaConf

from hsl.callbacks.evaluation import Evaluation
from hsl.callbacks.oom_backoff import OomBackoff
from hsl.callbacks.progress import quieten_lightning, scoring_bar
from hsl.config.targets import allowed_targets
from hsl.config.validation import validate
from hsl.data.datamodule import DataModule
from hsl.errors import ConfigError
from hsl.files.names import below
from hsl.files.output_folder import OutputFolder
from hsl.reports.page.pictures import colours_of
from hsl.run_folder.ensemble import is_ensemble
from hsl.run_folder.layout import METRICS, OBJECTS, best_checkpoint
from hsl.run_folder.provenance import read_provenance
from hsl.tasks.segmentation import SegmentationTask
from hsl.terminal import say
from hsl.verbs.ensemble.evaluating import evaluate_ensemble
from hsl.verbs.opening.building import (
    build_task,
    choose_predictor,
    load_checkpoint_weights,
    num_examples,
    rebuild_data,
    without_weights,
)
from hsl.verbs.opening.opening import building_from, open_run, place_data
from hsl.verbs.scoring.class_maps import object_scores, save_class_maps
from hsl.verbs.scoring.results import Monitored, check_same_classes, check_same_split, write_results
from hsl.verbs.train.earlier_runs import check_same_range
from hsl.verbs.train.setup import check_launch, ending_together, is_further_process, own_command, trainer_of


def evaluate(cfg: DictConfig) -> None:
    """Score the best checkpoint of a run again, with another predictor if asked for; of an ensemble its test part."""
    validate(cfg)
    if is_ensemble(Path(cfg.run)):
        if cfg.devices > 1:
            raise ConfigError(
                f"`devices` should be 1 for an ensemble, one process asks its models. Found `devices = {cfg.devices}`. "
                "Evaluate runs on several devices, the ensemble on one."
            )
        evaluate_ensemble(cfg)
        return
    run, run_cfg = open_run(cfg.run, allowed_targets(cfg))
    run_cfg.trainer.update({"devices": cfg.devices, "strategy": "ddp" if cfg.devices > 1 else "auto"})
    place_data(run_cfg, cfg.data_root, cfg.cache_dir)
    choose_predictor(run_cfg, cfg)
    with building_from(run):
        data = rebuild_data(run_cfg, read_provenance(run))
        data.prepare()
    check_same_split(run, data.prepared.fold_assignment)
    check_same_classes(run, data.prepared)
    check_same_range(run, data.prepared)
    name = cfg.get("inference_name") or "plain"
    with building_from(run):
        task = build_task(without_weights(run_cfg), data.prepared)
    callbacks = [Evaluation(name, num_examples(run_cfg))]
    output = OutputFolder(below(run, f"evaluations/{name}"), "evaluate", resume=True, way_out="Move it away.")
    score = functools.partial(
        score_checkpoint, task, data, run_cfg, callbacks, best_checkpoint(run), output.work, Monitored.read(run)
    )
    if is_further_process(run_cfg.trainer):
        score()
        return
    with output, own_command():
        score()
    say(f"{output.path / METRICS}")


def score_checkpoint(
    task: SegmentationTask,
    data: DataModule,
    cfg: DictConfig,
    callbacks: Sequence[Callback],
    checkpoint: Path,
    folder: Path,
    monitored: Monitored,
) -> None:
    """Score a checkpoint on validation and test parts and write everything that shows it into ``folder``.

    Several processes (``cfg.trainer.devices``) share the pictures; the first one puts together what they saw, in the
    order of one.
    """
    quieten_lightning()
    load_checkpoint_weights(task, checkpoint)
    evaluations = [callback for callback in callbacks if isinstance(callback, Evaluation)]
    backoff = [callback for callback in callbacks if isinstance(callback, OomBackoff)]
    bar = scoring_bar()
    trainer = trainer_of(
        cfg, callbacks=[*evaluations, *backoff, *bar], logger=False, default_root_dir=folder,
        enable_progress_bar=bool(bar), enable_checkpointing=False,
    )  # fmt: skip
    check_launch(trainer)
    colours = colours_of(data.prepared.classes[data.prepared.head], data.prepared.heads.overlapping)
    keep = functools.partial(save_class_maps, folder, colours=colours)
    task.inferences = {each.inference: each.predictor for each in evaluations}
    classifier = task.problem.scored_head is None  # it finds no objects
    pool = None if classifier else OmegaConf.select(cfg, "metrics.pool")
    with ending_together(trainer):
        with object_scores(folder / OBJECTS, pool, evaluations[0].head, data.prepared, trainer) as pooled:
            for evaluation in evaluations:
                evaluation.sinks = [*pooled, keep] if evaluation is evaluations[0] else pooled
            trainer.test(task, datamodule=data, verbose=False)
        trainer.strategy.barrier()  # until then some may write class maps
    if trainer.is_global_zero:
        write_results(folder, evaluations, data, monitored)
