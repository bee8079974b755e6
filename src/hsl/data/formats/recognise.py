"""What lies in a folder, by cheap signs: names of files, the first bytes of a few of them. Nothing is decoded."""

import re
from collections.abc import Iterator, Sequence, Sized
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from hsl.data.bands.geo_tags import read_geo_tags
from hsl.data.formats.findings import Findings
from hsl.data.formats.patterns import Listing, list_files, read_pattern
from hsl.data.formats.picture_files import PICTURE_SUFFIXES
from hsl.data.formats.placement import Placement, placements
from hsl.errors import DataError, UserError

_LOOKED_AT = 40
_HEAD = 2**14
_TIFF = (".tif", ".tiff")
_TAGS_LOOKED_AT = 5
_LABEL_STUDIO_PNG = re.compile(r"(^|/)task-\d+-annotation-\d+-.*\.(png|npy)$")


@dataclass(frozen=True, slots=True)
class Sight:
    """What a folder seems to be.

    Attributes:
        option: The word behind ``data=``.
        what: In words, as in ``LabelMe JSON beside 412 JPEGs``.
        below: Where it lies, from the folder on; ``""``: in the folder itself.
        placement: Of pictures and masks without annotations of a tool.
    """

    option: str
    what: str
    below: str = ""
    placement: Placement | None = None


def recognise(root: Path, listing: Listing | None = None) -> list[Sight]:
    """What a folder seems to be, the likeliest first; empty where nothing is known.

    Args:
        root: The folder.
        listing: Of its files, where they are listed already.
    """
    found = list_files(root) if listing is None else listing
    sights = [*_by_layout(root, found), *_by_annotations(root, found)]
    known = {sight.option for sight in sights}
    counted = _counted(found.files)
    if not known & {"folder", "channels", "severstal", "coralscapes", "cityscapes", "voc", "artefact", "geotiff"}:
        sights += [
            Sight(_option_of(root, found, one.images), f"masks for {one.pairs} of {counted}", placement=one)
            for one in placements(found.files)
        ]
    return [_placed(sight) for sight in sights]


def _option_of(root: Path, listing: Listing, images: str) -> str:
    """`geotiff` where the pictures of a pattern are TIFFs that know their place on earth, else `folder`."""
    if not images.lower().endswith(_TIFF):
        return "folder"
    pictures = read_pattern(images, "images", Findings())
    fitting = [] if pictures is None else pictures.matches(listing.files, Findings())
    return "geotiff" if any(_has_place(root / one.path) for one in islice(fitting, _TAGS_LOOKED_AT)) else "folder"


def _has_place(path: Path) -> bool:
    try:
        return bool(read_geo_tags(path, str(path)))
    except UserError:  # damaged, turned, or nothing to read it with: its reader says so
        return False


def _placed(sight: Sight) -> Sight:
    """The same, with what it is called in words if it has a place on earth."""
    return replace(sight, what=f"GeoTIFF, {sight.what}") if sight.option == "geotiff" else sight


def looks_like(root: Path, option: str) -> str:
    """A sentence for the error of a reader that does not find what it reads; ``""`` where nothing else is seen.

    Args:
        root: The data folder.
        option: What was tried.
    """
    if not root.is_dir():
        return ""
    others = [sight for sight in recognise(root) if sight.option != option]
    if not others:
        return ""
    one = others[0]
    return f"This looks like {one.what}: `data={one.option}`; `hsl import {root}` says more."


def refuse_another_kind(root: Path, option: str, wanted: str) -> None:
    """Refuse a folder that shows another kind of data set, before it is taken for parquet files.

    Raises:
        DataError: It does.
    """
    if root.is_dir() and not any(root.rglob("*.parquet")) and (hint := looks_like(root, option)):
        raise DataError(f"`{root}` should hold {wanted}. Found neither. {hint}")


def tell_what_lies_there(root: Path, option: str, pictures: Sized, findings: Findings) -> None:
    """Add `looks_like` to the findings of a reader that found something wrong, and none of what it begins with."""
    if findings.sentences and not pictures and (hint := looks_like(root, option)):
        findings.add(hint)


