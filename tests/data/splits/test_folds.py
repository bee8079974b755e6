import functools
import hashlib
import itertools
import logging
import random
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hydra.utils import instantiate
from hypothesis import event, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from hsl.data.files.records import Catalogue, FileSource, Record
from hsl.data.files.scan import Scan
from hsl.data.splits.folds import data_sha256, holdout, kfold, leave_one_group_out, stored_split
from hsl.data.splits.fractions import fractions
from hsl.errors import ConfigError, DataError
from hsl.files.split_file import Fold, Split, read_split

FIVE = {"num_folds": 5, "stratify": "rarest_class", "test_from": "fraction", "test_fraction": 0.2, "seed": 0}


def data(
    groups: list[str], shows: list[set[int]] | None = None, parts: list[str | None] | None = None
) -> tuple[Catalogue, Scan]:
    """Pictures p000, p001 ... of the given groups, which show the given classes."""
    number = len(groups)
    shows = shows or [{0, i % 3} for i in range(number)]
    parts = parts or [None] * number
    ids = tuple(f"p{i:03d}" for i in range(number))
    records = tuple(
        Record(name, FileSource(Path(f"{name}.png")), None, None, {"group": group, "material": group[0]}, part)
        for name, group, part in zip(ids, groups, parts, strict=True)
    )
    counts = np.zeros((number, 256), np.int64)
    for row, classes in enumerate(shows):
        counts[row, sorted(classes)] = 5
    hashes = tuple(f"content of {name}" for name in ids)
    sizes, thumbnails = np.full((number, 2), 8), np.zeros((number, 64, 64), np.uint8)
    catalogue = Catalogue("test", records, ("clean", "scratch", "crack"))
    largest, frames, contrast = np.zeros(number, int), np.ones(number, int), np.full(number, 50.0)
    return catalogue, Scan(ids, hashes, hashes, sizes, sizes, counts, thumbnails, largest, frames, contrast, hashes, {})


def sixty() -> tuple[Catalogue, Scan]:
    return data([f"{'abc'[i % 3]}{i // 3}" for i in range(60)])


def shuffled(catalogue: Catalogue, scan: Scan, seed: int) -> tuple[Catalogue, Scan]:
    order = list(range(len(scan.ids)))
    random.Random(seed).shuffle(order)
    picked = {}
    for name in (field.name for field in fields(scan) if field.name != "errors"):
        whole = getattr(scan, name)
        picked[name] = (
            tuple(whole[i] for i in order) if isinstance(whole, tuple) else whole[order] if len(whole) else whole
        )
    records = tuple(catalogue.records[i] for i in order)
    return replace(catalogue, records=records), replace(scan, **picked)


def assert_sound(split: Split, catalogue: Catalogue, attribute: str | None) -> None:
    """Disjoint, covering, whole groups, every picture validated once."""
    everything = sorted(record.id for record in catalogue.records)
    value = {r.id: r.id if attribute is None else r.attributes[attribute] for r in catalogue.records}
    for fold in split.folds:
        parts = [fold.train, fold.val, split.test, fold.stop]
        assert sorted(itertools.chain(*parts)) == everything
        assert fold.train
        assert fold.val
        for part in parts:
            assert list(part) == sorted(part)
        for one, other in itertools.combinations(parts, 2):
            assert not {value[i] for i in one} & {value[i] for i in other}
    assert sorted(itertools.chain(split.test, *(fold.val for fold in split.folds))) == everything


