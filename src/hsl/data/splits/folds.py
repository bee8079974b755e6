"""Which pictures train, which validate, which wait for the test: whole groups, decided once per data set."""

import functools
import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hsl.config.moved import without_later
from hsl.config.ranges import FractionBelowOne, PositiveInt, Seed
from hsl.data.files.records import Catalogue
from hsl.data.files.scan import Scan
from hsl.data.labels.image_labels import group_pictures
from hsl.data.splits.grouping import GroupedImages, deal, name_some, official_test, set_apart
from hsl.errors import ConfigError, DataError
from hsl.files.split_file import Fold, Split, read_split, write_split

log = logging.getLogger(__name__)


def kfold(
    catalogue: Catalogue,
    scan: Scan,
    *,
    num_folds: PositiveInt,
    groups: str | None,
    stratify: str | None,
    test_from: str,
    test_fraction: FractionBelowOne,
    seed: Seed,
    labels: str | Sequence[str] | None = None,
    stop_fraction: FractionBelowOne = 0.0,
) -> Split:
    """K folds of whole groups, after the test pictures have left.

    Args:
        catalogue: The data set.
        scan: Its scan; the classes of a group are those with a pixel in one of its masks.
        num_folds: K, at least 2.
        groups: The attribute whose values stay whole; ``None``: each picture by itself.
        stratify: ``"rarest_class"``: each fold gets its share of the pictures whose rarest class is c, for
            every c (of the classes of a picture the one in the fewest groups). ``"all_classes"``: its share
            of the groups that contain c, for every c (iterative stratification, Sechidis, Tsoumakas &
            Vlahavas 2011). ``None``: sizes alone.
        test_from: ``"fraction"``: test groups are drawn, stratified by the rarest class. ``"official"``: the
            pictures whose official part is "test".
        test_fraction: Share of the pictures for the test in [0, 1), met as nearly as whole groups allow; for
            ``test_from="fraction"``. 0: no test pictures.
        seed: Two seeds make two assignments.
        labels: Columns of labels whose classes count instead of those of the masks, see
            `hsl.data.labels.image_labels.group_pictures`.
        stop_fraction: Share of each fold's training pictures that chooses the epoch, see `set_stop_apart`.

    Raises:
        ConfigError: An argument is outside its range.
        DataError: The attribute is missing, there are too few groups, or a part would be empty.
    """
    check_argument("num_folds", num_folds >= 2, "at least 2", num_folds)
    check_argument(
        "stratify", stratify in ("rarest_class", "all_classes", None), "rarest_class, all_classes or null", stratify
    )
    check_argument("test_from", test_from in ("fraction", "official"), "fraction or official", test_from)
    units = group_pictures(catalogue, scan, groups, labels)
    if test_from == "official":
        test = official_test(catalogue)
    else:
        test = set_apart(units, _fraction(test_fraction), seed, stratify is not None)
        if any(record.split == "test" for record in catalogue.records):
            log.warning(
                "`%s` has official test pictures, and some of them will train. To compare with published "
                "results set `data.split.test_from=official`.",
                catalogue.name,
            )
    vals = enumerate(deal(units.without(test), num_folds, stratify, seed))
    split = assemble("kfold", catalogue, scan, groups, seed, test, {str(i): val for i, val in vals})
    return set_stop_apart(split, units, stop_fraction, stratify is not None)


