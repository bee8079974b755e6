"""Which patterns say where pictures and masks lie, guessed from the names of all files."""

import itertools
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from hsl.data.files.kinds.arrays import SUFFIXES as ARRAY_SUFFIXES
from hsl.data.formats.patterns import SAME_SUFFIX
from hsl.data.formats.picture_files import PICTURE_SUFFIXES
from hsl.data.formats.tables import official_part

_MASK = re.compile(
    r"(?:^|[-_. ])(?:masks?|labels?|gts?|gtfine|truths?|groundtruths?|ground[-_ ]truths?|annotations?|anno|anns?|seg|"
    r"segs|segmentations?|segmentationclass|labelimages?|targets?|trimaps?|label[-_]?ids?|manual\d?|l|mask\d?)$",
    re.IGNORECASE,
)
_LOOSE = "*"
_YEAR = re.compile(r"[-_ ]?(19|20)\d\d$")
_BEFORE, _AFTER = re.compile(r"^[A-Za-z]+[-_. ](?=.)"), re.compile(r"(?<=.)[-_. ][A-Za-z]+\d?$")
_TRUTH = re.compile(r"manual|truth|(?:^|[-_. /])gts?(?:$|[-_. /])", re.IGNORECASE)
"""What masks are called beside masks of another kind, as of the part of the picture that was looked at."""
_MOST_NAMED = 6
_ENOUGH = 0.5  # of the masks have a picture


@dataclass(frozen=True, slots=True)
class Placement:
    """Where pictures and masks lie.

    Attributes:
        images: Pattern of the pictures.
        masks: Pattern of the masks.
        pairs: Ids that have both.
        num_images: Pictures that fit.
        masks_of: A path of each mask that has a picture.
    """

    images: str
    masks: str
    pairs: int
    num_images: int
    masks_of: tuple[str, ...]


_Shelf = Mapping[tuple[str, str], str]
"""Of one pattern: folders that count and id, to path."""


def placements(files: Iterable[str]) -> list[Placement]:
    """Pairs of patterns that fit, the one with most pairs first.

    Args:
        files: Paths from the root on, with ``/``.

    Example:
        >>> found = placements(["train/images/a.jpg", "train/images/b.jpg", "train/masks/a.png", "train/masks/b.png"])
        >>> found[0].images, found[0].masks, found[0].pairs
        ('{split}/images/{id}.jpg', '{split}/masks/{id}.png', 2)
    """
    shelves, several = _shelves(_readable(files))
    found = []
    for masks, of_masks in shelves.items():
        if not _is_mask(masks) or masks in several or _LOOSE in masks:
            continue
        for images, of_images in shelves.items():
            shared = of_masks.keys() & of_images.keys() if not _is_mask(images) and images not in several else set()
            if shared and len(shared) >= _ENOUGH * len(of_masks):
                paths = tuple(of_masks[key] for key in sorted(shared))
                number = len(set(of_images.values()) - set(of_masks.values()))
                found.append(Placement(images, masks, len(shared), number, paths))
        found += _by_class(masks, of_masks, shelves)
    return sorted(found, key=lambda one: (-one.pairs, not _TRUTH.search(one.masks), len(one.masks), one.masks,
                                          one.images))  # fmt: skip


def unclear(files: Iterable[str]) -> str:
    """A sentence about what nearly fits; ``""`` where nothing does.

    Two folders with files of the same names, of which no word says which are masks; names that differ in upper and
    lower case; masks that would fit if a part of their name did not fit several pictures.

    Args:
        files: Paths from the root on, with ``/``.
    """
    shelves, several = _shelves(_readable(files))
    for (masks, of_masks), (images, of_images) in itertools.permutations(shelves.items(), 2):
        path = next(iter(of_masks.values()))
        enough = _ENOUGH * len(of_masks)
        both, known = len(of_masks.keys() & of_images.keys()) >= enough, _is_mask(masks) and not _is_mask(images)
        if images in several and known and both and masks not in several:
            one, other = several[images]
            return (
                f"Masks as `{path}` would belong to pictures `{images}`, but that fits several of one id, as "
                f"`{one}` and `{other}`. Give a picture and its mask one name, or two that differ in a word of all."
            )
        if several or _LOOSE in f"{images}{masks}":
            continue
        if known and (alike := _alike_but_for_case(of_images, of_masks)):
            return f"Names of a picture and its mask differ in upper and lower case, as {alike}. Rename one of them."
        if (
            both
            and _photos(images) < _photos(masks)
            and not (_is_mask(masks) or _is_mask(images))
            and path not in of_images.values()
        ):
            return (
                f"Files of `{images}` and `{masks}` have the same names, and nothing says which are the masks. If the "
                f"second are, read them: `data=folder 'data.reader.images={images}' 'data.reader.masks={masks}'`."
            )
    return ""


def _photos(pattern: str) -> tuple[bool, str]:
    """JPEGs come first: masks are rarely JPEGs."""
    return not pattern.lower().endswith(SAME_SUFFIX[0]), pattern


def _alike_but_for_case(pictures: _Shelf, masks: _Shelf) -> str:
    known = {(folder, id_.casefold()): path for (folder, id_), path in pictures.items()}
    for (folder, id_), path in masks.items():
        other = known.get((folder, id_.casefold()))
        if other is not None and (folder, id_) not in pictures:
            return f"`{other}` and `{path}`"
    return ""


def _readable(files: Iterable[str]) -> list[str]:
    return [path for path in files if _suffix(path) in (*PICTURE_SUFFIXES, *ARRAY_SUFFIXES)]


