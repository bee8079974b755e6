from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from hsl.data.audit.pixel_values import picture_values
from hsl.data.audit.rules import Finding, Subject
from hsl.data.files.records import Catalogue, FileSource, Record
from hsl.data.files.scan import Scan
from hsl.files.split_file import Fold, Split


def findings(largest: Sequence[int], value_range: tuple[float, float] | None) -> list[Finding]:
    """Of pictures whose largest numbers are these; 0 is a picture of 8 bits."""
    ids = tuple(f"p{i}" for i in range(len(largest)))
    records = tuple(Record(name, FileSource(Path(f"{name}.png")), None, None, {}, None) for name in ids)
    sizes, counts = np.full((len(ids), 2), 8), np.zeros((len(ids), 256), np.int64)
    scan = Scan(ids, ids, ids, sizes, sizes, counts, np.zeros((len(ids), 64, 64), np.uint8),
                np.array(largest), np.ones(len(ids), int), np.full(len(ids), 50.0), ids, {})  # fmt: skip
    split = Split("kfold", 0, None, (Fold(ids, (), "0"),), (), "sha")
    return picture_values(Subject(Catalogue("d", records, ("a", "b"), value_range=value_range), scan, split, 0))


@pytest.mark.parametrize(
    ("largest", "value_range", "severity", "said"),
    [
        ([4000, 3000], None, "stop", "`value_range: [0, 4095]`"),
        ([500, 400], None, "stop", "`value_range: [0, 511]`"),
        ([60000, 4000], None, "stop", "1 of 2 of them"),
        ([60000, 60000, 4000], None, "warn", "`value_range: [0, 4095]`"),
        ([4000, 3000], (0, 1023), "warn", "what is above 1023. Found numbers up to 4000 in 2 of 2 pictures"),
        ([4000, 900, 800], (0, 1023), None, ""),
        ([4000, 3000], (0, 4095), None, ""),
        ([4000, 3000], (0, 65535), None, ""),
        ([60000, 30000], None, None, ""),
        ([0, 0], None, None, ""),
    ],
)
def test_numbers_of_another_range(
    largest: list[int], value_range: tuple[float, float] | None, severity: str | None, said: str
) -> None:
    found = findings(largest, value_range)
    assert [finding.severity for finding in found] == ([severity] if severity else [])
    assert said in "".join(finding.message for finding in found)
    if "`[0, 4095]`" in said:
        assert findings(largest, (0, 4095)) == []
