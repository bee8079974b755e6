"""Groups of pictures, and fractions of a part."""

import logging
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
from hsl.data.splits.grouping import GroupedImages, deal, official_test, set_apart
from hsl.errors import ConfigError, DataError

CLASSES = ("clean", "scratch", "crack")


def data(shows: dict[str, set[int]], groups: dict[str, str] | None = None) -> tuple[Catalogue, Scan]:
    """Pictures that show the given classes."""
    ids = sorted(shows)
    records = tuple(
        Record(i, FileSource(Path(f"{i}.png")), None, None, {"group": groups[i]} if groups else {}, None) for i in ids
    )
    counts = np.zeros((len(ids), 256), np.int64)
    for row, name in enumerate(ids):
        counts[row, sorted(shows[name])] = 7
    sizes = np.full((len(ids), 2), 8)
    thumbnails = np.zeros((len(ids), 64, 64), np.uint8)
    hashes = tuple(f"hash of {i}" for i in ids)
    largest, frames, contrast = np.zeros(len(ids), int), np.ones(len(ids), int), np.full(len(ids), 50.0)
    scan = Scan(tuple(ids), hashes, hashes, sizes, sizes, counts, thumbnails, largest, frames, contrast, hashes, {})
    return Catalogue("test", records, CLASSES), scan


def units(sizes: dict[str, tuple[int, set[int]]]) -> GroupedImages:
    """Groups of so many pictures, each of which shows the given classes."""
    shows, groups = {}, {}
    for group, (size, classes) in sizes.items():
        for i in range(size):
            shows[f"{group}-{i}"], groups[f"{group}-{i}"] = classes, group
    return GroupedImages.of(*data(shows, groups), "group")


def test_the_rarest_class_is_the_one_in_the_fewest_groups() -> None:
    # crack: 3 pictures of 1 group; scratch: 2 pictures of 2 groups
    shows = {"a": {0, 1}, "b": {0, 2}, "c": {0, 2}, "d": {0, 2}, "e": {0, 1}, "f": set(), "g": {0}}
    groups = {"a": "A", "b": "A", "c": "A", "d": "A", "e": "E", "f": "F", "g": "E"}
    found = GroupedImages.of(*data(shows, groups), "group")
    assert found.names == ("A", "E", "F")
    assert found.rarest(found.present_in_groups()).tolist() == [2, 1, 3]
    assert found.rarest(found.present).tolist() == [1, 2, 2, 2, 1, 3, 0]


def test_of_classes_in_as_many_groups_the_rarest_is_in_the_fewest_pictures() -> None:
    shows = {"a": {0, 1, 2}, "b": {0, 2}, "c": {0, 1, 2}}
    found = GroupedImages.of(*data(shows, dict.fromkeys("abc", "A")), "group")
    assert found.rarest(found.present).tolist() == [1, 2, 1]
    even = GroupedImages.of(*data({"a": {0, 1, 2}}), None)
    assert even.rarest(even.present).tolist() == [2]  # never the background of equals


def test_values_outside_the_classes_and_ignored_pixels_are_no_classes() -> None:
    found = GroupedImages.of(*data({"a": {0, 200}, "b": {255}}), None)
    assert found.present.tolist() == [[True, False, False], [False, False, False]]


def test_without_attribute_each_picture_is_a_group() -> None:
    assert GroupedImages.of(*data({"b": {0}, "a": {0}}), None).names == ("a", "b")


def test_without_some_pictures() -> None:
    rest = units({"A": (2, {0}), "B": (1, {1}), "C": (2, {2})}).without(["B-0", "C-1"])
    assert rest.ids == ("A-0", "A-1", "C-0")
    assert rest.names == ("A", "C")
    assert rest.group.tolist() == [0, 0, 1]
    assert rest.ids_of([1]) == ["C-0"]
    assert rest.present_in_groups().tolist() == [[True, False, False], [False, False, True]]


def test_the_scan_of_other_data() -> None:
    with pytest.raises(ValueError, match="scan of `catalogue`"):
        GroupedImages.of(data({"a": {0}})[0], data({"b": {0}})[1], None)


def test_a_missing_attribute_names_those_there_are_and_the_way_out() -> None:
    catalogue, scan = data({"a": {0}, "b": {0}}, {"a": "1", "b": "1"})
    with pytest.raises(DataError, match=r"attribute `site`. Found: group.*`data.split.groups=null`"):
        GroupedImages.of(catalogue, scan, "site")
    with pytest.raises(DataError, match=r"Found: group\. Did you mean `group`\?"):
        GroupedImages.of(catalogue, scan, "groups")


def test_an_attribute_missing_in_some_records_names_them() -> None:
    catalogue, scan = data({name: {0} for name in "abcdefgh"}, dict.fromkeys("abcdefgh", "1"))
    for record in catalogue.records[1:]:
        record.attributes.clear()  # type: ignore[attr-defined]
    with pytest.raises(DataError, match=r"`group`. Found none for b, c, d, e, f and 2 more"):
        GroupedImages.of(catalogue, scan, "group")


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5])
@pytest.mark.parametrize("stratified", [True, False])
def test_the_share_is_met(fraction: float, stratified: bool) -> None:
    groups = {f"g{i:03d}": (1 + i % 4, {0, i % 3}) for i in range(80)}
    found = units(groups)
    ids = set_apart(found, fraction, 3, stratified)
    assert abs(len(ids) - fraction * len(found.ids)) <= 2
    for name, (size, _) in groups.items():
        assert sum(i.startswith(name) for i in ids) in (0, size)