def _by_layout(root: Path, listing: Listing) -> Iterator[Sight]:
    files = listing.files
    tops = {path.partition("/")[0] for path in files}
    names = set(files)
    if "dataset.yaml" in names and {"images", "masks"} & tops:
        text = _read(root / "dataset.yaml")
        images = "images/{id}.tif" if any(path.lower().startswith("images/") and path.lower().endswith(_TIFF)
                                          for path in files) else ""  # fmt: skip
        channels = re.search(rb"^channels\s*:", text, re.MULTILINE)
        option = "channels" if channels else _option_of(root, listing, images)
        yield Sight(option, f"a data set of `hsl` with dataset.yaml and {_counted(files)}")
    if "train.csv" in names and "train_images" in tops:
        yield Sight("severstal", f"run lengths in train.csv beside {_counted(files)}")
    if any(path.endswith("_labelIds.png") for path in files):
        yield Sight("cityscapes", f"masks as Cityscapes names them (`_labelIds.png`) beside {_counted(files)}")
    elif {"leftImg8bit", "gtFine"} <= tops:
        yield Sight("coralscapes", f"folders as those of Coralscapes with {_counted(files)}")
    for path in files:
        if path.rpartition("/")[2] == "labelmap.txt" and b":" in _read(root / path):
            yield Sight("cvat", f"a mask export of CVAT (labelmap.txt) with {_counted(files)}", _parent(path))
            return
    voc = next((path for path in files if "SegmentationClass/" in path), None)
    if voc is not None:
        below = voc[: voc.index("SegmentationClass/")].rstrip("/")
        yield Sight("voc", f"folders as those of Pascal VOC with {_counted(files)}", below)
    if "metadata.csv" in names and {"images", "annotations"} <= tops:
        yield Sight("artefact", f"metadata.csv, images/ and annotations/ with {_counted(files)}")
    if tables := [path for path in files if path.endswith(".parquet")]:
        yield Sight("hf", f"{len(tables)} parquet files")


def _by_annotations(root: Path, listing: Listing) -> Iterator[Sight]:
    files = listing.files
    beside = f"beside {_counted(files)}"
    pngs = sum(bool(_LABEL_STUDIO_PNG.search(path)) for path in files)
    if pngs:
        yield Sight("label_studio", f"{pngs} masks that Label Studio exported {beside}")
    json = [path for path in files if path.lower().endswith(".json")]
    kinds = [kind for path in _some(json) if (kind := _json_kind(root / path))]
    for option, named in (("labelme", "LabelMe JSON"), ("coco", "COCO JSON"), ("label_studio", "Label Studio JSON")):
        if option in kinds:
            yield Sight(option, f"{named} ({len(json)} files) {beside}")
    drawn = [path for path in json if path.split("/")[-2:-1] == ["ann"]]
    if drawn and any(b'"objects"' in _read(root / path) for path in _some(drawn)):
        yield Sight("supervisely", f"Supervisely JSON ({len(drawn)} files) {beside}")
    xml = [path for path in files if path.lower().endswith(".xml")]
    if any(b"<annotations" in _read(root / path, _HEAD) for path in _some(xml)):
        yield Sight("cvat", f"CVAT XML ({len(xml)} files) {beside}")
    yaml = [path for path in files if path.rpartition("/")[2] in ("data.yaml", "data.yml")]
    texts = [path for path in files if path.endswith(".txt") and "labels" in path.split("/")[:-1]]
    if texts and (yaml or any(_is_yolo(_read(root / path, _HEAD)) for path in _some(texts))):
        yield Sight("yolo", f"YOLO labels ({len(texts)} files) {beside}", _parent(yaml[0]) if yaml else "")


def _json_kind(path: Path) -> str | None:
    """By keys at the beginning and the end of a JSON file."""
    head, tail = _read(path, _HEAD), _tail(path)
    text = head + tail
    if b'"shapes"' in text and (b'"imagePath"' in text or b'"imageHeight"' in text):
        return "labelme"
    if head.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"[") and (b'"annotations"' in text or b'"completions"' in text):
        return "label_studio"
    coco = sum(
        key in text for key in (b'"images"', b'"annotations"', b'"categories"', b'"segments_info"', b'"file_name"')
    )
    return "coco" if coco >= 2 else None


def _is_yolo(text: bytes) -> bool:
    words = text.partition(b"\n")[0].split()
    return len(words) >= 5 and words[0].isdigit() and all(re.fullmatch(rb"-?[\d.eE+-]+", word) for word in words[1:])


def _counted(files: Sequence[str]) -> str:
    number = sum(path.lower().endswith(PICTURE_SUFFIXES) for path in files)
    return f"{number} picture files"


def _some(paths: Sequence[str]) -> Iterator[str]:
    """At most a few, from everywhere."""
    return islice(paths, 0, None, max(1, len(paths) // _LOOKED_AT))


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _read(path: Path, most: int = 2**20) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(most)
    except OSError:
        return b""


def _tail(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _HEAD))
            return file.read()
    except OSError:
        return b""
