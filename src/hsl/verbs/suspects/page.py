"""The page of `hsl suspects`: one suspect after the other, mask beside prediction beside picture, answered by keys."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray

from hsl.data.files.decoding import Decoding
from hsl.data.prepared import PreparedData
from hsl.files.io import write_atomically
from hsl.reports.page.thumbnails import Box, boxed, class_map, photo
from hsl.reports.plots.palette import hex_colour
from hsl.suspects.listing import KINDS, WHOLE, Suspect, Suspects
from hsl.verbs.suspects.checking import Reader

CONTEXT = 48
"""Pixels around a region that are shown at least."""
Image = NDArray[np.uint8]


def write_page(
    folder: Path, content: Suspects, shown: Sequence[Suspect], data: PreparedData, reader: Reader | None
) -> None:
    """Write ``index.html``, which needs no network and keeps its answers in the browser.

    Args:
        folder: of the page.
        content: what was found.
        shown: the suspects on the page, in their order.
        data: the pictures.
        reader: of masks and maps; none where only labels of pictures were checked.
    """
    items = [_item(rank, one, data, reader) for rank, one in enumerate(shown, 1)]
    environment = Environment(
        loader=ChoiceLoader(
            [PackageLoader("hsl.verbs.suspects", "html"), PackageLoader("hsl.pseudo_labels", "html")]
        ),
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    digest = hashlib.sha256(content.model_dump_json().encode()).hexdigest()[:16]
    page = environment.get_template("suspects.html.j2").render(
        content=content,
        num_shown=len(items),
        kinds=[kind for kind in KINDS if any(one.kind == kind for one in shown)],
        classes=[(name, hex_colour(i)) for i, name in enumerate(content.classes)] if reader else [],
        stored=_in_script({"digest": digest, "items": items}),
        script=environment.get_template("suspects.js").render(),
    )
    write_atomically(folder / "index.html", page.encode())


def _item(rank: int, one: Suspect, data: PreparedData, reader: Reader | None) -> dict[str, Any]:
    images = [_views(name, one, data, reader) for name in (one.id, one.other) if name]
    return {
        "rank": rank, "id": one.id, "other": one.other, "kind": one.kind, "score": round(one.score, 3),
        "text": one.text, "rows": images,
    }  # fmt: skip


def _views(name: str, one: Suspect, data: PreparedData, reader: Reader | None) -> dict[str, str]:
    """By title the pictures of one row, as data URIs; of a region with what lies around it."""
    bands = data.catalogue.bands
    image = Decoding.of(data.catalogue).image(data.catalogue.records[data.places[name]].image)
    image = image if bands is None else bands.rgb(image)
    evidence = None if reader is None or one.kind == KINDS[-1] else reader.evidence(name)
    if evidence is None:
        return {f"picture {name}": photo(image)}
    masks: Mapping[str, Image] = {"mask": evidence.mask, "prediction": evidence.predicted}
    if one.kind in WHOLE:
        return {f"picture {name}": photo(image)} | {title: class_map(mask) for title, mask in masks.items()}
    window, box = _crop(one, evidence.size)
    views: dict[str, Image] = {f"picture {name}": image, **masks}
    return {title: boxed(view[window], view[window].shape[:2], [box]) for title, view in views.items()}


def _crop(one: Suspect, size: tuple[int, int]) -> tuple[tuple[slice, slice], Box]:
    """What is shown of a picture, and the box of the region in it."""
    top, left, height, width = one.box
    around = max(CONTEXT, height, width)
    rows = slice(max(0, top - around), min(size[0], top + height + around))
    columns = slice(max(0, left - around), min(size[1], left + width + around))
    first, second = top - rows.start, left - columns.start
    return (rows, columns), (first, second, first + height, second + width)


def _in_script(content: Mapping[str, Any]) -> str:
    """JSON that no text in it can end the script element of."""
    return json.dumps(content, ensure_ascii=False).replace("<", "\\u003c")
