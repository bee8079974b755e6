"""``dataset.yaml``: names of classes that can be shown as they are, and how masks and images are to be decoded."""

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import yaml

from hsl.batch import IGNORE_INDEX
from hsl.data.bands.bands import Bands
from hsl.data.formats.band_names import read_bands_key
from hsl.data.formats.findings import Findings, did_you_mean, nearest, shown
from hsl.data.formats.picture_files import is_dangling, misnamed
from hsl.files.io import read_regular

IGNORE = "ignore"
"""What a number or colour is called that does not count."""
SETTINGS = ("classes", "palette", "values", "ignore_index", "value_range", "bands", "shown")
FOR_PEOPLE = (
    "name", "title", "description", "notes", "comment", "meta", "source", "url", "license", "licence", "citation",
    "author", "authors", "contact", "version", "date", "commit", "doi", "modality", "parameters", "pixel_freq",
    "images_with_class",
)  # fmt: skip
_ALSO_FOR_PEOPLE = re.compile(r"notes_\w+|num_\w+|\w+_sizes")
_HOW_TO_WRITE = {
    "classes": "Write one that lists the names of the classes, index 0 first: `classes: [background, crack]`.",
    "channels": "Write one that lists the names of the channels in their order: `channels: [leaf, symptom]`.",
}
LONGEST = 100
RESERVED = ("ignore",)
"""What a palette calls the pixels that do not count."""
_JOINERS = "\u200c\u200d"  # hold letters and emoji together; all other invisible characters are refused
_BLANKS = "\u115f\u1160\u2800\u3164\uffa0"  # letters and signs by their category, without a shape


class UniqueKeyLoader(yaml.SafeLoader):
    """As the safe loader, but a key that is there twice is an error with its line: that one takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                name = (key.tag, key.value)
                if name in seen:
                    line = key.start_mark.line + 1
                    raise yaml.constructor.ConstructorError(None, None, f"line {line} has the key `{key.value}` again")
                seen.add(name)
        content: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return content


@dataclass(frozen=True, slots=True)
class Description:
    """What ``dataset.yaml`` says; the fields mean what they mean in a ``Catalogue``."""

    classes: tuple[str, ...] = ()
    palette: dict[tuple[int, int, int], int] | None = None
    value_range: tuple[float, float] | None = None
    ignore_index: int = IGNORE_INDEX
    values: dict[int, int] | None = None
    bands: Bands | None = None


def read_description(path: Path, findings: Findings) -> Description:
    """Read ``dataset.yaml``; see ``describe`` for its keys. What is wrong goes to ``findings``."""
    content = load_description(path, "classes", findings)
    return Description() if content is None else describe(content, str(path), findings)


def load_description(path: Path, names: str, findings: Findings) -> dict[Any, Any] | None:
    """The content of ``dataset.yaml``; ``None``, with what is wrong in ``findings``, if it cannot be read.

    Args:
        path: The file.
        names: What it has to name: ``classes`` or ``channels``.
        findings: Gets what is wrong.
    """
    how = _HOW_TO_WRITE[names]
    try:
        content = yaml.load(read_regular(path), UniqueKeyLoader)  # a safe one
    except FileNotFoundError:
        if is_dangling(path, findings):
            return None
        near = misnamed(path, is_folder=False)
        findings.add(f"`{path}` does not exist. {f'Rename `{near}`.' if near else how}")
        return None
    except RecursionError:
        findings.add(f"`{path}` should be a map of a few lines. Found too many levels. Correct it.")
        return None
    except (OSError, ValueError, yaml.YAMLError) as error:
        findings.add(f"`{path}` cannot be read as YAML: {' '.join(str(error).split())}. Correct it.")
        return None
    if not isinstance(content, dict) or names not in content:
        alike = nearest(names, map(str, content)) if isinstance(content, dict) else None
        findings.add(f"`{path}` should name the {names}. {f'Found `{alike}`. ' if alike else ''}{how}")
        return None
    return content


def describe(content: Mapping[str, Any], where: str, findings: Findings) -> Description:
    """Check the keys of a description.

    Args:
        content: ``classes`` is a list of names, index 0 first. Optional: ``palette`` maps class names (and
            ``ignore``) to ``[red, green, blue]`` or a list of such colours, ``values`` maps the numbers in grey masks
            to class names (and ``ignore``), ``ignore_index`` is a number, ``value_range`` is ``[black, white]``; for
            ``bands`` and ``shown`` see `hsl.data.formats.band_names`. The
            keys of `FOR_PEOPLE`, ``num_...``, ``notes_...`` and ``..._sizes`` are not read; anything may stand below
            ``notes`` and ``meta``. No other key is known.
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
        _read_values(where, content, classes, findings) if classes else None,
        read_bands_key(where, content, findings),
    )


def _read_classes(where: str, names: object, findings: Findings) -> tuple[str, ...]:
    words = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if not isinstance(names, list) or not words or not 2 <= len(set(names)) == len(names) <= IGNORE_INDEX:
        findings.add(
            f"`classes` in `{where}` should be a list of 2 to {IGNORE_INDEX} different names, quoted where "
            f"YAML takes a name for a number or truth value. Found `{shown(names)}`."
        )
        return ()
    unfit = unfit_names(names)
    for sentence in unfit:
        findings.add(f"`{where}`: {sentence}")
    return () if unfit else tuple(names)


