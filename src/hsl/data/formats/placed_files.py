"""Pictures and masks found by patterns, and put together by their ids."""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from hsl.data.formats.findings import Findings
from hsl.data.formats.patterns import CLASS, FOLDER, SPLIT, Listing, Match, Pattern, collisions, list_files
from hsl.data.formats.picture_files import PICTURE_SUFFIXES, check_heif, check_lossless, find_masks, find_pictures

_PREFIX = "in place of `**` or `*`: the folder then stands before the id"


@dataclass(frozen=True)
class PlacedFiles:
    """What was found.

    Attributes:
        images: By id.
        masks: By id: class (``""`` where the pattern has none) and file, in order.
        attributes: By id: what fields of the pattern of pictures stand for.
        splits: By id, where the pattern has ``{split}``.
    """

    images: dict[str, Path] = field(default_factory=dict)
    masks: dict[str, list[tuple[str, Path]]] = field(default_factory=dict)
    attributes: dict[str, dict[str, str]] = field(default_factory=dict)
    splits: dict[str, str] = field(default_factory=dict)


class Finder:
    """Looks below a root, at most once over all of it."""

    def __init__(self, root: Path, findings: Findings) -> None:
        self.root, self.findings = root, findings
        self._listing: Listing | None = None

    def find(self, images: Pattern, masks: Pattern, masks_optional: bool, nearest: bool) -> PlacedFiles:
        """Pictures and masks of two patterns; whether each has the other is not looked at."""
        found_images, found_masks = self._images(images, masks), self._masks(masks, images, masks_optional, nearest)
        if self._listing is not None and images.folder is None:
            self._tell_of_rest({match.path for match in (*found_images, *found_masks)}, images)
        if _parts_share(images, found_images):  # as train/images/1.png and val/images/1.png
            found_images = [_with_part(match) for match in found_images]
            found_masks = [_with_part(match) for match in found_masks]
        self._check_ids(images, found_images)
        layers: dict[str, list[tuple[str, Path]]] = defaultdict(list)
        for match in found_masks:
            layers[match.id].append((match.fields.get(CLASS, ""), self.root / match.path))
        if not masks.key and "*" not in masks.text and CLASS not in masks.fields:
            self._check_ids(masks, found_masks)
        others = [name for name in images.fields if name not in ("id", SPLIT)]
        return PlacedFiles(
            {match.id: self.root / match.path for match in found_images},
            dict(layers),
            {match.id: {name: match.fields[name] for name in others} for match in found_images} if others else {},
            {match.id: match.fields[SPLIT] for match in found_images} if SPLIT in images.fields else {},
        )

    def pictures(self, pattern: Pattern, key: str) -> dict[str, Path]:
        """The pictures of one pattern by id; ``key`` is what an error calls it."""
        matches = pattern.matches(self.listing.files, self.findings)
        if not matches:
            self._none_fits("picture", pattern, key)
        check_heif([Path(match.path) for match in matches], self.findings)
        self._check_ids(pattern, matches)
        return {match.id: self.root / match.path for match in matches}

    def _images(self, pattern: Pattern, masks: Pattern) -> list[Match]:
        if pattern.folder is not None and not masks.text.startswith(f"{pattern.folder}/"):
            found = find_pictures(self.root / pattern.folder, self.findings)
            if not found and (below := self._below(pattern.folder)):
                self.findings.add(
                    f"{below} pictures lie in folders below `{self.root / pattern.folder}`. To take them, set "
                    f'`data.reader.images="{pattern.folder}/**/{{id}}"`, for masks likewise; where names repeat write '
                    "`{folder}` for `**`."
                )
            return self._relative(found)
        others = masks if masks.says_more_than(pattern) else None
        matches = pattern.matches(self.listing.files, self.findings, others)
        if not matches:
            self._none_fits("picture", pattern, "data.reader.images")
        check_heif([Path(match.path) for match in matches], self.findings)
        return matches

    def _masks(self, pattern: Pattern, images: Pattern, optional: bool, nearest: bool) -> list[Match]:
        if pattern.folder is not None and not images.text.startswith(f"{pattern.folder}/"):
            folder = self.root / pattern.folder
            missing = optional and not os.path.lexists(folder)
            return [] if missing else self._relative(find_masks(folder, self.findings, nearest))
        others = None if pattern.says_more_than(images) else images
        matches = pattern.matches(self.listing.files, self.findings, others)
        if not matches and not optional:
            self._none_fits("mask", pattern, "data.reader.masks")
        check_lossless(self.root, [Path(match.path) for match in matches], self.findings, nearest)
        return matches

    @property
    def listing(self) -> Listing:
        """All files below the root."""
        if self._listing is None:
            self._listing = list_files(self.root)
            self.findings.add_names(
                self._listing.unreadable, f"Folders below `{self.root}` should be readable. Not so are", "Allow it."
            )
            for what, paths in (("links that lead in a circle", self._listing.circles),
                                ("broken links", self._listing.broken)):  # fmt: skip
                if paths:
                    self.findings.not_read.append(f"`{self.root}`: {len(paths)} {what} are not read: {paths[0]}.")
        return self._listing

    def _relative(self, found: Mapping[str, Path]) -> list[Match]:
        return [Match(path.relative_to(self.root).as_posix(), id_) for id_, path in found.items()]

    def _below(self, folder: str) -> int:
        paths = (path for path in self.listing.files if path.startswith(f"{folder}/"))
        return sum(Path(path).suffix.lower() in PICTURE_SUFFIXES for path in paths)

    def _none_fits(self, what: str, pattern: Pattern, key: str) -> None:
        pictures = [path for path in self.listing.files if Path(path).suffix.lower() in PICTURE_SUFFIXES]
        there = f"{len(pictures)} pictures, as `{pictures[len(pictures) // 2]}`" if pictures else "no picture at all"
        self.findings.add(
            f"No {what} below `{self.root}` fits `{key} = {pattern.text}`. Found {there}. Correct the pattern; "
            f"`hsl import {self.root}` looks what lies there."
        )

    def _tell_of_rest(self, taken: set[str], images: Pattern) -> None:
        rest = [path for path in self.listing.files
                if path not in taken and Path(path).suffix.lower() in PICTURE_SUFFIXES]  # fmt: skip
        if rest and taken:
            self.findings.not_read.append(
                f"`{self.root}`: {len(rest)} pictures fit neither `{images.text}` nor the pattern of the masks: "
                f"{', '.join(rest[:3])}{' ...' if len(rest) > 3 else ''}."
            )

    def _check_ids(self, pattern: Pattern, matches: Sequence[Match]) -> None:
        twice = [f"{one.path} and {other.path}" for one, other in collisions(matches)]
        way = "Rename one." if FOLDER in pattern.fields else f"Rename one, or write `{{{FOLDER}}}` {_PREFIX}."
        self.findings.add_names(twice, f"Files of `{pattern.text}` should each have their own id. Alike are", way)
        folded: dict[str, Match] = {}
        pairs = ((folded.setdefault(match.id.casefold(), match), match) for match in matches)
        alike = [f"{one.path} and {other.path}" for one, other in pairs if one.id != other.id]
        self.findings.add_names(
            alike, "Ids should differ in more than upper and lower case, as some disks keep only one. Alike are",
            "Rename one.",
        )  # fmt: skip
        unfit = [match.path.encode("utf8", "backslashreplace").decode() for match in matches
                 if any("\udc80" <= letter <= "\udcff" for letter in match.id)]  # fmt: skip
        self.findings.add_names(unfit, "Names should be UTF-8. Not so are", "Rename them, for instance by `convmv`.")


def _parts_share(pattern: Pattern, matches: Sequence[Match]) -> bool:
    """Whether ids repeat, and each time in another part."""
    pairs = list(collisions(matches)) if SPLIT in pattern.fields else []
    return bool(pairs) and all(one.fields[SPLIT] != other.fields[SPLIT] for one, other in pairs)


def _with_part(match: Match) -> Match:
    return replace(match, id=f"{match.fields[SPLIT]}_{match.id}") if match.fields.get(SPLIT) else match