def holdout(catalogue: Catalogue, scan: Scan, *, groups: str | None, stop_fraction: FractionBelowOne = 0.0) -> Split:
    """The official training, validation and test parts, as one fold.

    Args:
        catalogue: The data set; every record names its part.
        scan: Its scan.
        groups: The attribute that the audit expects to be whole; ``None``: each picture by itself.
        stop_fraction: Share of the training pictures that chooses the epoch, see `set_stop_apart`.

    Raises:
        ConfigError: An argument is outside its range.
        DataError: The attribute is missing, a record has no official part, or a part is empty.
    """
    units = GroupedImages.of(catalogue, scan, groups)
    without = [record.id for record in catalogue.records if record.split not in ("train", "val", "test")]
    if len(without) == len(catalogue.records):
        raise DataError(
            f"`{catalogue.name}` should have an official split. Found none. Add splits.csv (id, split) "
            "beside the pictures, or make folds with `data/split=kfold`."
        )
    if without:
        raise DataError(
            f"`{catalogue.name}` should name the part (train, val or test) of every picture. Found none for "
            f"{name_some(without)}. Complete splits.csv, or use `data/split=kfold`."
        )
    if not any(record.split == "val" for record in catalogue.records):
        instead = ", nor test pictures. Make folds with `data/split=kfold`, which draws both."
        if any(record.split == "test" for record in catalogue.records):
            instead = ", and the test pictures are no substitute: choosing the best epoch on them spoils them. Use "
            instead += "`data/split=kfold data.split.test_from=official`, which validates on folds of the rest."
        raise DataError(f"`{catalogue.name}` should have official validation pictures. Found none{instead}")
    val, test = ([r.id for r in catalogue.records if r.split == part] for part in ("val", "test"))
    split = assemble("holdout", catalogue, scan, groups, 0, test, {"0": val})
    return set_stop_apart(split, units, stop_fraction, True)


def leave_one_group_out(
    catalogue: Catalogue,
    scan: Scan,
    *,
    groups: str,
    test_fraction: FractionBelowOne,
    seed: Seed,
    stop_fraction: FractionBelowOne = 0.0,
) -> Split:
    """One fold per value of an attribute (material, content, site ...): it validates, all others train.

    Args:
        catalogue: The data set.
        scan: Its scan.
        groups: The attribute.
        test_fraction: Share of the pictures for the test in [0, 1): whole values leave first, as nearly as
            that goes.
        seed: Draws the values of test and stop; of no effect without them.
        stop_fraction: Share of each fold's training pictures that chooses the epoch, see `set_stop_apart`.

    Raises:
        ConfigError: An argument is outside its range.
        DataError: A record lacks the attribute, or fewer than two values are left.
    """
    check_argument("groups", bool(groups), "the attribute to leave out by, such as material", groups)
    units = GroupedImages.of(catalogue, scan, groups)
    test = set_apart(units, _fraction(test_fraction), seed, False)
    rest = units.without(test)
    if len(rest.names) < 2:
        raise DataError(
            f"`{groups}` should have at least 2 values besides those of the test. Found "
            f"{list(rest.names)} in `{catalogue.name}`. Choose another attribute with "
            "`data.split.groups`, or a smaller `data.split.test_fraction`."
        )
    named = {name: rest.ids_of([number]) for number, name in enumerate(rest.names)}
    split = assemble("leave_one_group_out", catalogue, scan, groups, seed, test, named)
    return set_stop_apart(split, units, stop_fraction, False)


def stored_split(
    make: Callable[[Catalogue, Scan], Split], catalogue: Catalogue, scan: Scan, cache_dir: Path | None
) -> Split:
    """Read the assignment that ``make`` gave for these very pictures before; else make it and store it.

    It is stored under the method and its arguments, the hash of the data, and what the records say of
    groups and official parts. Masks do not count: a corrected mask leaves the folds, and so the
    comparisons, as they are. What was made while some files could not be read is not stored.

    Args:
        make: One of the functions of this module with its arguments bound by ``functools.partial``.
        catalogue: The data set.
        scan: Its scan.
        cache_dir: The folder of ``splits-<key>.json``; ``None`` makes it each time.

    Raises:
        DataError: The stored file is damaged.
        OSError: ``cache_dir`` cannot be written, or its disk is full.
    """
    if cache_dir is None or scan.errors:
        return make(catalogue, scan)
    path = Path(cache_dir) / f"splits-{_key(make, catalogue, scan)}.json"
    if path.is_file():
        return read_split(path)
    split = make(catalogue, scan)
    write_split(path, split)
    return split


