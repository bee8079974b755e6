"""Pictures that a run was not made from: how `hsl predict` decodes them, and what it says of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from omegaconf import DictConfig

from hsl.batch import Batch
from hsl.data.arguments import check_max_megapixels, check_value_range
from hsl.data.bands.bands import BandStatistics
from hsl.data.files.decode import FULL
from hsl.data.files.decoding import Decoding
from hsl.data.files.headers import read_header
from hsl.data.files.reading import FLAT
from hsl.data.files.records import Source
from hsl.data.splits.grouping import name_some


def foreign_decoding(cfg: DictConfig, facts: Mapping[str, Any], max_megapixels: float) -> Decoding:
    """As the run decoded its own, unless the command says otherwise.

    A picture of 16 bits is refused where its largest number has more bits than any in the training part, or at least
    two fewer than all of them: it would come out white or black. A range that the command names is taken at its word.

    Args:
        cfg: The keys of the command.
        facts: The provenance of the run.
        max_megapixels: The limit of the run.

    Raises:
        ConfigError: A key has no such value.
    """
    limit = max_megapixels if cfg.max_megapixels is None else check_max_megapixels(cfg.max_megapixels, "max_megapixels")
    named = check_value_range(cfg.value_range, "value_range")
    value_range = facts["value_range"] if named is None else named
    seen, bands = facts.get("picture_bits"), BandStatistics.read(facts.get("bands"))
    bits = (seen[0] - 1, seen[1]) if seen else FULL if value_range is None else None
    return Decoding(
        value_range=value_range,
        max_megapixels=limit,
        bits=bits if named is None else None,
        range_key="value_range",
        bands=None if bands is None else bands.bands,
    )


@dataclass(frozen=True)
class Notes:
    """What is said of pictures that are segmented all the same.

    Attributes:
        flat: those that hardly vary.
        several: those of several pages.
        bands: whether pages are the channels of a picture.
    """

    flat: list[str] = field(default_factory=list)
    several: list[str] = field(default_factory=list)
    bands: bool = False

    def look(self, batch: Batch, sources: Mapping[str, Source]) -> None:
        """Note of a batch as it is loaded, ``uint8``, the pictures that hardly vary and those of several pages."""
        spread = batch["image"].flatten(2).float().std(dim=2).amax(dim=1)
        for name, deviation in zip(batch["id"], spread.tolist(), strict=True):
            source = sources[name]
            if deviation < FLAT:
                self.flat.append(f"`{source.name}`")
            if not self.bands and read_header(source.read(), source.name).frames > 1:
                self.several.append(f"`{source.name}`")

    def sentences(self) -> list[str]:
        """One for each kind."""
        found = []
        if self.flat:
            found.append(
                f"{len(self.flat)} pictures are constant or nearly so (standard deviation below {FLAT:g} of 255): "
                f"{name_some(self.flat)}. What was predicted of them means nothing."
            )
        if self.several:
            named = name_some(self.several)
            found.append(f"Of each of {len(self.several)} pictures with several pages the first was read: {named}.")
        return found
