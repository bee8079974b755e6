"""`hsl evaluate run=ENSEMBLE`: the recommended combination on the test part, by the models themselves."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from hsl.batch import Batch
from hsl.callbacks.evaluation import ImageResult, PartResult
from hsl.config.targets import allowed_targets
from hsl.data.datamodule import DataModule
from hsl.data.files.decoding import Decoding
from hsl.errors import ConfigError, UserError
from hsl.files.io import null_for_nan
from hsl.files.names import below
from hsl.files.output_folder import OutputFolder
from hsl.heads import Head
from hsl.metrics.images.imagewise import probabilities_of
from hsl.run_folder.layout import METRICS, PIXEL_COUNTS
from hsl.run_folder.pictures import write_images
from hsl.run_folder.scores import write_metrics
from hsl.run_folder.stored_counts import write_pixel_counts
from hsl.terminal import say
from hsl.verbs.ensemble.member_rows import RowSettings, open_data
from hsl.verbs.ensemble.predicting import EnsembleModel
from hsl.verbs.ensemble.stages.dense_stages import one_picture
from hsl.verbs.ensemble.stages.stage_runs import metrics_page
from hsl.verbs.scoring.dense_results import dense_scores, image_rows, pixel_counts
from hsl.verbs.scoring.image_results import write_image_tables

PART = "test"


def evaluate_ensemble(cfg: DictConfig) -> None:
    """Score an ensemble on the test part, into its ``evaluations/``.

    Its validation pictures are those that it was fitted on: their honest scores are the nested ones of its stages.

    Raises:
        ConfigError: there is no test part, or the data are no longer those of the members.
    """
    model = EnsembleModel.open(cfg)
    settings = RowSettings(allowed_targets(cfg), cfg.data_root, cfg.cache_dir)
    _, data = open_data(model.first.folder, settings)
    prepared = data.prepared
    if not (ids := prepared.parts[PART]):
        raise ConfigError(
            "`run` should be an ensemble of data with a test part. Found none: its other pictures are those that it "
            "was fitted on, and their nested scores stand on its page. Set `data.split.test_fraction` for the members."
        )
    name = cfg.get("inference_name") or "plain"
    records = [prepared.catalogue.records[prepared.places[one]] for one in ids]
    images = {head.name: ImageResult(head) for head in model.heads.values() if head.kind == "image"}
    dense = {head.name: PartResult(num_examples=0) for head in model.heads.values() if head.kind == "dense"}
    place = below(model.ensemble.folder, f"evaluations/{name}")
    with OutputFolder(place, "evaluate", resume=True, way_out="Move it away.") as output:
        decoding = Decoding.of(prepared.catalogue)
        for one, outputs in model.outputs(records, decoding, _raise, _nothing, output.work / ".maps"):
            for head in model.heads.values():
                if head.kind == "image":
                    _add_image(images[head.name], one, outputs[head.name], data)
                else:
                    dense[head.name].add(outputs[head.name][None], _batch(one, data, head), head)
        _write(output.work, name, model.heads, images, dense, data)
    say(f"{output.path / METRICS}")


def _add_image(result: ImageResult, name: str, logits: Tensor, data: DataModule) -> None:
    labels: Any = data.prepared.image_labels
    result.ids.append(name)
    result.probabilities.append(probabilities_of(logits[None], result.head.several)[0].numpy())
    result.targets.append(labels.values[data.prepared.places[name]])


def _batch(name: str, data: DataModule, head: Head) -> Batch:
    _, mask = data.original(name)
    if mask is None:
        raise ConfigError(f"`run` should be of data with masks of the test part. Found none of `{name}`.")
    return one_picture(name, torch.from_numpy(mask.astype("int64")), head)


def _write(
    folder: Path,
    inference: str,
    heads: Mapping[str, Head],
    images: Mapping[str, ImageResult],
    dense: Mapping[str, PartResult],
    data: DataModule,
) -> None:
    group, scores = data.prepared.group, dict[str, Any]()
    for name, result in dense.items():
        each = (PART, inference, result)
        write_images(folder, image_rows(*each, heads[name].classes, group, kept=False))
        write_pixel_counts(folder / PIXEL_COUNTS, pixel_counts([each]))
        scores |= dense_scores(result, heads[name].classes)
    found = write_image_tables(folder, [(PART, inference, one) for one in images.values()], group, PART)
    if images:
        scores["image_heads"] = found[PART][inference]
    name, value = "test/miou", scores.get("miou")
    if not dense:
        (head,) = scores["image_heads"].values()
        name, value = "test/accuracy", head.get("accuracy")
    classes = next((heads[name].classes for name in dense), ())
    of_images = {name: list(heads[name].classes) for name in images}
    page = metrics_page(name, float("nan") if value is None else value, {PART: {inference: scores}}, classes, of_images)
    write_metrics(folder, null_for_nan(page))


def _raise(error: UserError) -> None:
    raise error


def _nothing(_: Batch) -> None:
    """The pictures are those of the data set: nothing is to be said of them."""