def _by_class(masks: str, of_masks: _Shelf, shelves: Mapping[str, _Shelf]) -> list[Placement]:
    """Masks in a folder a class: the same names in several folders below that of the masks."""
    if "{folder}" not in masks or masks.count("{folder}") > 1:
        return []
    by_name: dict[str, list[str]] = defaultdict(list)
    for (_, name), path in of_masks.items():
        by_name[name].append(path)
    classes = Counter(folder for folder, _ in of_masks)
    if len(classes) > 30 or max(map(len, by_name.values())) < 2:
        return []
    for images, of_images in shelves.items():
        shared = {name for _, name in of_images} & by_name.keys()
        if not _is_mask(images) and "{folder}" not in images and len(shared) >= _ENOUGH * len(by_name):
            paths = tuple(path for name in sorted(shared) for path in by_name[name])
            return [Placement(images, masks.replace("{folder}", "{class}"), len(shared), len(of_images), paths)]
    return []


def _shelves(files: Sequence[str]) -> tuple[dict[str, _Shelf], dict[str, tuple[str, str]]]:
    """Files by the pattern that their path may follow; a name with a word at its end is on two shelves.

    Also, of patterns with `_LOOSE` in them, two files that have one id, where there are such.
    """
    by_template: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for path in files:
        folders, _, name = path.rpartition("/")
        template, key = _template(folders)
        by_template[template].append((path, key, name.rpartition(".")[0]))
    alone = {key for _, key, _ in by_template["{folder}"]}
    if 2 <= len(alone) <= _MOST_NAMED:  # `scenes/a.tif`, `m/a_mask.tif`: folders that no word tells apart
        for path, key, stem in by_template["{folder}"]:
            by_template[key].append((path, "", stem))
    found: dict[str, dict[tuple[str, str], str]] = defaultdict(dict)
    several: dict[str, tuple[str, str]] = {}
    for template, entries in by_template.items():
        folder = _settled(template, [key for _, key, _ in entries])
        for path, key, stem in entries:
            for name, id_ in _names(stem):
                pattern = "/".join(filter(None, [folder, name]))
                own = key if "{folder}" in folder else _parts(key), id_
                if _LOOSE in name and own in found[pattern]:
                    several.setdefault(pattern, (found[pattern][own], path))
                found[pattern][own] = path
    suffixed = {pattern: pattern + _common_suffix(shelf.values()) for pattern, shelf in found.items()}
    return (
        {suffixed[pattern]: shelf for pattern, shelf in found.items()},
        {suffixed[pattern]: both for pattern, both in several.items()},
    )


@lru_cache(maxsize=4096)
def _template(folders: str) -> tuple[str, str]:
    """The folders of a path with fields for those that count, and those."""
    kept, key = [], []
    for folder in folders.split("/") if folders else []:
        is_part = official_part(_YEAR.sub("", folder)) is not None
        if not is_part and (_MASK.search(folder) or _is_images(folder)):
            kept.append(folder)
            continue
        kept.append("{split}" if is_part else "{folder}")
        key.append(folder)
    return "/".join(kept), "/".join(key)


@lru_cache(maxsize=4096)
def _parts(key: str) -> str:
    return "/".join(each for each in key.split("/") if official_part(_YEAR.sub("", each)))


def _settled(template: str, keys: Sequence[str]) -> str:
    """A template whose folders of only one name have that name, and neighbours are one."""
    words = [word for word in template.split("/") if word]
    rows = [key.split("/") for key in set(keys)]
    place, settled = 0, list[str]()
    for word in words:
        if word in ("{folder}", "{split}"):
            names = {row[place] for row in rows}
            place += 1
            word = names.pop() if word == "{folder}" and len(names) == 1 else word
        if word != "{folder}" or settled[-1:] != ["{folder}"]:
            settled.append(word)
    return "/".join(settled)


def _names(stem: str) -> list[tuple[str, str]]:
    """Patterns of a name, with the id that each sees."""
    names = [("{id}", stem)]
    for affix, regex in (("after", _AFTER), ("before", _BEFORE)):
        fit = regex.search(stem)
        word = "" if fit is None else fit[0].strip("-_. ")
        if fit is not None and (_MASK.search(word) or _is_images(word)):
            rest = stem[: fit.start()] + stem[fit.end() :]
            names.append((f"{{id}}{fit[0]}" if affix == "after" else f"{fit[0]}{{id}}", rest))
        elif fit is not None and affix == "after":
            names.append((f"{{id}}{fit[0][0]}*", stem[: fit.start()]))
    return names


def _common_suffix(paths: Iterable[str]) -> str:
    """The suffix of all files; ``""`` where there are several, or all are PNG."""
    suffixes = {_suffix(path) for path in paths}
    kinds = {next((same[0] for same in SAME_SUFFIX if suffix in same), suffix) for suffix in suffixes}
    return kinds.pop() if len(kinds) == 1 else ""


def _is_mask(pattern: str) -> bool:
    *folders, name = pattern.split("/")
    words = name.rpartition(".")[0].split("{id}") if "." in name else name.split("{id}")
    return any(_MASK.search(folder) for folder in folders) or any(
        word and _MASK.search(word.strip("-_. ")) for word in words
    )


def _is_images(word: str) -> bool:
    return word.casefold() in ("images", "image", "imgs", "img", "jpegimages", "pictures", "photos", "rgb", "input")


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()  # noqa: PTH122 of 100 000 files, seven times as fast
