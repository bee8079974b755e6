"""The report as one HTML file that opens without a network."""

import base64
import io
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from hsl.files import write_atomically
from hsl.reports import plots
from hsl.reports.comparisons import Comparison
from hsl.reports.contents import TITLES
from hsl.reports.figures import COLOURS, ROW, WIDTH, dot_plot, learning_curves
from hsl.reports.notes import Note
from hsl.reports.palette import hex_colour
from hsl.reports.pictures import VIEWS, Example
from hsl.reports.results import Model
from hsl.reports.run_folder import Run
from hsl.reports.tables import Table

THUMBNAIL = 320  # pixels of the longer side


@dataclass(frozen=True)
class Shown:
    """A picture on the page: its row of the index, the fold, and each view as a data URI."""

    example: Example
    fold: int
    views: Mapping[str, str]


def write_page(
    path: Path,
    runs: Sequence[Run],
    models: Sequence[Model],
    tables: Mapping[str, Table],
    comparisons: Sequence[Comparison],
    notes: Sequence[Note],
    num_pictures: int,
    metric: str,
    part: str,
    inference: str,
) -> None:
    """Render and write ``index.html``.

    Args:
        path: the file.
        runs: every run folder found.
        models: in the order of the ranking.
        tables: by name.
        comparisons: of every two models.
        notes: what the reader must know, warnings first.
        num_pictures: best and worst pictures shown per model, each.
        metric: the score that ranks.
        part: the part it is taken on.
        inference: the inference it is taken with.
    """
    environment = Environment(
        loader=PackageLoader("hsl.reports", "html"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    ready = [model for model in models if model.finished]
    scale, dots = dot_plot(ready, metric, part, inference)
    content = environment.get_template("page.html.j2").render(
        created=datetime.now(UTC),
        runs=runs,
        models=models,
        ready=ready,
        tables=tables,
        comparisons=comparisons,
        notes=notes,
        metric_title=TITLES[metric],
        data_names=sorted({str(run.provenance["data"]) for run in runs if "data" in run.provenance}),
        part=part,
        inference=inference,
        dots={"axis": scale, "rows": dots, "width": WIDTH, "row": ROW},
        curves=learning_curves(ready),
        num_colours=COLOURS,
        heat=_heat(ready, part, inference),
        matrices={model.label: _matrix(model, part, inference) for model in ready},
        galleries={model.label: _gallery(model, num_pictures) for model in ready},
        views=VIEWS,
        colours=_class_colours(ready),
    )
    write_atomically(path, content.encode())


def _heat(models: Sequence[Model], part: str, inference: str) -> dict[str, list[float]]:
    """Model to the pooled IoU of each class."""
    pooled = {model.label: model.pooled(part, inference) for model in models}
    return {label: scores.per_class["iou"].tolist() for label, scores in pooled.items() if scores}


def _matrix(model: Model, part: str, inference: str) -> str | None:
    """The pooled confusion matrix as a data URI."""
    matrix = model.pooled_confusion(part, inference)
    if matrix is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "matrix.png"
        plots.confusion_matrix(matrix, model.classes, path, title=model.label)
        return _data_uri(path.read_bytes(), "png")


def _gallery(model: Model, num_pictures: int) -> dict[str, list[Shown]]:
    """The best and the worst pictures over all folds, with the views that can be read."""
    found = [(run, example) for run in model.finished.values() for example in run.examples]
    gallery: dict[str, list[Shown]] = {}
    for kind, sign in (("best", -1), ("worst", 1)):
        mine = sorted((pair for pair in found if pair[1].kind == kind), key=lambda pair: sign * pair[1].miou)
        shown = [Shown(example, run.fold, _views(run.folder, example)) for run, example in mine[:num_pictures]]
        gallery[kind] = [one for one in shown if one.views]
    return gallery


def _views(folder: Path, example: Example) -> dict[str, str]:
    uris: dict[str, str] = {}
    for view in VIEWS:
        path = folder / "predictions" / f"{example.stem}_{view}.png"
        try:
            with Image.open(path) as picture:
                uris[view] = _thumbnail(picture, view, folder / "predictions" / f"{example.stem}_input.png")
        except OSError:  # absent or broken: the page shows a gap there
            continue
    return uris


def _thumbnail(picture: Image.Image, view: str, original: Path) -> str:
    if view == "overlay":  # its legend stands once on the page
        with Image.open(original) as source:
            height = round(picture.width * source.height / source.width)
        picture = picture.crop((0, 0, picture.width, min(height, picture.height)))
    is_mask = picture.mode == "P"
    scale = THUMBNAIL / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    small = picture.resize(size, Image.Resampling.NEAREST if is_mask else Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if is_mask:
        small.save(buffer, format="png", optimize=True)
    else:
        small.convert("RGB").save(buffer, format="jpeg", quality=82)
    return _data_uri(buffer.getvalue(), "png" if is_mask else "jpeg")


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _class_colours(models: Sequence[Model]) -> list[tuple[str, str]]:
    classes: Any = next((model.classes for model in models), [])
    return [(name, hex_colour(i)) for i, name in enumerate(classes)]
