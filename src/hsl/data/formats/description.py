"""``dataset.yaml``: the names of the classes and how masks and pictures are to be decoded."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hsl.batch import IGNORE_INDEX
from hsl.data.class_names import unfit_names
from hsl.data.formats.findings import Findings, did_you_mean, nearest
from hsl.data.formats.picture_files import misnamed
from hsl.data.formats.unique_keys import UniqueKeyLoader

SETTINGS = ("classes", "palette", "ignore_index", "value_range")
FOR_PEOPLE = (
    "name", "title", "description", "notes", "comment", "meta", "source", "url", "license", "licence", "citation",
    "author", "authors", "contact", "version", "date", "commit", "doi", "modality", "parameters", "pixel_freq",
    "images_with_class",
)  # fmt: skip
_ALSO_FOR_PEOPLE = re.compile(r"notes_\w+|num_\w+|\w+_sizes")
_HOW_TO_WRITE = "Write one that lists the names of the classes, index 0 first: `classes: [background, crack]`."


@dataclass(frozen=True, slots=True)
class Description:
    """What ``dataset.yaml`` says; the fields mean what they mean in a ``Catalogue``."""

    classes: tuple[str, ...] = ()
    palette: dict[tuple[int, int, int], int] | None = None
    value_range: tuple[float, float] | None = None
    ignore_index: int = IGNORE_INDEX


def read_description(path: Path, findings: Findings) -> Description:
    """Read ``dataset.yaml``; see ``describe`` for its keys. What is wrong goes to ``findings``."""
    try:
        content = yaml.load(path.read_bytes(), UniqueKeyLoader)  # a safe one
    except FileNotFoundError:
        near = misnamed(path, is_folder=False)
        findings.add(f"`{path}` does not exist. {f'Rename `{near}`.' if near else _HOW_TO_WRITE}")
        return Description()
    except (OSError, ValueError, yaml.YAMLError) as error:
        findings.add(f"`{path}` cannot be read as YAML: {' '.join(str(error).split())}. Correct it.")
        return Description()
    if not isinstance(content, dict) or "classes" not in content:
        alike = nearest("classes", map(str, content)) if isinstance(content, dict) else None
        findings.add(f"`{path}` should name the classes. {f'Found `{alike}`. ' if alike else ''}{_HOW_TO_WRITE}")
        return Description()
    return describe(content, str(path), findings)


def describe(content: Mapping[str, Any], where: str, findings: Findings) -> Description:
    """Check the keys of a description.

    Args:
        content: ``classes`` is a list of names, index 0 first. Optional: ``palette`` maps class names (and
            ``ignore``) to ``[red, green, blue]``, ``ignore_index`` is a number, ``value_range`` is
            ``[black, white]``. The keys of `FOR_PEOPLE`, ``num_...``, ``notes_...`` and ``..._sizes`` are not read;
            anything may stand below ``notes`` and ``meta``. No other key is known.
        where: What messages call the place where the keys stand.
        findings: Gets what is wrong.
    """
    for key in map(str, content):
        if key not in SETTINGS and key not in FOR_PEOPLE and not _ALSO_FOR_PEOPLE.fullmatch(key):
            way = did_you_mean(key, (*SETTINGS, *FOR_PEOPLE), "Put what is for people below `notes`.")
            findings.add(f"A key of `{where}` should be one of {', '.join(SETTINGS)}. Found `{key}`. {way}")
    classes = _read_classes(where, content["classes"], findings)
    return Description(
        classes,
        _read_palette(where, content.get("palette"), classes, findings) if classes else None,
        _read_value_range(where, content.get("value_range"), findings),
        _read_ignore_index(where, content, findings),
    )


def _read_classes(where: str, names: object, findings: Findings) -> tuple[str, ...]:
    words = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if not isinstance(names, list) or not words or not 2 <= len(set(names)) == len(names) <= IGNORE_INDEX:
        findings.add(
            f"`classes` in `{where}` should be a list of 2 to {IGNORE_INDEX} different names, quoted where "
            f"YAML takes a name for a number or truth value. Found `{names}`."
        )
        return ()
    unfit = unfit_names(names)
    for sentence in unfit:
        findings.add(f"`{where}`: {sentence}")
    return () if unfit else tuple(names)


def _read_ignore_index(where: str, content: Mapping[str, Any], findings: Findings) -> int:
    index = content.get("ignore_index", IGNORE_INDEX)
    if type(index) is not int:
        findings.add(f"`ignore_index` in `{where}` should be a whole number. Found `{index}`.")
        return IGNORE_INDEX
    return index


def _read_value_range(where: str, ends: object, findings: Findings) -> tuple[float, float] | None:
    if ends is None:
        return None
    numbers = isinstance(ends, list) and all(type(end) in (int, float) for end in ends)
    if not isinstance(ends, list) or not numbers or len(ends) != 2 or not ends[0] < ends[1]:
        findings.add(f"`value_range` in `{where}` should be [black, white] with black < white. Found `{ends}`.")
        return None
    return float(ends[0]), float(ends[1])


def _read_palette(
    where: str, entries: object, classes: tuple[str, ...], findings: Findings
) -> dict[tuple[int, int, int], int] | None:
    if entries is None:
        return None
    if not isinstance(entries, dict) or not entries:
        findings.add(f"`palette` in `{where}` should map names of classes to colours. Found `{entries}`.")
        return None
    palette: dict[tuple[int, int, int], int] = {}
    for name, colour in entries.items():
        bytes_ = isinstance(colour, list) and all(type(part) is int and 0 <= part <= 255 for part in colour)
        if name != "ignore" and name not in classes:
            way = did_you_mean(str(name), classes, "Use the name of a class, or `ignore`.")
            findings.add(f"`palette` in `{where}` names `{name}`, which is no class of {list(classes)}. {way}")
        elif not bytes_ or len(colour) != 3:
            findings.add(f"The colour of `{name}` in `{where}` should be [red, green, blue]. Found `{colour}`.")
        elif tuple(colour) in palette:
            findings.add(f"`palette` in `{where}` has the colour {colour} twice. Give each class its own.")
        else:
            index = classes.index(name) if name in classes else IGNORE_INDEX
            palette[colour[0], colour[1], colour[2]] = index
    return palette
