"""Whether the files of a run are still those that it began with."""

import hashlib
from dataclasses import dataclass
from typing import Self

from hsl.data.files.records import Record
from hsl.data.files.scan import Scan, stamp_of
from hsl.errors import DataError


@dataclass(frozen=True, eq=False)
class Unchanged:
    """Refuses a record whose picture or mask is not the one that was scanned.

    A stamp costs one look at the file's status. Where it differs the bytes are compared, because a copy, a link or new
    permissions change a stamp too.
    """

    scanned: dict[str, tuple[str, str, str]]

    @classmethod
    def since(cls, scan: Scan) -> Self:
        """Stamp and hashes of every record of a scan."""
        return cls(dict(zip(scan.ids, zip(scan.stamps, scan.content, scan.mask_content, strict=True), strict=True)))

    def __call__(self, record: Record) -> None:
        """Look at a record.

        Raises:
            DataError: Its picture or mask has changed, or is gone.
        """
        stamp, *contents = self.scanned[record.id]
        if stamp_of(record) == stamp:
            return
        for source, content in zip((record.image, record.mask), contents, strict=True):
            if source is not None and hashlib.sha256(source.read()).hexdigest() != content:
                raise DataError(
                    f"`{source.name}` has changed since the run read it first. Put the old file back and go on with "
                    "`resume=last`, or start a new run."
                )
        self.scanned[record.id] = (stamp_of(record), contents[0], contents[1])
