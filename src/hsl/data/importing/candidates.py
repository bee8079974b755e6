"""What may say that pictures belong together: words of their names, and what their EXIF says of camera and time."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from hsl.data.files.records import FileSource, Source
from hsl.data.files.tiff_pages import open_with_pillow, quiet_pillow

_NUMBER = re.compile(r"[\W_]*(\d+)$")
_PLUGINS = {".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG", ".jif": "JPEG", ".tif": "TIFF",
            ".tiff": "TIFF", ".png": "PNG", ".webp": "WEBP"}  # fmt: skip
_EXIF, _MAKE, _MODEL, _DATE, _TAKEN = 0x8769, 271, 272, 306, 36867
_FORM = "%Y:%m:%d %H:%M:%S"


@dataclass(frozen=True, slots=True)
class Taken:
    """When and by what a picture was taken, as far as EXIF says; ``""`` where it does not."""

    date: str = ""
    camera: str = ""

    @property
    def time(self) -> datetime | None:
        """The moment; ``None`` where none is known."""
        return datetime.fromisoformat(self.date) if self.date else None


def prefix_of(id_: str) -> str:
    """A name without the number at its end.

    Example:
        >>> prefix_of("exp1_num_0003"), prefix_of("crack"), prefix_of("2024")
        ('exp1_num', 'crack', '')
    """
    return _NUMBER.sub("", id_)


def number_of(id_: str) -> int | None:
    """The number at the end of a name."""
    found = _NUMBER.search(id_)
    return int(found[1]) if found else None


def shared_prefixes(ids: Iterable[str]) -> dict[str, str]:
    """Id to prefix, where two or more ids share it and not all do; one prefix for all says nothing.

    Example:
        >>> shared_prefixes(["a_1", "a_2", "b_1", "c"])
        {'a_1': 'a', 'a_2': 'a'}
    """
    prefixes = {id_: prefix_of(id_) for id_ in ids}
    counts = Counter(prefixes.values())
    if len(counts) < 2:
        return {}
    return {id_: prefix for id_, prefix in prefixes.items() if prefix and counts[prefix] > 1}


def taken(source: Source) -> Taken:
    """Read the EXIF of a picture; its pixels are not decoded."""
    plugin = _PLUGINS.get(Path(source.name).suffix.lower()) if isinstance(source, FileSource) else None
    if plugin is None:
        return Taken()
    try:
        with quiet_pillow():
            exif = open_with_pillow(source.read(), plugin).getexif()
            date, words = exif.get_ifd(_EXIF).get(_TAKEN) or exif.get(_DATE), (exif.get(_MAKE), exif.get(_MODEL))
        moment = datetime.strptime(str(date).strip("\0 "), _FORM).isoformat(" ") if date else ""
    except (OSError, SyntaxError, ValueError, LookupError, TypeError):
        return Taken()  # no EXIF, or one that says nothing
    return Taken(moment, " ".join(str(word).strip("\0 ") for word in words if word))


def bursts(moments: Mapping[str, Taken], within_s: float) -> list[Sequence[str]]:
    """Ids of each run of pictures that one camera took, each at most so many seconds after the one before."""
    found: list[list[str]] = []
    last: dict[str, tuple[datetime, list[str]]] = {}
    timed = [(moment, id_) for id_, each in moments.items() if (moment := each.time) is not None]
    for moment, id_ in sorted(timed):
        camera = moments[id_].camera
        before = last.get(camera)
        if before is not None and (moment - before[0]).total_seconds() <= within_s:
            before[1].append(id_)
            last[camera] = (moment, before[1])
        else:
            found.append([id_])
            last[camera] = (moment, found[-1])
    return [each for each in found if len(each) > 1]