@given(
    pictures=st.lists(st.tuples(st.integers(0, 999), st.sets(st.integers(0, 2))), min_size=4, max_size=60),
    num_groups=st.integers(2, 20),
    num_folds=st.integers(2, 4),
    groups=st.sampled_from(["group", None]),
    stratify=st.sampled_from(["rarest_class", "all_classes", None]),
    test_fraction=st.sampled_from([0.0, 0.3]),
    stop_fraction=st.sampled_from([0.0, 0.2]),
    seed=st.integers(0, 2**31 - 1),
)
@settings(max_examples=200, deadline=None)
def test_folds_are_disjoint_cover_keep_groups_whole_and_are_stable(
    pictures, num_groups, num_folds, groups, stratify, test_fraction, stop_fraction, seed
) -> None:
    catalogue, scan = data([f"g{number % num_groups}" for number, _ in pictures], [shows for _, shows in pictures])
    arguments = {
        "num_folds": num_folds,
        "groups": groups,
        "stratify": stratify,
        "test_from": "fraction",
        "test_fraction": test_fraction,
        "stop_fraction": stop_fraction,
        "seed": seed,
    }
    try:
        split = kfold(catalogue, scan, **arguments)
    except DataError as error:
        # A few large groups cannot always be cut as asked; what matters is that it is said.
        said = str(error)
        event("cannot be cut")
        known = ("number of groups", "Found none", "enough for one group", "a training group of every class")
        if not any(words in said for words in known):
            raise
        return
    assert len(split.folds) == num_folds
    assert_sound(split, catalogue, groups)
    assert bool(split.test) == (test_fraction > 0)
    plain = kfold(catalogue, scan, **{**arguments, "stop_fraction": 0.0})
    for fold, without in zip(split.folds, plain.folds, strict=True):
        assert bool(fold.stop) == (stop_fraction > 0)
        assert fold.val == without.val  # what is held out does not depend on what stops
        assert sorted(fold.train + fold.stop) == list(without.train)
        taught, known = ({c for name in ids for c in pictures[int(name[1:])][1]} for ids in (fold.train, without.train))
        assert taught == known
    assert kfold(catalogue, scan, **arguments) == split
    assert kfold(*shuffled(catalogue, scan, seed), **arguments) == split


def test_an_ordinary_kfold() -> None:
    catalogue, scan = sixty()
    split = kfold(catalogue, scan, groups="group", **FIVE)
    assert_sound(split, catalogue, "group")
    assert (split.method, split.groups, split.seed) == ("kfold", "group", 0)
    assert [fold.name for fold in split.folds] == ["0", "1", "2", "3", "4"]
    assert len(split.test) == 12
    assert split.fold(4) == split.folds[4]
    assert split.parts(1) == {"train": split.folds[1].train, "val": split.folds[1].val, "test": split.test}