def test_the_share_is_met_in_every_stratum() -> None:
    found = units({f"g{i:03d}": (2, {0, 2} if i < 10 else {0, 1} if i < 40 else {0}) for i in range(200)})
    ids = set_apart(found, 0.2, 0, True)
    number = [int(i[1:4]) for i in ids]
    assert sum(n < 10 for n in number) == 4
    assert sum(10 <= n < 40 for n in number) == 12
    assert len(ids) == 80


def test_pictures_count_by_the_class_they_show_not_by_their_group() -> None:
    """One group shows the rare class once in a hundred pictures; it must not pass for half of the class."""
    shows = {f"big-{i:03d}": {0} for i in range(99)} | {"big-099": {0, 2}}
    shows |= {f"small{g}-{i}": {0, 2} for g in range(9) for i in range(11)}
    shows |= {f"clean{g:03d}-{i}": {0} for g in range(80) for i in range(10)}
    found = GroupedImages.of(*data(shows, {i: i.split("-")[0] for i in shows}), "group")
    vals = deal(found, 2, "rarest_class", 0)
    assert abs(sum(2 in shows[i] for i in vals[0]) - 50) <= 6
    assert abs(len(vals[0]) - len(vals[1])) <= 20


def test_no_share_and_a_share_too_small_for_any_group() -> None:
    found = units({"A": (10, {0}), "B": (10, {0})})
    assert set_apart(found, 0, 0, True) == []
    with pytest.raises(DataError, match=r"Found `test_fraction = 0.1` of 20 pictures in 2 groups"):
        set_apart(found, 0.1, 0, True)


def test_official_test_pictures() -> None:
    catalogue, _ = data({"a": {0}})
    with pytest.raises(DataError, match=r"splits.csv. Found none.*`data.split.test_from=fraction`"):
        official_test(catalogue)


@pytest.mark.parametrize("stratify", ["rarest_class", "all_classes", None])
def test_more_folds_than_groups(stratify: str | None) -> None:
    with pytest.raises(DataError, match=r"number of groups, 2. Found `num_folds = 3`"):
        deal(units({"A": (10, {0}), "B": (10, {1})}), 3, stratify, 0)


@pytest.mark.parametrize("stratify", ["rarest_class", "all_classes"])
def test_every_fold_gets_its_share_of_every_class(stratify: str) -> None:
    found = units({f"g{i:03d}": (3, {0, 2} if i < 8 else {0, 1} if i < 28 else {0}) for i in range(120)})
    for val in deal(found, 4, stratify, 1):
        number = [int(i[1:4]) for i in val]
        assert sum(n < 8 for n in number) == 6
        assert sum(8 <= n < 28 for n in number) == 15
        assert len(val) == 90


def test_all_classes_balances_what_the_rarest_class_hides() -> None:
    """Half of the groups with the rarest class show another one as well."""
    found = units({f"g{i:03d}": (1, {0, 2} | ({1} if i % 2 else set())) for i in range(40)})
    for val in deal(found, 4, "all_classes", 0):
        assert sum(int(i[1:4]) % 2 for i in val) == 5


def test_a_class_in_too_few_groups_is_named(caplog: pytest.LogCaptureFixture) -> None:
    found = units({"A": (1, {0, 2}), "B": (1, {0, 1}), "C": (1, {0, 1}), "D": (1, {0, 1})})
    with caplog.at_level(logging.WARNING):
        deal(found, 3, "rarest_class", 0)
    assert "crack (1)" in caplog.text
    assert "scratch" not in caplog.text


def test_strata_that_are_all_smaller_than_the_folds() -> None:
    vals = deal(units({"A": (1, {0}), "B": (1, {1}), "C": (1, {2})}), 3, "rarest_class", 0)
    assert sorted(map(tuple, vals)) == [("A-0",), ("B-0",), ("C-0",)]


# Fractions.


COLUMNS = ["one", "two"]
USUAL = {"val_fraction": 0.15, "test_fraction": 0.15, "groups": "group", "labels": None, "seed": 0}


def labelled(groups: list[int], shows: list[set[int]]) -> tuple[Catalogue, Scan]:
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
    return shows, labelled([i // 2 for i in range(1200)], shows)


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
    catalogue, scan = labelled([group for group, _ in pictures], [shows for _, shows in pictures])
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
    catalogue, scan = labelled(list(range(200)), shows)
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
    catalogue, scan = labelled([0, 0, 1, 1], [{0}] * 4)
    with pytest.raises(DataError, match=r"Found none for .*of 2 groups. Set `data.split.val_fraction`"):
        fractions(catalogue, scan, **USUAL)
    catalogue, scan = labelled(list(range(20)), [{0, 2} if i < 2 else {0} for i in range(20)])
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
