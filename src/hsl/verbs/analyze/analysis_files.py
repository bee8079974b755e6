"""The files of an analysis: pictures, plots, tables, page, and last ``analysis.json``."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hsl.files.cells import csv_of
from hsl.files.io import write_atomically
from hsl.reports.analysis.analysis_page import analysis_page
from hsl.reports.analysis.drawings import Tile, attention_plot, stage_plot, tile_sheet
from hsl.reports.analysis.numbers import Errors
from hsl.reports.plots.confusion_plots import confused_plot
from hsl.reports.plots.plot_files import Plot, save_plots
from hsl.reports.plots.score_plots import slug
from hsl.verbs.analyze.analyzed_runs import AnalysedPictures
from hsl.verbs.analyze.look import Look

COLUMNS, MOST = 6, 60  # tiles of the pictures that every run gets wrong


def write_analysis(
    output: Path, content: Mapping[str, Any], pictures: AnalysedPictures, looks: Sequence[Look], errors: Errors
) -> None:
    """Write the folder.

    Args:
        output: made where it is not there.
        content: what ``analysis.json`` is to say; the names of the files are added.
        pictures: what was looked at.
        looks: what was found, run by run.
        errors: of all runs.
    """
    labels = [run["label"] for run in content["runs"]]
    for run, look in zip(content["runs"], looks, strict=True):
        _heat_maps(output / run["heat_maps"], f"{run['label']}, {content['part']}", pictures, look)
    files = {"overview": "overview.png", "stages_plot": "activations.png"}
    _overview(output / files["overview"], f"mean heat maps, {content['part']}", labels, pictures, looks)
    stage_plot(output / files["stages_plot"], {label: look.stages for label, look in zip(labels, looks, strict=True)})
    found = {label: look.attention for label, look in zip(labels, looks, strict=True) if look.attention is not None}
    if any(one.num_pictures for by_class in found.values() for one in by_class.values()):
        files["attention_plot"] = "attention.png"
        attention_plot(output / "attention.png", found)
    files |= _confused(output, content, pictures, looks)
    if errors.wrong_in_all:
        files["wrong_in_all"] = "wrong_in_all.png"
        _wrong_in_all(output / "wrong_in_all.png", content["part"], pictures, looks, errors)
    for name, table in _tables(content, pictures, looks, errors).items():
        files[name] = f"{name}.csv"
        write_atomically(output / files[name], csv_of(table).encode())
    page = {**content, "files": files}
    write_atomically(output / "index.md", analysis_page(page).encode())
    write_atomically(output / "analysis.json", json.dumps(page, indent=1, allow_nan=False).encode())


def _heat_maps(path: Path, title: str, pictures: AnalysedPictures, look: Look) -> None:
    """A row for each class: its mean heat map, then examples."""
    rows = []
    for k, name in enumerate(pictures.classes):
        examples = [
            Tile(look.examples[i, k], [pictures.ids[i], _said(pictures, look, i, k)]) for i in pictures.examples[k]
        ]
        rows.append((name, [_mean(pictures, look, k), *examples]))
    most = max(len(places) for places in pictures.examples.values())
    columns = ["mean", "examples", *[""] * most][: 1 + most]
    tile_sheet(path, f"{title}; below an example: its id and the probability of the class", columns, rows)


def _overview(path: Path, title: str, labels: Sequence[str], pictures: AnalysedPictures, looks: Sequence[Look]) -> None:
    rows = [(name, [_mean(pictures, look, k) for look in looks]) for k, name in enumerate(pictures.classes)]
    tile_sheet(path, title, labels, rows)


def _mean(pictures: AnalysedPictures, look: Look, k: int) -> Tile:
    number = int((pictures.target[:, k] == 1).sum())
    return Tile(look.means.get(k), [f"{number} picture{'s' * (number != 1)}"])


def _said(pictures: AnalysedPictures, look: Look, i: int, k: int) -> str:
    """Probability of the class and, where the run does not name it, what it says instead."""
    probability = f"{look.probabilities[i, k]:.2f}"
    return probability if look.predicted[i, k] else f"{probability}, says {pictures.names(look.predicted[i])}"


def _wrong_in_all(path: Path, part: str, pictures: AnalysedPictures, looks: Sequence[Look], errors: Errors) -> None:
    places = np.flatnonzero(errors.num_wrong == len(looks)).tolist()
    tiles = []
    for i in places[:MOST]:
        said = Counter(pictures.names(look.predicted[i]) for look in looks)
        answers = "; ".join(f"{name} × {number}" if number > 1 else name for name, number in said.most_common())
        tiles.append(
            Tile(
                pictures.thumbnail(i), [pictures.ids[i], f"is {pictures.names(pictures.target[i])}", f"said {answers}"]
            )
        )
    rows = [("", tiles[start : start + COLUMNS]) for start in range(0, len(tiles), COLUMNS)]
    shown = f", {len(tiles)} shown" if len(tiles) < len(places) else ""
    title = f"{part}: {len(places)} of {len(errors.ids)} pictures are wrong in every run{shown}"
    tile_sheet(path, title, [""] * min(COLUMNS, len(tiles)), rows, heat_scale=False)


def _confused(
    output: Path, content: Mapping[str, Any], pictures: AnalysedPictures, looks: Sequence[Look]
) -> dict[str, str]:
    """Charts of the classes that each run confuses, where a picture has one; by the place of the run."""
    plots: dict[str, Plot] = {}
    for i, (run, look) in enumerate(zip(content["runs"], looks, strict=True), start=1):
        matrix = (pictures.target == 1).astype(np.int64).T @ look.predicted.astype(np.int64)
        name = f"confused_{i:02d}_{slug(run['label'])}"
        plot = None if pictures.several else confused_plot(matrix, pictures.classes, run["label"], name, "pictures")
        plots |= {} if plot is None else {f"confused_{i:02d}": plot}
    save_plots(list(plots.values()), output, formats=("png",))
    return {key: f"{plot.name}.png" for key, plot in plots.items()}


def _tables(
    content: Mapping[str, Any], pictures: AnalysedPictures, looks: Sequence[Look], errors: Errors
) -> dict[str, pd.DataFrame]:
    runs, labels = content["runs"], [run["label"] for run in content["runs"]]
    stages = [{"run": run["label"], "stride": stride, **one} for run in runs for stride, one in run["stages"].items()]
    attention = [
        {"run": run["label"], "class": name, **one} for run in runs for name, one in (run["attention"] or {}).items()
    ]
    counts = [
        {
            "run": run["label"],
            "num_pictures": len(errors.ids),
            "num_wrong": run["num_wrong"],
            "num_wrong_alone": len(errors.wrong_in_one[run["label"]]),
            "num_wrong_in_all": len(errors.wrong_in_all),
        }
        for run in runs
    ]
    tables = {"activations": pd.DataFrame(stages), "error_counts": pd.DataFrame(counts)}
    for name, values in {"error_overlap": errors.overlap, "feature_similarity": content["feature_similarity"]}.items():
        tables[name] = pd.DataFrame(values, columns=labels, dtype=float)
        tables[name].insert(0, "run", labels, allow_duplicates=True)  # a run may have that name
    tables["errors"] = _error_table(labels, pictures, looks, errors)
    return tables | ({"attention": pd.DataFrame(attention)} if attention else {})


def _error_table(
    labels: Sequence[str], pictures: AnalysedPictures, looks: Sequence[Look], errors: Errors
) -> pd.DataFrame:
    """A row for each picture that a run gets wrong, those that most get wrong first."""
    columns = ["id", "target", "num_wrong", "only", *(f"prediction/{label}" for label in labels)]
    rows = []
    for i in np.argsort(-errors.num_wrong, kind="stable").tolist():
        number = int(errors.num_wrong[i])
        if not number:
            break
        only = labels[int(errors.wrong[:, i].argmax())] if number == 1 else ""
        predictions = [pictures.names(look.predicted[i]) for look in looks]
        rows.append([pictures.ids[i], pictures.names(pictures.target[i]), number, only, *predictions])
    return pd.DataFrame(rows, columns=columns)