def test_the_stop_part_has_its_share_of_every_class() -> None:
    shows = [{0} | ({1} if i % 4 == 0 else set()) | ({2} if i % 10 == 0 else set()) for i in range(400)]
    catalogue, scan = data([f"g{i // 2}" for i in range(400)], [shows[i - i % 2] for i in range(400)])
    for fold in kfold(catalogue, scan, groups="group", **FIVE, stop_fraction=0.1).folds:
        size = len(fold.train) + len(fold.stop)
        assert len(fold.stop) == pytest.approx(0.1 * size, abs=2)
        for rare in (1, 2):
            of, out = (
                sum(rare in shows[int(name[1:]) // 2 * 2] for name in ids)
                for ids in (fold.train + fold.stop, fold.stop)
            )
            assert out == pytest.approx(0.1 * of, abs=4)


def test_every_split_can_have_a_stop_part() -> None:
    catalogue, scan = sixty()
    official = data([f"g{i // 2}" for i in range(60)], parts=["train"] * 40 + ["val"] * 10 + ["test"] * 10)
    by_material = data([f"{'abcdefghij'[i % 10]}{i}" for i in range(60)])
    found = [
        (holdout(*official, groups="group", stop_fraction=0.1), official[0], "group"),
        (fractions(catalogue, scan, val_fraction=0.2, test_fraction=0.1, groups="group", labels=None, seed=0,
                   stop_fraction=0.1), catalogue, "group"),
        (leave_one_group_out(*by_material, groups="material", test_fraction=0.0, seed=0, stop_fraction=0.1),
         by_material[0], "material"),
    ]  # fmt: skip
    for split, of, attribute in found:
        value = {record.id: record.attributes[attribute] for record in of.records}
        assert split.has_stop_part
        for fold in split.folds:
            assert not {value[name] for name in fold.stop} & {value[name] for name in fold.train + fold.val}
            assert len(fold.stop) == pytest.approx(0.1 * len(fold.train + fold.stop), abs=2)


def test_without_a_stop_part_all_is_as_it_was(tmp_path: Path) -> None:
    catalogue, scan = sixty()
    split = kfold(catalogue, scan, groups="group", **FIVE)
    assert hashlib.sha256(split.to_json().encode()).hexdigest()[:16] == "f32a2e084d75aeef"
    assert split.assignment[:16] == "3a2651fec456d05a"
    for made in (make, functools.partial(make, stop_fraction=0.0)):
        stored_split(made, catalogue, scan, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["splits-0c4c31415d7e05cf.json"]
    other = kfold(catalogue, scan, groups="group", **FIVE, stop_fraction=0.1)
    stored_split(functools.partial(make, stop_fraction=0.1), catalogue, scan, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    assert other.assignment != split.assignment
    assert Split.from_json(other.to_json(), "splits.json") == other
    assert other.parts(1) == {
        "train": other.folds[1].train, "stop": other.folds[1].stop, "val": split.folds[1].val, "test": split.test
    }  # fmt: skip


def test_a_stop_part_that_cannot_be() -> None:
    lone = data([f"g{i}" for i in range(30)], [{0, 1, 2} if i == 0 else {0} for i in range(30)])
    with pytest.raises(
        DataError, match=r"`stop_fraction` should leave a training group of every class.*fold `0`.*scratch"
    ):
        kfold(*lone, groups="group", **{**FIVE, "test_fraction": 0.0, "stratify": None, "seed": 2}, stop_fraction=0.95)
    with pytest.raises(
        DataError, match=r"`stop_fraction` should be enough for one group.*`data\.split\.stop_fraction`"
    ):
        kfold(*sixty(), groups="group", **FIVE, stop_fraction=0.001)
    with pytest.raises(ConfigError, match=r"`stop_fraction` should be in \[0, 1\)"):
        kfold(*sixty(), groups="group", **FIVE, stop_fraction=1.0)


def test_another_seed_is_another_assignment() -> None:
    catalogue, scan = sixty()
    one, other = (kfold(catalogue, scan, groups="group", **{**FIVE, "seed": seed}) for seed in (0, 1))
    assert one.folds != other.folds
    assert one.test != other.test
    assert one.sha256 == other.sha256


def test_offline_augmented_copies_stay_together() -> None:
    """417 originals became 1458 files, and a published split over files put copies on both sides."""
    catalogue, scan = data([f"original{i // 4:03d}" for i in range(400)])
    split = kfold(catalogue, scan, groups="group", **FIVE)
    assert_sound(split, catalogue, "group")
    split = kfold(catalogue, scan, groups=None, **FIVE)
    with pytest.raises(AssertionError):
        assert_sound(split, catalogue, "group")


def test_official_test_pictures_leave_first(caplog: pytest.LogCaptureFixture) -> None:
    parts = ["test" if i % 4 == 0 else "train" for i in range(60)]
    catalogue, scan = data([f"g{i}" for i in range(60)], parts=parts)
    arguments = {**FIVE, "test_from": "official", "test_fraction": 0.5}
    split = kfold(catalogue, scan, groups="group", **arguments)
    assert split.test == tuple(f"p{i:03d}" for i in range(0, 60, 4))
    assert_sound(split, catalogue, "group")
    assert caplog.text == ""
    with caplog.at_level(logging.WARNING):
        kfold(catalogue, scan, groups="group", **FIVE)
    assert "data.split.test_from=official" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_folds": 1}, "`num_folds` should be at least 2. Found `num_folds = 1`"),
        ({"stratify": "label"}, "`stratify` should be rarest_class, all_classes or null"),
        ({"test_from": "val"}, "`test_from` should be fraction or official"),
        ({"test_fraction": 1.0}, r"`test_fraction` should be in \[0, 1\). Found `test_fraction = 1.0`"),
        ({"test_fraction": -0.1}, "`test_fraction` should be"),
    ],
)
def test_arguments_outside_their_range(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        kfold(*sixty(), groups="group", **{**FIVE, **change})


def test_what_kfold_cannot_do_with_the_data() -> None:
    with pytest.raises(DataError, match=r"Found `num_folds = 5`"):
        kfold(*data(["a", "a", "b", "b"]), groups="group", **{**FIVE, "test_fraction": 0.0})
    with pytest.raises(DataError, match="attribute `site`"):
        kfold(*sixty(), groups="site", **FIVE)


@pytest.mark.parametrize("number", [-1, 5, 9])
def test_a_fold_out_of_range(number: int) -> None:
    split = kfold(*sixty(), groups="group", **FIVE)
    with pytest.raises(ConfigError, match=rf"`fold` should be in \[0, 5\). Found `fold = {number}`"):
        split.fold(number)


def test_holdout_is_the_official_split() -> None:
    parts = ["train", "val", "test", "train"] * 5
    catalogue, scan = data([f"g{i}" for i in range(20)], parts=parts)
    split = holdout(catalogue, scan, groups="group")
    assert split.method == "holdout"
    assert split.folds == (
        Fold(
            tuple(f"p{i:03d}" for i in range(20) if i % 4 in (0, 3)),
            tuple(f"p{i:03d}" for i in range(1, 20, 4)),
            "0",
        ),
    )
    assert split.test == tuple(f"p{i:03d}" for i in range(2, 20, 4))
    assert holdout(*shuffled(catalogue, scan, 1), groups="group") == split


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([None] * 4, "should have an official split. Found none. Add splits.csv"),
        (["train", "val", None, None], "Found none for p002, p003. Complete splits.csv"),
        (["train", "train", "test", "test"], r"no substitute.*data.split.test_from=official"),
        (["train"] * 4, r"nor test pictures\. Make folds with `data/split=kfold`"),
        (["val", "val", "test", "test"], "should have training pictures"),
    ],
)
def test_an_incomplete_official_split(parts: list[str | None], message: str) -> None:
    with pytest.raises(DataError, match=message):
        holdout(*data(["a", "b", "c", "d"], parts=parts), groups="group")


def test_holdout_without_test_pictures_and_without_groups() -> None:
    split = holdout(*data(["a"] * 4, parts=["train", "val"] * 2), groups=None)
    assert split.test == ()
    with pytest.raises(DataError, match="attribute `site`"):
        holdout(*data(["a"] * 4, parts=["train", "val"] * 2), groups="site")


def test_leave_one_group_out_has_a_fold_per_value() -> None:
    catalogue, scan = sixty()
    split = leave_one_group_out(catalogue, scan, groups="material", test_fraction=0.0, seed=0)
    assert [fold.name for fold in split.folds] == ["a", "b", "c"]
    assert split.folds[1].val == tuple(f"p{i:03d}" for i in range(1, 60, 3))
    assert_sound(split, catalogue, "material")
    with pytest.raises(ConfigError, match=r"`fold` should be in \[0, 3\). Found `fold = 3`. Folds are 0: a, 1: b"):
        split.fold(3)


def test_leave_one_group_out_sets_whole_values_apart() -> None:
    catalogue, scan = sixty()
    split = leave_one_group_out(catalogue, scan, groups="material", test_fraction=0.3, seed=0)
    assert_sound(split, catalogue, "material")
    assert len(split.test) == 20
    assert len(split.folds) == 2


def test_leave_one_group_out_needs_two_values() -> None:
    with pytest.raises(DataError, match=r"at least 2 values.*Found \['a'\]"):
        leave_one_group_out(*data(["a1", "a2"]), groups="material", test_fraction=0.0, seed=0)
    with pytest.raises(DataError, match="attribute `site`"):
        leave_one_group_out(*sixty(), groups="site", test_fraction=0.0, seed=0)
    with pytest.raises(ConfigError, match="`groups` should be the attribute to leave out by"):
        leave_one_group_out(*sixty(), groups="", test_fraction=0.0, seed=0)


def test_json_there_and_back() -> None:
    split = kfold(*sixty(), groups=None, **FIVE)
    assert Split.from_json(split.to_json(), "splits.json") == split
    for text in ("", "[]", "{}", '{"folds": [], "test": []}', split.to_json()[:-20]):
        with pytest.raises(ValueError, match=r"`splits\.json` is damaged"):
            Split.from_json(text, "splits.json")


def test_the_hash_is_that_of_the_definition() -> None:
    _, scan = data(["a", "b"])
    text = "p000\0content of p000\np001\0content of p001\n"
    assert data_sha256(scan) == hashlib.sha256(text.encode()).hexdigest()
    catalogue, scan = sixty()
    assert data_sha256(shuffled(catalogue, scan, 3)[1]) == data_sha256(scan)
    assert data_sha256(replace(scan, content=("x", *scan.content[1:]))) != data_sha256(scan)


make = functools.partial(kfold, groups="group", **FIVE)


def test_a_stored_assignment_is_read(tmp_path: Path) -> None:
    catalogue, scan = sixty()
    first = stored_split(make, catalogue, scan, tmp_path)
    (path,) = tmp_path.iterdir()
    assert path.name.startswith("splits-")
    assert read_split(path) == first == make(catalogue, scan)
    kept = replace(first, folds=first.folds[::-1])
    path.write_text(kept.to_json())
    assert stored_split(make, catalogue, scan, tmp_path) == kept
    assert stored_split(make, *shuffled(catalogue, scan, 0), tmp_path) == kept


def test_options_from_yaml_are_told_apart(tmp_path: Path) -> None:
    catalogue, scan = sixty()
    conf = Path(__file__).parents[3] / "conf/data/split"
    for name, change in (("kfold", {}), ("kfold", {"num_folds": 4}), ("leave_one_group_out", {})):
        option = OmegaConf.merge(OmegaConf.load(conf / f"{name}.yaml"), {"groups": "material"}, change)
        made = instantiate(OmegaConf.merge(option, {"groups": "group"} if name == "kfold" else {}))
        split = stored_split(made, catalogue, scan, tmp_path)
        assert split == stored_split(made, catalogue, scan, tmp_path) == made(catalogue, scan)
        assert_sound(split, catalogue, split.groups)
    assert len(list(tmp_path.iterdir())) == 3


def test_a_corrected_mask_keeps_the_assignment(tmp_path: Path) -> None:
    catalogue, scan = sixty()
    first = stored_split(make, catalogue, scan, tmp_path)
    counts = scan.class_counts.copy()
    counts[:30] = counts[30:]
    corrected = replace(scan, class_counts=counts, mask_content=("new",) * 60)
    assert stored_split(make, catalogue, corrected, tmp_path) == first
    assert len(list(tmp_path.iterdir())) == 1


def test_what_changes_the_assignment_makes_another_file(tmp_path: Path) -> None:
    catalogue, scan = sixty()
    stored_split(make, catalogue, scan, tmp_path)
    records = list(catalogue.records)
    records[0] = replace(records[0], attributes={**records[0].attributes, "group": "b0"})
    regrouped = stored_split(make, replace(catalogue, records=tuple(records)), scan, tmp_path)
    assert_sound(regrouped, replace(catalogue, records=tuple(records)), "group")
    stored_split(make, catalogue, replace(scan, content=("new", *scan.content[1:])), tmp_path)
    stored_split(functools.partial(make, seed=1), catalogue, scan, tmp_path)
    stored_split(functools.partial(make, groups=None), catalogue, scan, tmp_path)
    by_material = functools.partial(leave_one_group_out, groups="material", test_fraction=0.0, seed=0)
    stored_split(by_material, catalogue, scan, tmp_path)
    assert len(list(tmp_path.iterdir())) == 6


def test_nothing_is_stored_without_a_folder_or_with_unreadable_files(tmp_path: Path) -> None:
    catalogue, scan = sixty()
    expected = make(catalogue, scan)
    assert stored_split(make, catalogue, scan, None) == expected
    assert stored_split(make, catalogue, replace(scan, errors={"p000": "broken"}), tmp_path) == expected
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_stored_assignment_is_named(tmp_path: Path) -> None:
    catalogue, scan = sixty()
    stored_split(make, catalogue, scan, tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_text("{")
    with pytest.raises(DataError, match=f"`{path}` is damaged. Delete it"):
        stored_split(make, catalogue, scan, tmp_path)