def _read_ignore_index(where: str, content: Mapping[str, Any], findings: Findings) -> int:
    index = content.get("ignore_index")
    if index is None:
        return IGNORE_INDEX
    if type(index) is not int:
        findings.add(f"`ignore_index` in `{where}` should be a whole number. Found `{shown(index)}`.")
        return IGNORE_INDEX
    return index


def _read_value_range(where: str, ends: object, findings: Findings) -> tuple[float, float] | None:
    if ends is None:
        return None
    numbers = isinstance(ends, list) and all(type(end) in (int, float) for end in ends)
    if not isinstance(ends, list) or not numbers or len(ends) != 2 or not -inf < ends[0] < ends[1] < inf:
        findings.add(f"`value_range` in `{where}` should be [black, white] with black < white. Found `{shown(ends)}`.")
        return None
    return float(ends[0]), float(ends[1])


def _read_palette(
    where: str, entries: object, classes: tuple[str, ...], findings: Findings
) -> dict[tuple[int, int, int], int] | None:
    if entries is None:
        return None
    if not isinstance(entries, dict) or not entries:
        findings.add(f"`palette` in `{where}` should map names of classes to colours. Found `{shown(entries)}`.")
        return None
    palette: dict[tuple[int, int, int], int] = {}
    for name, given in entries.items():
        several = isinstance(given, list) and given and all(isinstance(colour, list) for colour in given)
        for colour in given if several else [given]:
            bytes_ = isinstance(colour, list) and all(type(part) is int and 0 <= part <= 255 for part in colour)
            if name not in (*classes, IGNORE):
                way = did_you_mean(str(name), classes, f"Use the name of a class, or `{IGNORE}`.")
                findings.add(f"`palette` in `{where}` names `{name}`, which is no class of {list(classes)}. {way}")
            elif not bytes_ or len(colour) != 3:
                findings.add(
                    f"The colour of `{name}` in `{where}` should be [red, green, blue]. Found `{shown(colour)}`."
                )
            elif tuple(colour) in palette:
                findings.add(f"`palette` in `{where}` has the colour {colour} twice. Give each class its own.")
            else:
                palette[colour[0], colour[1], colour[2]] = _index(name, classes)
    return palette


def _read_values(
    where: str, content: Mapping[str, Any], classes: tuple[str, ...], findings: Findings
) -> dict[int, int] | None:
    entries = content.get("values")
    if entries is None:
        return None
    example = f"Write for example `values: {{0: {classes[0]}, 255: {classes[1]}}}`."
    if not isinstance(entries, dict) or not entries:
        findings.add(
            f"`values` in `{where}` should map the numbers in masks to classes. Found `{shown(entries)}`. {example}"
        )
        return None
    if both := [key for key in ("palette", "ignore_index") if content.get(key) is not None]:
        findings.add(
            f"`values` in `{where}` should stand without `{both[0]}`, which says the same in another way. Keep one; "
            f"in `values` a number that is not to count is called `{IGNORE}`."
        )
    for number, name in entries.items():
        if type(number) is not int:
            findings.add(f"`values` in `{where}` should have whole numbers. Found `{number!r}`. {example}")
        if not isinstance(name, str) or name not in (*classes, IGNORE):
            findings.add(
                f"`values` in `{where}` names `{name}`, which is no class of {list(classes)}. Write one of them, or "
                f"`{IGNORE}`."
            )
    if without := [name for name in classes if name not in entries.values()]:
        findings.add(
            f"`values` in `{where}` should name a number for every class. Found none for {without}. Add it, or "
            "take the class out of `classes`."
        )
    return {number: _index(name, classes) for number, name in entries.items()} if not findings.sentences else None


def _index(name: str, classes: tuple[str, ...]) -> int:
    return classes.index(name) if name in classes else IGNORE_INDEX


def unfit_names(names: Sequence[str]) -> list[str]:
    """What is wrong with the names of classes, a sentence each; empty where nothing is.

    Example:
        >>> unfit_names(["background", "crack $5 <a&b>", "Risse_ü"])
        []
        >>> unfit_names(["crack", "Crack"])
        ['Names of classes should differ in more than upper and lower case. Found `crack` and `Crack`. Rename one.']
    """
    return [*_each(names), *_alike(names)]


def _each(names: Sequence[str]) -> Iterator[str]:
    for name in names:
        seen = _printable(name) and _has_shape(name)
        shown = name if seen else name.encode("unicode_escape").decode()
        if not name.strip():
            yield f"A class should have a name. Found `{shown}`. Give it one."
        elif not seen:
            yield f"The name of a class should be letters that can be seen. Found `{shown[:LONGEST]}`. Rename it."
        elif name != name.strip():
            yield f"The name of a class should have no blanks around it. Found `{name}`. Write `{name.strip()}`."
        elif len(name) > LONGEST:
            yield f"The name of a class should have at most {LONGEST} letters. Found {len(name)}: `{name[:30]}…`."
        elif name.casefold() in RESERVED:
            yield f"`{name}` is what a palette calls pixels that do not count, so it is no name of a class. Rename it."


def _alike(names: Sequence[str]) -> Iterator[str]:
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(unicodedata.normalize("NFKC", name.strip()).casefold(), name)
        if other != name:
            yield (
                "Names of classes should differ in more than upper and lower case. "
                f"Found `{other}` and `{name}`. Rename one."
            )


def _printable(name: str) -> bool:
    return all((letter.isprintable() and letter not in _BLANKS) or letter in _JOINERS for letter in name)


def _has_shape(name: str) -> bool:
    """Whether there is more than marks and joiners, which need a letter to stand at."""
    return any(unicodedata.category(letter)[0] not in "MCZ" for letter in name)
