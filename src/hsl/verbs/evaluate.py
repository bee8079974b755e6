"""`hsl evaluate`: the best checkpoint of a run, scored again."""

from hydra.utils import instantiate
from omegaconf import DictConfig

from hsl.callbacks.evaluation import Evaluation
from hsl.config.targets import allowed_targets
from hsl.config.validation import validate
from hsl.data.datamodule import DataModule
from hsl.files.names import below
from hsl.files.output_folder import OutputFolder
from hsl.run_folder.layout import METRICS, best_checkpoint
from hsl.terminal import say
from hsl.verbs.opening.building import build_task, choose_predictor, num_examples, without_weights
from hsl.verbs.opening.opening import building_from, open_run, place_data
from hsl.verbs.scoring.results import Monitored, check_same_classes, check_same_split
from hsl.verbs.scoring.score import score_checkpoint
from hsl.verbs.train.earlier_runs import check_same_range


def evaluate(cfg: DictConfig) -> None:
    """Score the best checkpoint of a run again, with another predictor if asked for."""
    validate(cfg)
    run, run_cfg = open_run(cfg.run, allowed_targets(cfg))
    place_data(run_cfg, cfg.data_root, cfg.cache_dir)
    choose_predictor(run_cfg, cfg)
    with building_from(run):
        data: DataModule = instantiate(run_cfg.data)
        data.prepare()
    check_same_split(run, data.prepared.fold_assignment)
    check_same_classes(run, data.prepared)
    check_same_range(run, data.prepared)
    name = cfg.get("inference_name") or "plain"
    with building_from(run):
        task = build_task(without_weights(run_cfg), data.prepared)
    monitored = Monitored.read(run)
    callbacks = [Evaluation(name, num_examples(run_cfg))]
    with OutputFolder(below(run, f"evaluations/{name}"), "evaluate", resume=True, way_out="Move it away.") as output:
        score_checkpoint(task, data, run_cfg, callbacks, best_checkpoint(run), output.work, monitored)
    say(f"{output.path / METRICS}")
