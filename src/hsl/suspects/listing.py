"""What is suspected of a data set: ``suspects.json``, one entry a suspect, the surest first."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from hsl.data.files.run_lengths import encode_runs
from hsl.errors import DataError
from hsl.files.io import read_json, write_atomically
from hsl.suspects.regions import Region
from hsl.suspects.shifts import Shift
from hsl.suspects.swaps import Swap

SUSPECTS = "suspects.json"
Kind = Literal[
    "swapped files", "shifted mask", "missed object", "spurious object", "wrong class", "wrong label of the picture"
]
KINDS: tuple[Kind, ...] = (
    "swapped files", "shifted mask", "missed object", "spurious object", "wrong class", "wrong label of the picture",
)  # fmt: skip
Answer = Literal["accept", "reject", "later"]
"""To a suspect: the label is right; it is wrong, and the models are right; it is to be corrected by hand."""
WHOLE: tuple[Kind, ...] = KINDS[:2]
"""Kinds that question a mask as a whole. They come first, and stand for the regions of their pictures."""


class Suspect(BaseModel):
    """One label worth a second look.

    Attributes:
        kind: what is wrong, if the models are right.
        id: of the picture.
        score: in [0, 1], how sure that is; comparable within `WHOLE`, and among the others.
        box: top, left, height, width in pixels of the picture.
        label: what the annotation says; empty of `WHOLE`.
        predicted: what the models say.
        other: of swapped files the other picture.
        down, right: of a shifted mask, by how many pixels it is to be moved.
        area: pixels of a region.
        runs: the region inside the box as run lengths, see `hsl.data.files.run_lengths`.
        text: the reason, in words.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Kind
    id: str
    score: float
    box: tuple[int, int, int, int]
    label: str = ""
    predicted: str = ""
    other: str = ""
    down: int = 0
    right: int = 0
    area: int = 0
    runs: str = ""
    text: str


class PictureScore(BaseModel):
    """How a picture as a whole stands.

    Attributes:
        id: of the picture.
        score: of its surest suspect, 0 without one; swapped and shifted ones come first all the same.
        suspects: how many there are.
        softmin: label quality as cleanlab has it, 0 the worst; none without a mask.
        rank: from 1, the most suspect first.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    id: str
    rank: int
    score: float
    suspects: int
    softmin: float | None


class Suspects(BaseModel):
    """The content of ``suspects.json``.

    Attributes:
        data: name of the data set.
        run: a run folder on these data, relative to that of this file.
        classes: of the masks.
        members: names of the models.
        notes: what is to be known of all, a sentence each.
        not_checked: why not -> ids.
        suspects: the surest first.
        pictures: every checked picture, by rank.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    version: Literal[1] = 1
    data: str
    run: str
    classes: list[str]
    members: list[str]
    notes: list[str]
    not_checked: dict[str, list[str]]
    suspects: list[Suspect]
    pictures: list[PictureScore]


def of_region(name: str, region: Region, classes: Sequence[str]) -> Suspect:
    """A region as a suspect."""
    label, predicted = classes[region.label], classes[region.predicted]
    what = {
        "missed object": f"all models see {predicted} where the mask has {label}",
        "spurious object": f"the mask has {label} where all models see {predicted}",
        "wrong class": f"all models see {predicted} where the mask has {label}",
    }[region.kind]
    whole = "the whole object" if region.share > 0.95 else f"{region.share:.0%} of the object"
    return Suspect(
        kind=region.kind, id=name, score=region.score, box=region.box, label=label, predicted=predicted,
        area=region.area, runs=encode_runs(region.pixels), text=f"{what}: {region.area} pixels, {whole}",
    )  # fmt: skip


