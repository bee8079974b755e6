"""The graphs of a run, or of an ensemble's members, and the manifest that says how a picture travels through them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf

from hsl.errors import ConfigError
from hsl.exporting import graph
from hsl.exporting.manifest import Combination, Decoding, Fusion, Manifest, Model, Runtime, Window
from hsl.files.io import sha256_of
from hsl.heads import Head
from hsl.inference.predictor import Predictor, Whole
from hsl.inference.sliding_window import SlidingWindow
from hsl.inference.tta import TestTimeAugmentation
from hsl.run_folder.layout import best_checkpoint
from hsl.verbs.ensemble.predicting import EnsembleModel
from hsl.verbs.predict.foreign_pictures import foreign_decoding
from hsl.verbs.predict.outputs import RunModel

FILES: Mapping[str, str] = {"onnx": "model.onnx", "openvino": "model.xml", "torch_export": "model.pt2"}
"""The graph of a model by format."""
_FACTS = ("name", "fold", "seed", "started", "split_sha256", "git", "packages", "choices")
"""Of the provenance of a run: what names no place of the machine that it was trained on."""


@dataclass(frozen=True)
class Made:
    """What was made: the manifest, without the hashes of its files, and by file why a graph takes one size only."""

    manifest: Manifest
    fixed: Mapping[str, str]


def write_graphs(model: RunModel | EnsembleModel, folder: Path, runtime: Runtime, licence: str) -> Made:
    """Write the graphs of a model below a folder.

    Raises:
        ConfigError: a network cannot be exported, or a combination of members is more than a manifest can say.
    """
    if isinstance(model, EnsembleModel):
        return _of_ensemble(model, folder, runtime, licence)
    made, why = _graph(model, folder, FILES[runtime], runtime, "")
    outputs = {head.name for head in made.outputs} | ({made.fusion.head} if made.fusion else set())
    manifest = Manifest(
        name=str(model.facts["name"]),
        runtime=runtime,
        heads=_said(model.heads, outputs),
        decoding=_decoding(model),
        models=(made,),
        thresholds={head: tuple(limits) for head, limits in model.thresholds.items()},
        channels=tuple(model.task.problem.channels),
        licence=licence,
        provenance=_provenance(model),
    )
    return Made(manifest, {made.file: why} if why else {})


def _of_ensemble(model: EnsembleModel, folder: Path, runtime: Runtime, licence: str) -> Made:
    if model.reads_features:
        raise ConfigError(
            f"`run` should be an ensemble that combines what its members predict. Found `{model.ensemble.folder}`, "
            "which reads their pooled features. Run `hsl ensemble` with `stages=[votes,stacking]`, or export a member."
        )
    combinations = {}
    for head, variant in model.ensemble.variants.items():
        if variant.combined.formula is None:
            raise ConfigError(
                f"`run` should be an ensemble whose combination is votes, weights or a logistic regression. Found "
                f"`{model.ensemble.page.heads[head].recommended}` for the head `{head}`. Run `hsl ensemble` with "
                "`stages=[votes]`, or export a member."
            )
        temperature = model.ensemble.page.heads[head].temperature
        combinations[head] = Combination(tuple(variant.members), dict(variant.combined.formula), temperature)
    models, number = list[Model](), 0
    fixed: dict[str, str] = {}
    for member, runs in model.models.items():
        for run in runs:
            used = replace(run)  # weights of its own, which are freed
            made, why = _graph(used, folder, f"members/{number}/{FILES[runtime]}", runtime, member)
            models.append(made)
            fixed |= {made.file: why} if why else {}
            number += 1
    manifest = Manifest(
        name=model.ensemble.folder.resolve().name,
        runtime=runtime,
        heads=tuple(model.heads.values()),
        decoding=_decoding(model),
        models=tuple(models),
        combinations=combinations,
        thresholds={head: tuple(limits) for head, limits in model.thresholds.items()},
        licence=licence,
        provenance={"members": [_provenance(run) for runs in model.models.values() for run in runs]},
    )
    return Made(manifest, fixed)


def _graph(run: RunModel, folder: Path, name: str, runtime: Runtime, member: str) -> tuple[Model, str]:
    """Write the graph of a run; how a picture gets to it, and why it takes one size only."""
    task, data = run.task, run.data
    predictor, turns = _inner(task.predictor)
    window = Window(predictor.window, predictor.stride) if isinstance(predictor, SlidingWindow) else None
    stride = int(cast(Any, task.network).stride)
    if isinstance(predictor, Whole):
        stride = math.lcm(stride, predictor.stride)
    evaluation_size = None if data.form.evaluation_size == "source" else data.form.sides
    size = None if window is None else (window.side, window.side)
    if size is None and evaluation_size is not None:
        height, width = evaluation_size
        size = height + -height % stride, width + -width % stride
    captured = graph.capture(task.network, size)
    _write(captured, folder / name, runtime)
    mean, std = (tuple(map(float, data.form.normalization[key])) for key in ("mean", "std"))
    model = Model(
        file=name,
        outputs=captured.heads,
        evaluation_size=evaluation_size,
        mean=cast(Any, mean),
        std=cast(Any, std),
        stride=stride,
        window=window,
        orientations=turns,
        input_size=captured.input_size,
        fusion=_fusion(run),
        member=member,
    )
    return model, captured.why_fixed


def _write(captured: graph.Captured, path: Path, runtime: Runtime) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    match runtime:
        case "onnx":
            graph.write_onnx(captured, path)
        case "torch_export":
            graph.write_program(captured, path)
        case "openvino":
            between = path.with_suffix(".onnx")
            graph.write_onnx(captured, between)
            graph.write_openvino(between, path)
            between.unlink()


def _inner(predictor: Predictor) -> tuple[Predictor, tuple[str, ...]]:
    """The predictor inside of test-time augmentation, and the orientations; none without it.

    Raises:
        ConfigError: it is one of another kind.
    """
    inner = predictor
    turns: tuple[str, ...] = ()
    if isinstance(predictor, TestTimeAugmentation):
        inner, turns = predictor.predictor, predictor.transforms
    if not isinstance(inner, Whole | SlidingWindow):
        raise ConfigError(
            f"`inference` should be whole, sliding_window, or either with tta. Found a {type(inner).__name__}. Choose "
            "one with `inference=whole`."
        )
    return inner, turns


def _fusion(run: RunModel) -> Fusion | None:
    problem = run.task.problem
    if problem.fuse is None or problem.scored_head is None:
        return None
    tables = {head: tuple(table) for head, table in run.facts["source_tables"].items()}
    return Fusion(problem.scored_head.name, tables, tuple(run.facts["members"]))


def _said(heads: Mapping[str, Head], outputs: set[str]) -> tuple[Head, ...]:
    return tuple(head for name, head in heads.items() if name in outputs and head.kind in ("dense", "image"))


def _decoding(model: RunModel | EnsembleModel) -> Decoding:
    """As the run decoded its own pictures."""
    as_in_the_run = OmegaConf.create({"value_range": None, "max_megapixels": None})
    known = foreign_decoding(as_in_the_run, model.facts, model.max_megapixels)
    value_range = None if known.value_range is None else tuple(map(float, known.value_range))
    bits = None if known.bits is None else tuple(known.bits)
    return Decoding(cast(Any, value_range), cast(Any, bits), float(known.max_megapixels))


def _provenance(run: RunModel) -> dict[str, Any]:
    """What may be known of a run elsewhere, and which weights these are."""
    facts = {key: run.facts[key] for key in _FACTS if key in run.facts}
    used = run.facts.get("weights_used") or {}
    first = {key: used[key] for key in ("source", "sha256") if key in used}
    return {**facts, "first_weights": first, "checkpoint_sha256": sha256_of(best_checkpoint(run.folder))}
