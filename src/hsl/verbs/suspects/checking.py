"""Going through the pictures, one after the other: each mask against the maps of the models that never saw it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from hsl.console import PlainConsole
from hsl.data.files.decoding import Decoding
from hsl.data.prepared import PreparedData
from hsl.ensembles.rows import Rows
from hsl.errors import DataError
from hsl.suspects.listing import Suspect, of_image_label, of_region, of_shift, of_swap
from hsl.suspects.regions import regions_of
from hsl.suspects.scores import Evidence, trust
from hsl.suspects.shifts import best_shift
from hsl.suspects.swaps import SmallVersions, Swap, best_pairs, compare
from hsl.verbs.ensemble.gathering import Members, probability_map

Item = TypeVar("Item")
Counts = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Reader:
    """Reads the mask of a picture and its maps, when they are asked for.

    Attributes:
        found: the members, which meet at dense heads and whose maps are kept.
        data: the data set with its masks as they lie now.
    """

    found: Members
    data: PreparedData

    def evidence(self, name: str) -> Evidence | None:
        """Mask and maps; none where the picture has no mask.

        Raises:
            DataError: mask and maps have unlike sizes: the mask is no longer that of the run.
        """
        mask = mask_of(self.data, name)
        if mask is None:
            return None
        maps = np.stack([self._eight_bit(name, place) for place in range(len(self.found.members))])
        if maps.shape[-2:] != mask.shape:
            raise DataError(
                f"The mask of `{name}` should have the size of its maps, {maps.shape[-2]} x {maps.shape[-1]}. Found "
                f"{mask.shape[0]} x {mask.shape[1]}. Train again with the masks as they are now."
            )
        return Evidence(mask, maps)

    def _eight_bit(self, name: str, place: int) -> NDArray[np.uint8]:
        return np.rint(255 * probability_map(self.found, self.found.members[place], name)).astype(np.uint8)


def mask_of(data: PreparedData, name: str) -> NDArray[np.uint8] | None:
    """Classes of the global head ``uint8 (H, W)``; none where the picture has no mask. Not to be written."""
    source = data.catalogue.records[data.places[name]].mask
    return None if source is None else data.heads.global_mask(Decoding.of(data.catalogue).mask(source))


@dataclass(frozen=True, eq=False)
class Checked:
    """What a pass leaves: suspects in no order, by id the softmin of a mask, and the ids without a mask."""

    suspects: list[Suspect]
    softmin: dict[str, float]
    without: list[str]


def check_masks(reader: Reader) -> Checked:
    """Look at all pictures outside the test part, then at pairs of files that may have been swapped.

    One picture is in memory at a time, and besides a version of 16 x 16 cells of each, by which pairs are found.
    """
    classes = reader.found.classes
    small, checked = SmallVersions(), Checked([], {}, [])
    regions: list[tuple[Suspect, tuple[int, int], Counts]] = []
    total: Counts = np.zeros((len(classes), len(classes)), np.int64)
    for name in _told(sorted(reader.found.folds), "masks"):
        evidence = reader.evidence(name)
        if evidence is None or not evidence.known.any():
            checked.without.append(name)
            continue
        small.add(name, evidence)
        checked.softmin[name] = evidence.softmin
        shift = best_shift(evidence)
        if shift is not None:
            checked.suspects.append(of_shift(name, shift, evidence.size))
        counts = evidence.counts
        total += counts
        regions.extend((of_region(name, region, classes), region.pair, counts) for region in regions_of(evidence))
    for suspect, (label, predicted), counts in regions:
        weight = trust(label, predicted, suspect.area, counts, total)
        checked.suspects.append(suspect.model_copy(update={"score": suspect.score * weight}))
    checked.suspects.extend(_swapped(reader, small.candidates()))
    return checked


def check_image_labels(rows: Rows) -> list[Suspect]:
    """What the image heads say of the label of each picture: of classes that exclude each other one suspect at most."""
    mean = rows.probabilities.mean(axis=0)
    found = []
    for i, name in enumerate(rows.ids):
        for label, predicted, score in _contradicted(rows.truth[i], rows.probabilities[:, i], mean[i], rows.several):
            was, seen = (rows.classes[k] if k >= 0 else "" for k in (label, predicted))
            found.append(of_image_label(name, was, seen, score))
    return found


def _contradicted(
    truth: NDArray[np.floating], each: NDArray[np.floating], mean: NDArray[np.floating], several: bool
) -> Iterator[tuple[int, int, float]]:
    """Label, prediction (-1: it is not there) and how sure: the least margin over the models."""
    if several:
        for k, there in enumerate(truth):
            margin = float((1 - 2 * each[:, k]).min() if there == 1 else (2 * each[:, k] - 1).min())
            if margin > 0 and not np.isnan(there):
                yield (k, -1, margin) if there == 1 else (-1, k, margin)
        return
    if np.isnan(truth).any():
        return
    label, predicted = int(truth.argmax()), int(mean.argmax())
    margin = float((each[:, predicted] - each[:, label]).min())
    if margin > 0:
        yield label, predicted, margin


def _swapped(reader: Reader, pairs: Sequence[tuple[str, str]]) -> Iterator[Suspect]:
    judged: list[Swap] = []
    sizes: dict[str, tuple[int, int]] = {}
    for first, second in _told(pairs, "pairs"):
        one, other = reader.evidence(first), reader.evidence(second)
        if one is not None and other is not None and (swap := compare(first, second, one, other)):
            judged.append(swap)
            sizes[first] = one.size
    for swap in best_pairs(judged):
        yield of_swap(swap, sizes[swap.first])


def _told(items: Sequence[Item], what: str) -> Iterator[Item]:
    """Go through the items and show how far that is, on a terminal."""
    console = PlainConsole(stderr=True)
    return iter(track(items, what, console=console, transient=True, disable=not console.is_terminal))
