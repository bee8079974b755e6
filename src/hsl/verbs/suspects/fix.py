"""`hsl suspects fix`: from the answers of the page to corrected masks, and the list of what is left to do by hand."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from omegaconf import DictConfig
from PIL import Image

from hsl.config.targets import allowed_targets
from hsl.config.validation import validate
from hsl.data.files.records import FileSource
from hsl.data.files.run_lengths import decode_runs
from hsl.data.prepared import PreparedData
from hsl.data.writers.regions import Segmented
from hsl.errors import ConfigError, DataError
from hsl.files.cells import csv_of, read_rows_of_table
from hsl.files.io import write_atomically
from hsl.files.names import file_name
from hsl.files.output_folder import OutputFolder
from hsl.suspects.listing import Answer, Suspect, Suspects, read_suspects
from hsl.suspects.shifts import moved
from hsl.terminal import say
from hsl.verbs.ensemble.member_rows import RowSettings, open_data
from hsl.verbs.predict.tool_files import FORMATS, writer_of
from hsl.verbs.suspects.checking import mask_of

LISTED: Sequence[Answer] = ("reject", "later")
WRITABLE = tuple(name for name in FORMATS if name != "rle")
TABLE = "fixes.csv"
Mask = NDArray[np.uint8]


def fix(cfg: DictConfig) -> Path:
    """Write a mask of every picture with a label that was called wrong or left for later, and ``fixes.csv``.

    Returns:
        The list.

    Raises:
        ConfigError: the format is unknown, or the masks are those of several tasks.
        DataError: answers or suspects cannot be read, or do not belong together.
    """
    validate(cfg)
    if cfg.format not in WRITABLE:
        raise ConfigError(
            f"`format` should be one of {', '.join(WRITABLE)}. Found `format = {cfg.format}`. Choose one."
        )
    content = read_suspects(Path(cfg.suspects))
    given = read_answers(Path(cfg.answers), content)
    chosen = [(rank, content.suspects[rank - 1]) for rank, answer in sorted(given.items()) if answer in LISTED]
    settings = RowSettings(allowed_targets(cfg), cfg.data_root, cfg.cache_dir)
    data = open_data((Path(cfg.suspects) / content.run).resolve(), settings)[1].prepared
    if not data.heads.flat:
        raise ConfigError(
            "`suspects` should be of models with one task, whose classes are those of the masks. Found several tasks: "
            "suspects.csv lists what is to be corrected by hand."
        )
    with OutputFolder(cfg.output, "suspects fix", inputs=[cfg.suspects, cfg.answers]) as output:
        writer = writer_of(cfg.format, output.work, content.classes, output.path)
        wrong = [one for rank, one in chosen if given[rank] == "reject"]
        for name in sorted({name for _, one in chosen for name in (one.id, one.other) if name}):
            mask = corrected(name, wrong, content.classes, data)
            if mask is None:
                continue
            if writer is None:
                path = output.work / "masks" / f"{file_name(name)}.png"
                path.parent.mkdir(exist_ok=True)
                Image.fromarray(mask).save(path)
            else:
                writer.add(Segmented(name, Path(_path(data, name)), [mask]))
        if writer is not None:
            writer.close()
        write_atomically(output.work / TABLE, csv_of(pd.DataFrame(_rows(chosen, given, data))).encode())
    counts = {answer: sum(one == answer for one in given.values()) for answer in get_args(Answer)}
    say(f"{counts['reject']} labels wrong, {counts['later']} to be fixed by hand, {counts['accept']} right, "
        f"{len(content.suspects) - len(given)} not judged.")  # fmt: skip
    say(output.path / TABLE)
    return output.path / TABLE


def read_answers(path: Path, content: Suspects) -> dict[int, Answer]:
    """The answers that the page left, by rank.

    Raises:
        DataError: the file cannot be read, or a row is none of these suspects; every finding at once.
    """
    known: tuple[Answer, ...] = get_args(Answer)
    found: dict[int, Answer] = {}
    wrong = []
    for line, row in enumerate(read_rows_of_table(path), 2):
        rank, answer = str(row.get("rank", "")), row.get("answer")
        place = int(rank) - 1 if rank.isascii() and rank.isdigit() else -1
        one = content.suspects[place] if 0 <= place < len(content.suspects) else None
        if one is None or (row.get("id"), row.get("kind")) != (one.id, one.kind):
            wrong.append(f"line {line}: `{rank}`, `{row.get('id')}`, `{row.get('kind')}` is no suspect of this list")
        elif answer not in known:
            wrong.append(f"line {line}: `answer` should be one of {', '.join(known)}. Found `{answer}`")
        else:
            found[place + 1] = answer
    if wrong:
        raise DataError(
            f"`{path}` should hold answers to the suspects of `suspects`, as its page downloads them. Found:\n"
            + "\n".join(wrong) + "\nDownload them from the page of the same call of `hsl suspects`."
        )  # fmt: skip
    return found


def corrected(name: str, wrong: Sequence[Suspect], classes: Sequence[str], data: PreparedData) -> Mask | None:
    """The mask of a picture with what the models see in place of each label that is wrong; none without a mask."""
    swap = next((one for one in wrong if one.other and name in (one.id, one.other)), None)
    source = name if swap is None else swap.other if swap.id == name else swap.id
    stored = mask_of(data, source)
    if stored is None:
        return None
    mask = stored.copy()
    for one in wrong:
        if one.id == name and one.kind == "shifted mask":
            mask = moved(mask, one.down, one.right)
    for one in wrong:
        if one.id == name and one.runs:
            top, left, height, width = one.box
            window = mask[top : top + height, left : left + width]
            window[decode_runs(one.runs, height, width)] = classes.index(one.predicted)
    return mask


def _rows(
    chosen: Sequence[tuple[int, Suspect]], given: Mapping[int, Answer], data: PreparedData
) -> Iterator[dict[str, Any]]:
    for rank, one in chosen:
        drawn = given[rank] == "reject" and bool(one.runs or one.other or one.kind == "shifted mask")
        yield {
            "rank": rank, "id": one.id, "other": one.other, "kind": one.kind, "answer": given[rank],
            "mask": "as the models see it" if drawn else "unchanged, to be corrected by hand",
            "label": one.label, "predicted": one.predicted, "text": one.text, "picture": _path(data, one.id),
        }  # fmt: skip


def _path(data: PreparedData, name: str) -> str:
    """Where the picture lies; its id where it is no file."""
    source = data.catalogue.records[data.places[name]].image
    return str(source.path.resolve()) if isinstance(source, FileSource) else name
