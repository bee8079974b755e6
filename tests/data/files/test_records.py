import os
import pickle
from pathlib import Path
from typing import Any

import pytest

from hsl.data.files.records import Catalogue, FileSource, Record, select
from hsl.errors import ConfigError, DataError


def test_a_file_source_reads_the_bytes_as_they_are(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"\x00\xff\r\n")
    assert FileSource(path).read() == b"\x00\xff\r\n"
    assert FileSource(path).name == str(path)


def test_the_stamp_stays_while_the_file_does_and_changes_with_it(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"1234")
    os.utime(path, ns=(0, 1_000_000_007))
    stamp = FileSource(path).stamp()
    assert FileSource(path).stamp() == stamp
    os.utime(path, ns=(0, 1_000_000_008))
    later = FileSource(path).stamp()
    path.write_bytes(b"12345")
    os.utime(path, ns=(0, 1_000_000_007))
    longer = FileSource(path).stamp()
    path.write_bytes(b"54321")
    os.utime(path, ns=(0, 1_000_000_007))  # nothing but the bytes differs, as after `cp -p`
    assert len({stamp, later, longer, FileSource(path).stamp()}) == 4


@pytest.mark.parametrize("use", [FileSource.read, FileSource.stamp])
def test_a_missing_file_is_named(tmp_path, use):
    path = tmp_path / "gone.png"
    with pytest.raises(DataError, match=r"gone\.png.*No such file"):
        use(FileSource(path))


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        FileSource(tmp_path).read()


def test_a_catalogue_travels_to_another_process(tmp_path):
    record = Record("a", FileSource(tmp_path / "a.png"), None, None, {"group": "g"}, "train")
    catalogue = Catalogue("set", (record,), ("clean", "crack"), {(0, 0, 0): 0}, (0.0, 1.0), 7)
    assert pickle.loads(pickle.dumps(catalogue)) == catalogue


def test_defaults_mean_index_masks_and_255():
    catalogue = Catalogue("set", (), ("clean", "crack"))
    assert (catalogue.palette, catalogue.value_range, catalogue.ignore_index) == (None, None, 255)


def test_a_selection_by_attributes() -> None:
    rows = {"a": {"label": "x", "site": "1"}, "b": {"label": "y", "site": "1"}, "c": {"label": "y"}, "d": {}}
    source = FileSource(Path("p.png"))
    records = tuple(Record(name, source, None, None, attributes, None) for name, attributes in rows.items())
    catalogue = Catalogue("data", records, ("background", "crack"))

    def ids(**only: Any) -> str:
        return "".join(record.id for record in select(catalogue, only).records)

    assert ids() == "abcd"
    assert ids(label="y") == ids(label=["y"]) == "bc"
    assert ids(label=["x", "y"]) == "abc"
    assert ids(site=1) == "ab"  # YAML makes a number of it
    assert ids(label="y", site=[1]) == "b"
    with pytest.raises(ConfigError, match=r"`data\.only\.label`.*Found \['z'\].*\['x', 'y'\]"):
        ids(label=["x", "z"])
    with pytest.raises(ConfigError, match=r"`data\.only` should name attributes.* Found `colour`.*\['label', 'site'\]"):
        ids(colour="red")
    with pytest.raises(ConfigError, match=r"Found `lable`\. Did you mean `label`\?"):
        ids(lable="x")
    rows["a"]["site"] = "2"
    with pytest.raises(ConfigError, match="leaves no picture"):
        ids(label="y", site=2)
