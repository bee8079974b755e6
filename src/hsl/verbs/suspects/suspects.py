"""`hsl suspects`: labels that several models contradict, each out of fold, the surest first, on a page with keys."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from omegaconf import DictConfig

from hsl.config.targets import allowed_targets
from hsl.config.validation import validate
from hsl.data.prepared import PreparedData
from hsl.errors import ConfigError, DataError
from hsl.files.cells import csv_of
from hsl.files.io import write_atomically
from hsl.files.output_folder import OutputFolder
from hsl.run_folder.run import gather
from hsl.suspects.listing import KINDS, Suspect, Suspects, picture_scores, ranked, write_suspects
from hsl.terminal import say
from hsl.verbs.ensemble.gathering import Members, gather_members, out_of_fold_rows
from hsl.verbs.ensemble.member_rows import RowSettings, keep_rows, open_data
from hsl.verbs.ensemble.members import Kind, head_classes
from hsl.verbs.suspects.checking import Checked, Reader, check_image_labels, check_masks
from hsl.verbs.suspects.page import write_page

ONE_MODEL = "one model: its own mistakes and those of the labels cannot be told apart; two or more are needed for that"
TEST_PART = "in the test part, which no fold predicts"
WITHOUT_MASK = "without a mask"
COLUMNS = ("kind", "id", "other", "score", "label", "predicted", "top", "left", "height", "width", "area", "text")


def suspects(cfg: DictConfig) -> Path:
    """Rank the labels of the data that the runs of ``cfg.runs`` were trained on.

    Returns:
        The page.

    Raises:
        ConfigError: a setting is out of range, or the classes of a head overlap.
        DataError: the runs are no whole models of the same data.
    """
    validate(cfg)
    if isinstance(cfg.shown, bool) or not isinstance(cfg.shown, int) or cfg.shown < 0:
        raise ConfigError(f"`shown` should be a whole number of at least 0. Found `shown = {cfg.shown}`.")
    masks, labels, notes = _gathered(cfg)
    for note in notes:
        say(f"! {note}")
    settings = RowSettings(allowed_targets(cfg), cfg.data_root, cfg.cache_dir, cfg.inference_name)
    both = [found for found in (masks, labels) if found is not None]
    folders = sorted({folder for found in both for member in found.members for folder in member.folders})
    with OutputFolder(cfg.output, "suspects", inputs=folders) as output:
        if masks is not None:
            keep_rows([folder for member in masks.members for folder in member.folders], "val", settings)
        data = open_data(folders[0], settings)[1].prepared
        run = Path(os.path.relpath(folders[0].resolve(), output.path.resolve())).as_posix()
        content = _content(_Both(masks, labels, data), notes, run)
        write_suspects(output.work, content)
        write_atomically(output.work / "suspects.csv", csv_of(_table(content.suspects)).encode())
        frame = pd.DataFrame([one.model_dump() for one in content.pictures])
        write_atomically(output.work / "pictures.csv", csv_of(frame).encode())
        reader = None if masks is None else Reader(masks, data)
        write_page(output.work, content, content.suspects[: cfg.shown], data, reader)
    for sentence in told(content):
        say(sentence)
    say(output.path / "index.html")
    return output.path / "index.html"


def told(content: Suspects) -> list[str]:
    """How many pictures were checked and what was found, and what was not checked."""
    counts = {kind: sum(one.kind == kind for one in content.suspects) for kind in KINDS}
    named = ", ".join(f"{kind} {number}" for kind, number in counts.items() if number)
    sentences = [f"{len(content.pictures)} pictures checked: {named or 'nothing suspected'}."]
    for why, ids in content.not_checked.items():
        shown = ", ".join(ids[:3]) + (f" and {len(ids) - 3} more" if len(ids) > 3 else "")
        sentences.append(f"Not checked: {len(ids)} pictures {why} ({shown}).")
    return sentences


@dataclass(frozen=True)
class _Both:
    """Members that meet at dense heads and at image heads, one of them none, and their data."""

    masks: Members | None
    labels: Members | None
    data: PreparedData


def _gathered(cfg: DictConfig) -> tuple[Members | None, Members | None, list[str]]:
    """What checks the masks, what checks the labels of pictures, and what is to be said of both."""
    patterns = [cfg.runs] if isinstance(cfg.runs, str) else [str(pattern) for pattern in cfg.runs]
    finished = [run for run in gather(patterns) if run.status == "finished"]
    every: tuple[Kind, ...] = ("dense", "image")
    kinds: list[Kind | None] = [kind for kind in every if any(head_classes(run, kind) for run in finished)]
    found: dict[str, Members] = {}
    notes: list[str] = []
    for kind in kinds or [None]:
        try:
            one = gather_members(patterns, list(cfg.ignore), cfg.name_key, kind, cfg.inference_name, alone=True)
        except DataError as error:
            if kind != "image" or not found:
                raise
            notes.append(f"Labels of pictures were not checked: {error}")
            continue
        if kind == "dense" and one.several:
            raise ConfigError(
                "`runs` should be models whose classes exclude each other in a pixel. Found channels that overlap: "
                "their masks cannot be checked yet. Let `runs` match others."
            )
        found[one.kind] = one
        notes += one.notes
        if len(one.members) == 1:
            notes.append(f"{one.members[0].name}: {ONE_MODEL}")
    return found.get("dense"), found.get("image"), list(dict.fromkeys(notes))


def _content(both: _Both, notes: Sequence[str], run: str) -> Suspects:
    data = both.data
    checked = Checked([], {}, []) if both.masks is None else check_masks(Reader(both.masks, data))
    found = list(checked.suspects)
    softmin = dict(checked.softmin)
    not_checked = {WITHOUT_MASK: checked.without}
    if both.labels is not None:
        contents = dict(zip(data.scan.ids, data.scan.content, strict=True))
        rows = out_of_fold_rows(both.labels, contents)
        found += check_image_labels(rows)
        softmin = dict.fromkeys(rows.ids, float("nan")) | softmin
    any_members = next(one for one in (both.masks, both.labels) if one is not None)
    not_checked[TEST_PART] = list(any_members.test)
    found = ranked(found)
    return Suspects(
        data=data.catalogue.name,
        run=run,
        classes=list(any_members.classes),
        members=[member.name for member in any_members.members],
        notes=list(notes),
        not_checked={why: ids for why, ids in not_checked.items() if ids},
        suspects=found,
        pictures=picture_scores(found, softmin),
    )


def _table(found: Sequence[Suspect]) -> pd.DataFrame:
    rows = []
    for one in found:
        top, left, height, width = one.box
        row = one.model_dump() | {"top": top, "left": left, "height": height, "width": width}
        rows.append({name: row[name] for name in COLUMNS})
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    frame.insert(0, "rank", range(1, len(frame) + 1))
    return frame
