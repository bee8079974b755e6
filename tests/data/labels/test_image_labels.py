from pathlib import Path

import numpy as np
import pytest

from hsl.data.files.records import FileSource, Record
from hsl.data.labels.image_labels import read_image_labels
from hsl.errors import ConfigError, DataError


def record(name: str, **attributes: str) -> Record:
    return Record(name, FileSource(Path(name)), None, None, attributes, None)


RECORDS = (
    record("a", label="rust", rust="1", miner="0"),
    record("b", label="healthy", rust="0", miner="0"),
    record("c", rust="1", miner="1"),
    record("d", label="rust", rust="1"),
)


def test_one_class_per_picture() -> None:
    labels = read_image_labels("label", RECORDS)
    assert labels.classes == ("healthy", "rust")
    assert labels.values.tolist() == [1, 0, -1, 1]
    assert not labels.several
    assert labels.count([0, 1, 2]).tolist() == [1, 1]
    assert labels.count_known([0, 1, 2]).tolist() == [2, 2]


def test_several_classes_per_picture() -> None:
    labels = read_image_labels(["rust", "miner"], RECORDS)
    assert labels.classes == ("rust", "miner")
    assert labels.values[:3].tolist() == [[1, 0], [0, 0], [1, 1]]
    assert labels.values[3, 0] == 1
    assert np.isnan(labels.values[3, 1])
    assert labels.several
    assert labels.count(range(4)).tolist() == [3, 1]
    assert labels.count_known(range(4)).tolist() == [4, 3]


def test_errors() -> None:
    with pytest.raises(ConfigError, match=r"columns of the data set, \['label', 'miner', 'rust'\]. Found \['site'\]"):
        read_image_labels("site", RECORDS)
    with pytest.raises(ConfigError, match=r"Found \['lable'\]\. Did you mean `label`\?"):
        read_image_labels("lable", RECORDS)
    with pytest.raises(ConfigError, match="Found"):
        read_image_labels([], RECORDS)
    with pytest.raises(DataError, match="at least 2 classes"):
        read_image_labels("label", RECORDS[1:3])
    with pytest.raises(DataError, match="a: label = rust"):
        read_image_labels(["label"], RECORDS)
