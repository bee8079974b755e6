"""A fold assignment and its file."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from hsl.errors import ConfigError, DataError
from hsl.files.io import read_text, write_atomically


@dataclass(frozen=True)
class Fold:
    """Sorted ids of one fold.

    Attributes:
        train: To train with.
        val: To validate with.
        name: Its number, or the group that was left out.
        stop: What left the training part so that it, not ``val``, chooses the epoch; usually empty.
    """

    train: tuple[str, ...]
    val: tuple[str, ...]
    name: str
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Split:
    """A fold assignment, made once per data set.

    Attributes:
        method: The function that made it.
        seed: Its seed.
        groups: The attribute whose values stay whole; ``None``: each picture by itself.
        folds: One or more.
        test: Sorted ids that are in no fold; may be empty.
        sha256: Of the sorted pairs of id and content hash: names the data, not the assignment.
    """

    method: str
    seed: int
    groups: str | None
    folds: tuple[Fold, ...]
    test: tuple[str, ...]
    sha256: str

    def fold(self, number: int) -> Fold:
        """The fold of that number.

        Raises:
            ConfigError: There is no such fold.
        """
        if not 0 <= number < len(self.folds):
            names = ", ".join(f"{i}: {fold.name}" for i, fold in enumerate(self.folds))
            known = "" if all(fold.name == str(i) for i, fold in enumerate(self.folds)) else f" Folds are {names}."
            raise ConfigError(
                f"`fold` should be in [0, {len(self.folds)}). Found `fold = {number}`.{known} "
                f"The split `{self.method}` makes {len(self.folds)} of them."
            )
        return self.folds[number]

    def parts(self, number: int) -> dict[str, tuple[str, ...]]:
        """Ids of ``train``, ``val`` and ``test`` in that fold, and of ``stop`` where it has such a part."""
        fold = self.fold(number)
        stop = {"stop": fold.stop} if fold.stop else {}
        return {"train": fold.train, **stop, "val": fold.val, "test": self.test}

    @property
    def has_stop_part(self) -> bool:
        """Whether another part than ``val`` chooses the epoch, in every fold."""
        return all(fold.stop for fold in self.folds)

    @property
    def assignment(self) -> str:
        """Names who is in which fold; ``sha256`` names the pictures alone."""
        parts = [
            [sorted(ids) for ids in (fold.train, fold.val, *([fold.stop] if fold.stop else []))] for fold in self.folds
        ]
        parts.append([sorted(self.test)])
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def to_json(self) -> str:
        """The text of the file."""
        content = {"num_folds": len(self.folds), **asdict(self)}
        for fold in content["folds"]:
            if not fold["stop"]:  # the text of a split without such a part is as old as the file
                del fold["stop"]
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str, name: str) -> "Split":
        """The inverse of `to_json`.

        Raises:
            DataError: The text is something else; the message names it by ``name``.
        """
        try:
            content = json.loads(text)
            folds = tuple(
                Fold(tuple(fold["train"]), tuple(fold["val"]), fold["name"], tuple(fold.get("stop", ())))
                for fold in content["folds"]
            )
            kept = (content["method"], content.get("seed", 0), content.get("groups"))
            return cls(*kept, folds, tuple(content["test"]), content["sha256"])
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise DataError(f"`{name}` is damaged. Delete it where it is a cache, else restore it. {error}") from error


def write_split(path: Path, split: Split) -> None:
    """Store a fold assignment: ``splits.json`` of a run, or one of a cache."""
    write_atomically(path, split.to_json().encode())


def read_split(path: Path) -> Split:
    """What `write_split` stored.

    Raises:
        DataError: The file is missing or damaged.
    """
    return Split.from_json(read_text(path), str(path))
