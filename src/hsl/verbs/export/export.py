"""`hsl export`: a model becomes an artefact, a folder that predicts the same without the suite."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from hsl.errors import ConfigError, needs
from hsl.exporting.manifest import Manifest, write_manifest
from hsl.exporting.runner import Runner
from hsl.files.io import write_atomically
from hsl.files.output_folder import OutputFolder
from hsl.run_folder.ensemble import is_ensemble
from hsl.run_folder.layout import SPLITS
from hsl.terminal import say
from hsl.verbs.ensemble.predicting import open_model
from hsl.verbs.export.artefact import FILES, Made, write_graphs
from hsl.verbs.export.card import model_card
from hsl.verbs.export.gated import write_gate
from hsl.verbs.export.parity import check_parity, parity_pictures
from hsl.verbs.export.quantised import quantise_artefact
from hsl.verbs.opening.opening import building_from, place_data
from hsl.verbs.predict.gated import Gating
from hsl.verbs.predict.outputs import RunModel, refuse_bands
from hsl.verbs.scoring.results import check_same_classes, check_same_split

PARITY, CARD = "parity.json", "README.md"
NEEDED: Mapping[str, tuple[str, ...]] = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "openvino": ("openvino",)}
"""Packages that a format takes, by the extra of hsl that installs them."""


def export(cfg: DictConfig) -> None:
    """Write the graphs, the manifest and the model card, once the artefact says what `hsl predict` says.

    Raises:
        ConfigError: a key has no such value, a package is missing, it is not a run, or it cannot be exported.
        UserError: the artefact says something else than the model; nothing is written.
    """
    check_settings(cfg)
    model = open_model(cfg)
    runs = model.runs
    refuse_bands(runs[0].facts, "An exported model")
    for run in runs:
        place_data(run.cfg, cfg.data_root, cfg.cache_dir)
    gating = Gating.open(Path(cfg.gate), model) if cfg.gate else None
    _check_data(runs[0])
    gates = [cfg.gate] if cfg.gate else []
    with OutputFolder(cfg.output, "export", inputs=[cfg.run, *gates, *model.folders]) as output:
        folder = output.work / ".artefact"
        folder.mkdir()
        made = write_graphs(model, folder, cfg.format, cfg.licence or "")
        if gating is not None:
            write_gate(Path(cfg.gate), gating, folder)
        say(f"{', '.join(each.file for each in made.manifest.models)} written")
        for run in runs:
            run.task.cpu()  # both paths compute alike
        write_manifest(folder, made.manifest)
        pictures = parity_pictures(runs[0].data, cfg.num_pictures, output.work / ".pictures")
        parity = check_parity(model, Runner.open(folder), pictures, output.work / ".maps", gating)
        if cfg.quantisation is not None:
            parity["quantised"] = quantise_artefact(folder, made.manifest, runs[0].data)
        finish(folder, made, [run.folder for run in runs], model.scored_folders, parity)
        for path in folder.iterdir():
            path.rename(output.work / path.name)
    say(f"{len(pictures)} pictures say the same on both paths")
    for sentence in gating.sentences() if gating is not None else []:
        say(sentence)
    say(f"artefact: {cfg.output}")


def finish(folder: Path, made: Made, runs: list[Path], scored: list[Path], parity: Mapping[str, Any]) -> Manifest:
    """Write what was compared, the card, and the manifest with the hash of every file."""
    write_atomically(folder / PARITY, json.dumps(parity, indent=1, ensure_ascii=False).encode())
    write_atomically(folder / CARD, model_card(made.manifest, runs, scored, parity, made.fixed).encode())
    return write_manifest(folder, made.manifest)


def check_settings(cfg: DictConfig) -> None:
    """Refuse what cannot be exported before anything is built.

    Raises:
        ConfigError: a key has no such value, or a package is missing.
    """
    if cfg.format not in FILES:
        raise ConfigError(f"`format` should be one of {', '.join(FILES)}. Found `format = {cfg.format}`. Choose one.")
    if cfg.quantisation not in (None, "int8") or (cfg.quantisation and cfg.format != "onnx"):
        raise ConfigError(
            f"`quantisation` should be null, or int8 of `format=onnx`. Found `quantisation = {cfg.quantisation}` with "
            f"`format = {cfg.format}`. Leave it away."
        )
    if not isinstance(cfg.num_pictures, int) or cfg.num_pictures < 1:
        raise ConfigError(
            f"`num_pictures` should be at least 1. Found `num_pictures = {cfg.num_pictures}`. Take 8, or more of small "
            "pictures."
        )
    if cfg.quantisation and is_ensemble(Path(cfg.run)):
        raise ConfigError(
            f"`quantisation=int8` should be for a single run: there is no part that no member of an ensemble was "
            f"trained on, to compare it on. Found `run = {cfg.run}`. Export the ensemble with `quantisation=null`."
        )
    check_packages(cfg.format)
    if cfg.gate:
        needs("`hsl export gate=`", NEEDED["onnx"], "onnx")  # its encoder is ONNX, whatever the format


def check_packages(wanted: str) -> None:
    """Refuse a format whose packages are not installed.

    Raises:
        ConfigError: one is missing; the message says how to install it.
    """
    for extra, modules in NEEDED.items():
        if wanted == extra or (wanted == "openvino" and extra == "onnx"):  # that graph is converted
            needs("`hsl export`", modules, extra)


def _check_data(run: RunModel) -> None:
    """Refuse other data than those of the run: parity is measured on its own validation pictures.

    Raises:
        ConfigError: they are others.
    """
    with building_from(run.folder):
        data = run.data
    if not (run.folder / SPLITS).is_file():
        raise ConfigError(
            f"`{run.folder}` should hold its fold assignment, {SPLITS}. Found none. Restore it, or train the run again."
        )
    check_same_split(run.folder, data.prepared.fold_assignment)
    check_same_classes(run.folder, data.prepared)