def data_sha256(scan: Scan) -> str:
    """SHA-256 over the sorted pairs of id and content hash."""
    pairs = sorted(zip(scan.ids, scan.content, strict=True))
    return hashlib.sha256("".join(f"{name}\0{content}\n" for name, content in pairs).encode()).hexdigest()


def _key(make: Callable[[Catalogue, Scan], Split], catalogue: Catalogue, scan: Scan) -> str:
    function, arguments = make, {}
    if isinstance(make, functools.partial):
        function, arguments = make.func, dict(make.keywords)
    arguments = without_later(arguments, "data.split")  # what was stored before a setting was there is found
    attribute = arguments.get("groups")
    said = sorted((r.id, r.attributes.get(attribute or ""), r.split) for r in catalogue.records)
    name = f"{function.__module__}.{function.__qualname__}"
    content = json.dumps([name, arguments, data_sha256(scan), said], sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def assemble(
    method: str,
    catalogue: Catalogue,
    scan: Scan,
    groups: str | None,
    seed: int,
    test: Sequence[str],
    vals: Mapping[str, Sequence[str]],
) -> Split:
    """The assignment whose folds validate with ``vals``, by name, and train with what is left."""
    rest = {record.id for record in catalogue.records}.difference(test)
    folds = []
    for name, val in vals.items():
        train = rest.difference(val)
        for part, ids in (("training", train), ("validation", val)):
            if not ids:
                raise DataError(
                    f"Fold `{name}` of `{catalogue.name}` should have {part} pictures. Found none. Use "
                    "fewer folds (`data.split.num_folds`) or a smaller `data.split.test_fraction`."
                )
        folds.append(Fold(tuple(sorted(train)), tuple(sorted(val)), name))
    return Split(method, seed, groups, tuple(folds), tuple(sorted(test)), data_sha256(scan))


def set_stop_apart(split: Split, units: GroupedImages, fraction: float, stratified: bool) -> Split:
    """The same folds with a share of the training part of each as its part ``stop``, drawn as by `set_apart`.

    It chooses the epoch and stops the training, so that ``val`` stays as untouched as the test part.

    Args:
        split: An assignment without such parts; its seed draws them.
        units: The pictures of the data set.
        fraction: Share of the training pictures in [0, 1), met as nearly as whole groups allow; 0: no such part.
        stratified: ``False`` draws from all groups alike.

    Raises:
        ConfigError: The fraction is outside its range.
        DataError: It is less than a group, or takes the last training group of a class.
    """
    check_argument("stop_fraction", 0 <= fraction < 1, "in [0, 1)", fraction)
    if fraction == 0:
        return split
    folds = []
    for fold in split.folds:
        whole = units.without(set(units.ids).difference(fold.train))
        stop = set_apart(whole, fraction, split.seed, stratified, "stop_fraction")
        rest = whole.without(stop)
        lost = np.flatnonzero(whole.present.any(axis=0) & ~rest.present.any(axis=0)).tolist()
        if lost or not rest.ids:
            named = name_some([units.classes[i] for i in lost]) or "any class"
            raise DataError(
                f"`stop_fraction` should leave a training group of every class. Found `stop_fraction = {fraction}`, "
                f"which leaves fold `{fold.name}` none of {named}. Set `data.split.stop_fraction` to 0 or to a smaller "
                "share."
            )
        folds.append(replace(fold, train=rest.ids, stop=tuple(sorted(stop))))
    return replace(split, folds=tuple(folds))


def _fraction(value: float) -> float:
    check_argument("test_fraction", 0 <= value < 1, "in [0, 1)", value)
    return value


def check_argument(name: str, fits: bool, wanted: str, value: Any) -> None:
    """Refuse a value of ``data.split`` that does not fit."""
    if not fits:
        raise ConfigError(f"`{name}` should be {wanted}. Found `{name} = {value}`. Set `data.split.{name}`.")
