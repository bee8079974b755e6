"""From annotated pictures to a catalogue: which classes there are, whose masks they become, what is said about them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from hsl.batch import IGNORE_INDEX
from hsl.data.annotations.class_table import Labels
from hsl.data.annotations.drawn_masks import MOST_REGIONS, DrawnMask
from hsl.data.annotations.pictures import Pictures
from hsl.data.annotations.segments import Segment, SegmentMask, number_segments
from hsl.data.annotations.settings import Settings
from hsl.data.annotations.shapes import Drawn, Region
from hsl.data.files.records import Catalogue, FileSource, Record
from hsl.data.formats.findings import Findings
from hsl.data.formats.folder import read_splits
from hsl.data.formats.recognise import looks_like
from hsl.data.formats.tables import official_part, read_table
from hsl.errors import DataError

LOOKED_AT = 200
"""So many pictures are drawn to count pixels in regions of several classes."""

_MOST_NAMED = 3


@dataclass(slots=True)
class Annotated:
    """A picture with its annotation.

    Attributes:
        where: The annotation, for messages: a file, and which item of it.
        picture: The picture, as the annotation calls it.
        near: The folder of the annotation.
        size: Height and width that the annotation states, if any.
        regions: What is drawn.
        split: The official part.
        shares: Whether coordinates are shares of the picture's width and height.
        otherwise: What the picture may be called if it is not found.
        exact: The picture itself, where it is known.
        segments: In place of regions: the file that holds a number for each pixel, and what the numbers are.
    """

    where: str
    picture: str
    near: Path
    size: tuple[int, int] | None
    regions: list[Region] = field(default_factory=list)
    split: str | None = None
    shares: bool = False
    otherwise: str = ""
    exact: Path | None = None
    segments: tuple[Path, tuple[Segment, ...]] | None = None


def collect(
    root: Path,
    annotated: Sequence[Annotated],
    labels: Labels,
    pictures: Pictures,
    settings: Settings,
    findings: Findings,
    way_out: str = "",
    splits: Mapping[Path, str] = MappingProxyType({}),
) -> Catalogue:
    """The catalogue of annotated pictures.

    Args:
        root: Of the data set.
        annotated: In any order.
        labels: The class of each label.
        pictures: Below the root.
        settings: Of the reader.
        findings: Gets annotations without picture, or with several, and what is told.
        way_out: What else can be done about them in this format.
        splits: The official parts of pictures without annotation.

    Raises:
        DataError: With all findings.
    """
    matched = _match(annotated, pictures, way_out, findings)
    bare = [path for path in pictures.paths if path not in matched]
    if bare and settings.unannotated == "background":
        findings.not_read.append(f"{_counted(bare)} without annotation, as background alone: {named_paths(bare)}.")
    elif bare:
        findings.not_read.append(
            f"{_counted(bare)} without annotation and left out: {named_paths(bare)}. If they show background alone, "
            "set `data.reader.unannotated=background`."
        )
    if not annotated and not findings.sentences:
        findings.add(f"`{root}` should have annotated pictures. Found none. Check `data.root`.")
    many = [item.where for item in annotated if len(item.regions) > MOST_REGIONS]
    findings.add_names(many, f"A picture should have at most {MOST_REGIONS} regions. More has", "Cut it into parts.")
    if settings.unannotated == "background":
        matched |= {path: Annotated(str(path), str(path), path.parent, None, split=splits.get(path)) for path in bare}
    ids = pictures.ids(matched)
    attributes = read_table(root / "labels.csv", ids.values(), findings)
    written = read_splits(root / "splits.csv", ids.values(), findings)
    findings.raise_if_any(root)
    made = [_record(root, path, ids[path], item, labels, settings) for path, item in matched.items()]
    findings.not_read += _contested(made)
    ordered = tuple(
        replace(record, attributes=attributes.get(record.id, {}), split=written.get(record.id, record.split))
        for record in sorted(made, key=lambda record: record.id)
    )
    return Catalogue(root.resolve().name, ordered, labels.classes, not_read=findings.told())


def _match(
    annotated: Sequence[Annotated], pictures: Pictures, way_out: str, findings: Findings
) -> dict[Path, Annotated]:
    matched: dict[Path, Annotated] = {}
    missing, unclear, twice = [], [], []
    for item in annotated:
        known = [item.exact] if item.exact is not None else []
        paths = known or pictures.find(item.picture, item.near) or pictures.find(item.otherwise, item.near)
        if not paths:
            missing.append(f"`{item.picture}` ({item.where})")
        elif len(paths) > 1:
            unclear.append(f"`{item.picture}` ({item.where}): {paths[0]} or {paths[1]}")
        elif paths[0] in matched:
            twice.append(f"`{paths[0]}` ({matched[paths[0]].where} and {item.where})")
        else:
            matched[paths[0]] = item
    findings.add_places(
        missing,
        f"The picture of each annotation should lie below `{pictures.root}`. Missing are {len(missing)}:",
        f"Put them there, or remove their annotations{way_out}.",
    )
    findings.add_places(
        unclear, "An annotation should mean one picture. Several have the name of", "Rename one, or write its folder."
    )
    findings.add_places(
        twice, "A picture should be annotated once. Repeated are", f"Remove one of the annotations{way_out}."
    )
    return matched


def _regions(item: Annotated, labels: Labels) -> tuple[Drawn, ...]:
    """What is drawn, in order; what does not count first, so that it covers nobody."""
    drawn: list[Drawn] = []
    numbers: dict[tuple[str, str], int] = {}
    for region in sorted(item.regions, key=lambda region: (not region.crowd, region.rank)):
        index = labels.index.get(region.label)
        if index is None:
            continue
        key = (region.label, region.group or f"\0{len(drawn)}")
        number = numbers.setdefault(key, len(numbers) + 1)
        drawn.append(Drawn(IGNORE_INDEX if region.crowd else index, number, region.shape))
    return tuple(drawn)


def _record(root: Path, path: Path, id_: str, item: Annotated, labels: Labels, settings: Settings) -> Record:
    split = item.split or part_of(path.parent, root)
    image = FileSource(path)
    if item.segments is not None:
        file, segments = item.segments
        numbered = number_segments(segments, labels.index)
        segment_mask = SegmentMask(file, item.where, numbered, False, settings.max_megapixels)
        return Record(id_, image, segment_mask, replace(segment_mask, as_ids=True), {}, split)
    drawn = _regions(item, labels)
    mask = DrawnMask(path, item.where, item.size, drawn, False, item.shares, settings.max_megapixels)
    return Record(id_, image, mask, replace(mask, where=f"{item.where} (instances)", as_ids=True), {}, split)


def _contested(records: Sequence[Record]) -> list[str]:
    """What is told of pixels in regions of several classes, and of regions without a pixel."""
    drawn = [record.mask for record in records if isinstance(record.mask, DrawnMask) and record.mask.regions]
    step = max(1, -(-len(drawn) // LOOKED_AT))
    looked = drawn[::step]
    pixels, pictures, empty = 0, 0, []
    for mask in looked:
        try:
            painting = mask.paint()
        except (DataError, ValueError):  # the audit reads every picture and tells which cannot be
            continue
        pixels += painting.num_contested
        pictures += painting.num_contested > 0
        empty += [mask.where] * painting.num_empty
    among = "" if len(looked) == len(drawn) else f" ({len(looked)} of {len(drawn)} annotated pictures were looked at)"
    told = []
    if pixels:
        told.append(
            f"{pixels} pixels of {pictures} pictures lie in regions of more than one class; the one that is drawn last "
            f"counts{among}."
        )
    if empty:
        told.append(f"{len(empty)} regions cover the centre of no pixel{among}, as in `{empty[0]}`.")
    return told


def _counted(paths: Sequence[Path]) -> str:
    return f"{len(paths)} picture{' is' if len(paths) == 1 else 's are'}"


def used_labels(annotated: Sequence[Annotated]) -> set[str]:
    """The labels of regions and segments that count."""
    regions = {region.label for item in annotated for region in item.regions if not region.crowd}
    segments = (segment for item in annotated if item.segments for segment in item.segments[1])
    return regions | {segment.label for segment in segments if not segment.crowd}


def nothing_found(root: Path, option: str, what: str) -> str:
    """The sentence about a folder that does not hold what a reader reads: it says what seems to lie there."""
    return f"`{root}` should hold {what}. Found none. {looks_like(root, option) or 'Check `data.root`.'}"


def named_paths(paths: Sequence[Path]) -> str:
    """The first few paths, and how many more there are."""
    more = f" and {len(paths) - _MOST_NAMED} more" if len(paths) > _MOST_NAMED else ""
    return ", ".join(f"`{path}`" for path in paths[:_MOST_NAMED]) + more


def part_of(path: Path, root: Path) -> str | None:
    """The official part that the last such word of a path below the root tells: a folder, or a word of the file's name.

    Example:
        >>> part_of(Path("d/instances_val2017.json"), Path("d")), part_of(Path("train/d/a.png"), Path("train"))
        ('val', None)
    """
    words = re.findall(r"[a-z]+", " ".join(path.relative_to(root).parts).casefold())
    return next((part for word in reversed(words) if (part := official_part(word))), None)