def of_shift(name: str, shift: Shift, size: tuple[int, int]) -> Suspect:
    """A shift as a suspect."""
    ways = [
        (abs(shift.down), "down" if shift.down > 0 else "up"),
        (abs(shift.right), "right" if shift.right > 0 else "left"),
    ]
    way = " and ".join(f"{number} pixels {word}" for number, word in ways if number)
    text = f"moved {way} the mask overlaps with the prediction by {shift.after:.2f} instead of {shift.before:.2f}"
    return Suspect(
        kind="shifted mask",
        id=name,
        score=shift.score,
        box=(0, 0, *size),
        down=shift.down,
        right=shift.right,
        text=text,
    )


def of_swap(swap: Swap, size: tuple[int, int]) -> Suspect:
    """A swap as a suspect."""
    text = (
        f"the masks of {swap.first} and {swap.second} agree with the prediction of the other picture by at least "
        f"{swap.crosswise:.2f}, with their own by at most {swap.straight:.2f}"
    )
    return Suspect(
        kind="swapped files", id=swap.first, other=swap.second, score=swap.score, box=(0, 0, *size), text=text
    )


def of_image_label(name: str, label: str, predicted: str, score: float) -> Suspect:
    """The label of a picture as a suspect; an empty name says that the class is not there."""
    if label and predicted:
        text = f"all models see {predicted} where the label is {label}"
    else:
        text = f"no model sees {label}, which the label names" if label else f"all models see {predicted}, unlabelled"
    kind: Kind = "wrong label of the picture"
    return Suspect(kind=kind, id=name, score=score, box=(0, 0, 0, 0), label=label, predicted=predicted, text=text)


def ranked(suspects: Sequence[Suspect]) -> list[Suspect]:
    """The surest first: `WHOLE` before the others, whose regions in these pictures are left out: they are explained."""
    explained = {name for one in suspects if one.kind in WHOLE for name in (one.id, one.other)}
    swapped = {name for one in suspects if one.kind == "swapped files" for name in (one.id, one.other)}
    chosen = [
        one for one in suspects
        if one.kind == "swapped files" or (one.kind == "shifted mask" and one.id not in swapped)
        or one.kind == "wrong label of the picture" or (one.kind not in WHOLE and one.id not in explained)
    ]  # fmt: skip
    return sorted(chosen, key=lambda one: (_order(one.kind), -one.score, one.id, one.box))


def picture_scores(suspects: Sequence[Suspect], softmin: Mapping[str, float]) -> list[PictureScore]:
    """Every checked picture; those without a suspect by their softmin.

    Args:
        suspects: as `ranked`.
        softmin: id to the label quality of the mask, NaN without one.
    """
    number: dict[str, int] = {}
    first: dict[str, Suspect] = {}
    for one in suspects:
        for name in (one.id, one.other):
            if name:
                number[name] = number.get(name, 0) + 1
                first.setdefault(name, one)

    def place(name: str) -> tuple[Any, ...]:
        quality = softmin[name]
        worst = first.get(name)
        key = (len(KINDS), 0.0) if worst is None else (_order(worst.kind), -worst.score)
        return (*key, np.inf if np.isnan(quality) else quality, name)

    return [
        PictureScore(
            id=name,
            rank=rank,
            score=first[name].score if name in first else 0.0,
            suspects=number.get(name, 0),
            softmin=None if np.isnan(softmin[name]) else softmin[name],
        )
        for rank, name in enumerate(sorted(softmin, key=place), 1)
    ]


def write_suspects(folder: Path, content: Suspects) -> None:
    """Write ``suspects.json``."""
    write_atomically(folder / SUSPECTS, content.model_dump_json(indent=1).encode())


def read_suspects(folder: Path) -> Suspects:
    """Read ``suspects.json``.

    Raises:
        DataError: it is missing or damaged.
    """
    path = folder / SUSPECTS
    if not path.is_file():
        raise DataError(f"`{folder}` should be a folder that `hsl suspects` wrote. Found no {SUSPECTS} in it.")
    try:
        return Suspects.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise DataError(f"`{path}` is damaged: `{place}`: {first['msg']}. Call `hsl suspects` again.") from None


def _order(kind: Kind) -> int:
    return min(KINDS.index(kind), len(WHOLE))
