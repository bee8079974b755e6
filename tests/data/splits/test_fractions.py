from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hydra.utils import instantiate
from hypothesis import event, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from hsl.data.files.records import Catalogue, FileSource, Record
from hsl.data.files.scan import Scan
from hsl.data.splits.folds import kfold, stored_split
from hsl.data.splits.fractions import fractions
from hsl.errors import ConfigError, DataError

COLUMNS = ["one", "two"]
USUAL = {"val_fraction": 0.15, "test_fraction": 0.15, "groups": "group", "labels": None, "seed": 0}


def data(groups: list[int], shows: list[set[int]]) -> tuple[Catalogue, Scan]:
    """Pictures of the given groups; their masks show the given classes, their labels say the opposite of 1 and 2."""
    ids = tuple(f"p{i:04d}" for i in range(len(groups)))
    records = []
    counts = np.zeros((len(ids), 256), np.int64)
    for row, (name, group, classes) in enumerate(zip(ids, groups, shows, strict=True)):
        labels = {column: str(int(i not in classes)) for i, column in enumerate(COLUMNS, start=1)}
        attributes = {"group": f"g{group}", "kind": str(min(classes, default=0)), **labels}
        records.append(Record(name, FileSource(Path(name)), None, None, attributes, None))
        counts[row, sorted(classes)] = 3
    sizes, thumbnails = np.full((len(ids), 2), 8), np.zeros((len(ids), 64, 64), np.uint8)
    largest, frames, contrast = np.zeros(len(ids), int), np.ones(len(ids), int), np.full(len(ids), 50.0)
    scan = Scan(ids, ids, ids, sizes, sizes, counts, thumbnails, largest, frames, contrast, ids, {})
    return Catalogue("test", tuple(records), ("clean", "scratch", "crack")), scan


def steel(seed: int = 0) -> tuple[list[set[int]], tuple[Catalogue, Scan]]:
    """600 groups of two pictures; a class in 8 %, one in 40 %, the two not independent."""
    generator = np.random.default_rng(seed)
    shows = []
    for _ in range(600):
        classes = {0} | ({1} if generator.random() < 0.4 else set())
        shows += [classes | ({2} if generator.random() < (0.15 if 1 in classes else 0.03) else set())] * 2
    return shows, data([i // 2 for i in range(1200)], shows)


@pytest.mark.parametrize(("val", "test"), [(0.15, 0.15), (0.1, 0.1), (0.2, 0.0)])
def test_every_part_has_its_share_of_every_class(val: float, test: float) -> None:
    shows, (catalogue, scan) = steel()
    parts = fractions(catalogue, scan, **{**USUAL, "val_fraction": val, "test_fraction": test}).parts(0)
    shares = {"train": 1 - val - test, "val": val, "test": test}
    for part, share in shares.items():
        assert len(parts[part]) == pytest.approx(share * 1200, abs=6)
        for label in (1, 2):
            number = sum(label in shows[int(name[1:])] for name in parts[part])
            assert number == pytest.approx(share * sum(label in classes for classes in shows), abs=6)


@given(
    pictures=st.lists(st.tuples(st.integers(0, 30), st.sets(st.integers(0, 2))), min_size=6, max_size=60),
    val=st.sampled_from([0.15, 0.4]),
    test=st.sampled_from([0.0, 0.15, 0.4]),
    groups=st.sampled_from(["group", None]),
    labels=st.sampled_from([None, COLUMNS]),
    seed=st.integers(0, 2**31 - 1),
)
@settings(max_examples=100, deadline=None)
def test_parts_are_disjoint_cover_keep_groups_whole_and_are_stable(pictures, val, test, groups, labels, seed) -> None:
    catalogue, scan = data([group for group, _ in pictures], [shows for _, shows in pictures])
    arguments = {"val_fraction": val, "test_fraction": test, "groups": groups, "labels": labels, "seed": seed}
    try:
        split = fractions(catalogue, scan, **arguments)
    except DataError as error:
        event("too few groups")
        if "should have enough groups for each part" not in str(error):
            raise
        return
    (fold,) = split.folds
    parts = [fold.train, fold.val, split.test]
    assert sorted(name for part in parts for name in part) == sorted(scan.ids)
    assert bool(split.test) == (test > 0)
    if groups:
        group = {record.id: record.attributes["group"] for record in catalogue.records}
        of_parts = [{group[name] for name in part} for part in parts]
        assert sum(map(len, of_parts)) == len(set(group.values()))
    turned = replace(catalogue, records=catalogue.records[::-1])
    assert split == fractions(catalogue, scan, **arguments) == fractions(turned, scan, **arguments)


def test_another_seed_is_another_assignment() -> None:
    _, (catalogue, scan) = steel()
    one, other = (fractions(catalogue, scan, **{**USUAL, "seed": seed}) for seed in (0, 1))
    assert one.test != other.test
    assert one.folds[0].val != other.folds[0].val


def test_labels_count_where_the_masks_say_nothing() -> None:
    """No mask shows anything; half of the pictures have the rare label."""
    shows = [{1} if i < 20 else {1, 2} if i < 40 else set() for i in range(200)]
    catalogue, scan = data(list(range(200)), shows)
    blank = replace(scan, class_counts=np.zeros_like(scan.class_counts))
    parts = fractions(catalogue, blank, **{**USUAL, "labels": COLUMNS}).parts(0)
    assert [sum(int(name[1:]) < 20 for name in parts[part]) for part in ("train", "val", "test")] == [14, 3, 3]
    parts = fractions(catalogue, blank, **{**USUAL, "labels": "kind"}).parts(0)
    assert [sum(int(name[1:]) < 40 for name in parts[part]) for part in ("train", "val", "test")] == [28, 6, 6]
    folds = kfold(catalogue, blank, num_folds=4, groups="group", stratify="all_classes", test_from="fraction",
                  test_fraction=0.0, seed=0, labels=COLUMNS).folds  # fmt: skip
    assert [sum(int(name[1:]) < 20 for name in fold.val) for fold in folds] == [5] * 4
    with pytest.raises(ConfigError, match=r"`data\.split\.labels` should be columns.*Found \['colour'\]"):
        fractions(catalogue, scan, **{**USUAL, "labels": "colour"})


def test_what_cannot_be_done(caplog: pytest.LogCaptureFixture) -> None:
    catalogue, scan = data([0, 0, 1, 1], [{0}] * 4)
    with pytest.raises(DataError, match=r"Found none for .*of 2 groups. Set `data.split.val_fraction`"):
        fractions(catalogue, scan, **USUAL)
    catalogue, scan = data(list(range(20)), [{0, 2} if i < 2 else {0} for i in range(20)])
    fractions(catalogue, scan, **USUAL)
    assert "crack (2)" in caplog.text
    for change, said in (
        ({"val_fraction": 0.0}, r"`val_fraction` should be in \(0, 1\)"),
        ({"test_fraction": 0.85}, r"`test_fraction` should be in \[0, 1 - val_fraction\)"),
        ({"test_fraction": -0.1}, "`test_fraction` should be"),
    ):
        with pytest.raises(ConfigError, match=said):
            fractions(catalogue, scan, **{**USUAL, **change})


def test_the_option_is_stored_and_read_again(tmp_path: Path) -> None:
    _, (catalogue, scan) = steel()
    made = instantiate(OmegaConf.load(Path(__file__).parents[3] / "conf/data/split/fractions.yaml"))
    split = stored_split(made, catalogue, scan, tmp_path)
    assert split == stored_split(made, catalogue, scan, tmp_path) == fractions(catalogue, scan, **USUAL)
    assert split.method == "fractions"
