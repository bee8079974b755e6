"""`hsl import`: what lies in a folder, the command that trains on it, and, where asked, a folder as ours are."""

import inspect
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.utils import get_method
from omegaconf import DictConfig

from hsl.data.files.records import Catalogue
from hsl.data.formats.mask_guess import MaskGuess, guess
from hsl.data.formats.patterns import CLASS, Listing, list_files
from hsl.data.formats.picture_files import PICTURE_SUFFIXES
from hsl.data.formats.placement import unclear
from hsl.data.formats.recognise import Sight, recognise
from hsl.data.formats.tables import GROUP
from hsl.data.importing.ready_folder import write_ready_folder
from hsl.errors import ConfigError, DataError, UserError
from hsl.files.output_folder import OutputFolder
from hsl.terminal import say

_MOST_SHOWN = 5


@dataclass(frozen=True)
class _Read:
    """A candidate, read: its root, the settings of its reader, and its catalogue or why there is none."""

    sight: Sight
    root: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    guess: MaskGuess | None = None
    catalogue: Catalogue | None = None
    error: str = ""

    @property
    def command(self) -> str:
        """The command that trains on it."""
        words = [f"data={self.sight.option}", f"data.root={self.root}"]
        words += [f"data.reader.{name}={_word(value)}" for name, value in self.settings.items()]
        return shlex.join(["hsl", "train", *words, *_split(self.catalogue)])


def _split(catalogue: Catalogue | None) -> list[str]:
    """The split that the data set allows: its own parts, else folds, of pictures where no groups are known."""
    records = () if catalogue is None else catalogue.records
    official = {"train", "val"} <= {record.split for record in records}
    alone = not any(GROUP in record.attributes for record in records)
    return [*(["data/split=holdout"] if official else []), *(["data.split.groups=null"] if alone else [])]


def import_folder(cfg: DictConfig) -> None:
    """Print what a folder holds and how to train on it; with ``cfg.output`` write it as a folder of ours.

    Raises:
        ConfigError: A key is wrong, or the output holds files of others.
        DataError: There is nothing to be read.
    """
    if not cfg.input:
        raise ConfigError("`hsl import` should be given a folder. Found none. Write `hsl import FOLDER`.")
    root = Path(str(cfg.input))
    if not root.is_dir():
        what = "a file" if root.exists() else "nothing"
        raise DataError(f"`input` should be a folder. Found {what} at `{root}`. Correct the path.")
    listing = list_files(root)
    sights = recognise(root, listing)
    _tell_of_listing(root, listing)
    if not sights:
        raise DataError(_nothing(root, listing))
    chosen = _chosen(sights, cfg.data)
    read = _read(root, chosen, cfg.readers)
    _say(read, [sight for sight in sights if sight is not chosen])
    if cfg.output is not None:
        _write(read, Path(str(cfg.output)))


def _chosen(sights: Sequence[Sight], option: str | None) -> Sight:
    fitting = [sight for sight in sights if option is None or sight.option == option]
    if not fitting:
        seen = ", ".join(dict.fromkeys(sight.option for sight in sights))
        raise ConfigError(f"`data` should be one of what the folder may be, {seen}. Found `data = {option}`.")
    return fitting[0]


def _read(root: Path, sight: Sight, readers: Mapping[str, str]) -> _Read:
    below = root / sight.below
    settings: dict[str, Any] = {}
    guessed = None
    if (place := sight.placement) is not None:
        settings = {"images": place.images, "masks": place.masks}
        if not (root / "dataset.yaml").exists():
            guessed = guess([root / path for path in place.masks_of], one_class=f"{{{CLASS}}}" in place.masks)
            settings |= guessed.settings
        if place.num_images > place.pairs:
            settings["masks_optional"] = True
    if sight.option not in readers:
        raise DataError(
            f"`{root}` holds {sight.what}, which this version does not read. Update it, or convert the data."
        )
    reader = get_method(readers[sight.option])
    needed = [one.name for one in list(inspect.signature(reader).parameters.values())[1:] if one.default is one.empty]
    if needed:
        words = ", ".join(f"data.reader.{name}" for name in needed)
        return _Read(sight, below, settings, error=f"Set {words} of `data={sight.option}` to read it.")
    try:
        return _Read(sight, below, settings, guessed, reader(below, **settings))
    except UserError as error:
        return _Read(sight, below, settings, guessed, error=str(error))


def _say(read: _Read, others: Sequence[Sight]) -> None:
    say(f"{read.root}: {read.sight.what}.")
    if read.guess is not None:
        looked = f", as {read.guess.looked_at} of them show" if read.guess.looked_at else ""
        say(f"Masks: {read.guess.what}{looked}.")
        for sentence in read.guess.unread[:_MOST_SHOWN]:
            say(sentence)
    if read.catalogue is not None:
        records, classes = read.catalogue.records, read.catalogue.classes
        bare = sum(record.mask is None for record in records)
        shown = ", ".join(classes[:12]) + (" ..." if len(classes) > 12 else "")
        say(f"{len(records)} pictures, {len(classes)} classes ({shown}); {bare} pictures without a mask.")
    if read.error:
        say(f"It cannot be read yet: {read.error}")
    say(f"\n  {read.command}\n")
    if read.guess is not None and read.guess.settings:
        say("The names of the classes are ours: write your own in their place.")
    for other in others[:_MOST_SHOWN]:
        where = f" ({other.placement.images}, {other.placement.masks})" if other.placement else ""
        say(f"It may also be {other.what}{where}: data={other.option}.")


def _write(read: _Read, output: Path) -> None:
    if read.catalogue is None:
        raise DataError(f"`{read.root}` should be readable to be written as a folder. {read.error}")
    with OutputFolder(output, "import", inputs=[read.root]) as folder:
        written = write_ready_folder(read.catalogue, folder.work, read.root)
    by_how = ", ".join(f"{number} {how}" for how, number in sorted(written.by_how.items()))
    say(f"{output}: {len(read.catalogue.records)} pictures written ({by_how}).")
    candidates = [name for name in written.columns if name != "id"]
    if candidates:
        say(f"Columns of labels.csv that may say what belongs together: {', '.join(candidates)}. Rename one to "
            "`group`, or choose it: `data.split.groups=COLUMN`.")  # fmt: skip
    say(f"\n  {shlex.join(['hsl', 'train', 'data=folder', f'data.root={output}', *_split(read.catalogue)])}\n")


def _tell_of_listing(root: Path, listing: Listing) -> None:
    for what, paths in (("folders that may not be read", listing.unreadable), ("links in a circle", listing.circles),
                        ("broken links", listing.broken)):  # fmt: skip
        if paths:
            say(f"{root}: {len(paths)} {what}: {', '.join(paths[:3])}.")


def _nothing(root: Path, listing: Listing) -> str:
    pictures = [path for path in listing.files if Path(path).suffix.lower() in PICTURE_SUFFIXES]
    if pictures and (sentence := unclear(listing.files)):
        return f"`{root}`: {sentence}"
    if pictures:
        return (
            f"`{root}` should hold masks or annotations beside its pictures. Found {len(pictures)} pictures, as "
            f"`{pictures[0]}`, and nothing that fits them. Name their place by `data=folder data.reader.images=... "
            "data.reader.masks=...`, see docs/data.md."
        )
    return f"`{root}` should hold pictures with masks or annotations. Found {len(listing.files)} files and no picture."


def _word(value: Any) -> str:
    """A setting as the command line takes it."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_word(one)}' for key, one in value.items())}}}"
    if isinstance(value, list):
        return f"[{','.join(map(_word, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)
