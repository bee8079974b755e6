"""What an ensemble is fitted on: one out-of-fold prediction of every member for every image."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsl.batch import UNKNOWN_LABEL
from hsl.metrics.images.image_scores import one_hot_labels

Floats = NDArray[np.float64]

SUM_TOLERANCE = 1e-2


@dataclass(frozen=True, eq=False)
class Rows:
    """N images (or sampled pixels) predicted by M members, K classes.

    The form is canonical: rows are sorted by id and members by name, so that the order in which they were gathered
    changes nothing. `Rows.sorted` makes it from any order.

    Attributes:
        ids: N of them, sorted; of sampled pixels ``"<id>@<index>"``.
        groups: the group of each, which no fit takes apart.
        contents: a hash of the image of each.
        labels: ``int64 (N,)``, -1 unknown; or, where ``several``, ``float64 (N, K)`` of 0, 1 and NaN, unknown.
        classes: K names.
        several: whether an image may show several classes.
        members: M names, sorted.
        probabilities: ``float64 (M, N, K)``.
        folds: ``int64 (N,)``: number of the fold that predicted the row and did not train on it; -1 for test rows.
        features: member -> ``float32 (N, D)``: its pooled features, where kept.
        foreground: ``float64 (M, N)``: foreground IoU of each member's mask of each image, NaN unknown.

    Raises:
        ValueError: something does not fit.
    """

    ids: tuple[str, ...]
    groups: tuple[str, ...]
    contents: tuple[str, ...]
    labels: NDArray[Any]
    classes: tuple[str, ...]
    several: bool
    members: tuple[str, ...]
    probabilities: Floats
    folds: NDArray[np.int64]
    features: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    foreground: Floats | None = None

    def __post_init__(self) -> None:
        _check_names(self)
        _check_arrays(self)

    @classmethod
    def sorted(cls, **fields: Any) -> "Rows":
        """The canonical form of rows and members that come in any order; the arguments are the attributes."""
        rows = np.array(sorted(range(len(fields["ids"])), key=list(fields["ids"]).__getitem__), dtype=np.int64)
        members = np.array(sorted(range(len(fields["members"])), key=list(fields["members"]).__getitem__), dtype=int)
        for name in ("ids", "groups", "contents"):
            fields[name] = tuple(fields[name][i] for i in rows)
        fields["members"] = tuple(fields["members"][i] for i in members)
        fields["probabilities"] = np.asarray(fields["probabilities"], dtype=np.float64)[members][:, rows]
        dtype = np.float64 if fields["several"] else np.int64
        fields["labels"] = np.asarray(fields["labels"], dtype=dtype)[rows]
        fields["folds"] = np.asarray(fields["folds"], dtype=np.int64)[rows]
        features = fields.get("features") or {}
        fields["features"] = {name: np.asarray(features[name], np.float32)[rows] for name in sorted(features)}
        if fields.get("foreground") is not None:
            fields["foreground"] = np.asarray(fields["foreground"], dtype=np.float64)[members][:, rows]
        return cls(**{**fields, "classes": tuple(fields["classes"])})

    @classmethod
    def unlabelled(
        cls,
        ids: Sequence[str],
        members: Sequence[str],
        classes: Sequence[str],
        several: bool,
        probabilities: NDArray[Any],
        features: Mapping[str, NDArray[np.float32]] | None = None,
    ) -> "Rows":
        """Rows of images of which only the predictions are known, in any order; each is a group of its own."""
        labels = np.full((len(ids), len(classes)), np.nan) if several else np.full(len(ids), UNKNOWN_LABEL)
        return cls.sorted(
            ids=ids,
            groups=ids,
            contents=ids,
            labels=labels,
            classes=classes,
            several=several,
            members=members,
            probabilities=probabilities,
            folds=np.full(len(ids), -1),
            features=features,
        )

    @property
    def num_members(self) -> int:
        """M."""
        return len(self.members)

    @cached_property
    def truth(self) -> Floats:
        """``(N, K)`` of 0 and 1, NaN where it is not known."""
        return self.labels if self.several else one_hot_labels(self.labels, len(self.classes))

    @cached_property
    def likelihoods(self) -> Floats:
        """``(M, N, J)``: the probability that each member gives to what is true, NaN where that is not known.

        J = 1 with one class per image; K where several may be shown: of an absent class it is 1 - p.
        """
        if self.several:
            values = np.where(self.truth == 1, self.probabilities, 1 - self.probabilities)
            return np.asarray(np.where(np.isnan(self.truth), np.nan, values))
        known = self.labels != UNKNOWN_LABEL
        true = self.probabilities[:, np.arange(len(self.ids)), np.where(known, self.labels, 0)]
        return np.asarray(np.where(known, true, np.nan))[..., None]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of everything that a fit may read: equal digests, equal results."""
        sha = hashlib.sha256(repr((self.ids, self.groups, self.contents, self.classes, self.members)).encode())
        arrays = [self.labels, self.probabilities, self.folds, *self.features.values()]
        for array in [*arrays, np.zeros(0) if self.foreground is None else self.foreground]:
            sha.update(repr((array.shape, array.dtype.str)).encode())
            sha.update(array.tobytes())
        return sha.hexdigest()

    def take(self, chosen: NDArray[Any]) -> "Rows":
        """Some of the rows, by indices or a mask, in the canonical order."""
        index = np.flatnonzero(chosen) if chosen.dtype == np.bool_ else np.unique(chosen)
        return replace(
            self,
            ids=tuple(self.ids[i] for i in index),
            groups=tuple(self.groups[i] for i in index),
            contents=tuple(self.contents[i] for i in index),
            labels=self.labels[index],
            probabilities=self.probabilities[:, index],
            folds=self.folds[index],
            features={name: values[index] for name, values in self.features.items()},
            foreground=None if self.foreground is None else self.foreground[:, index],
        )

    def of_members(self, names: Iterable[str]) -> "Rows":
        """The same rows of some of the members.

        Raises:
            ValueError: a member is not there.
        """
        chosen = sorted(set(names))
        if unknown := sorted(set(chosen) - set(self.members)):
            raise ValueError(
                f"Members should be among {', '.join(self.members)}. Found {', '.join(unknown)}. Name members whose "
                "rows were gathered."
            )
        index = [self.members.index(name) for name in chosen]
        return replace(
            self,
            members=tuple(chosen),
            probabilities=self.probabilities[index],
            features={name: values for name, values in self.features.items() if name in chosen},
            foreground=None if self.foreground is None else self.foreground[index],
        )

    def labelled(self) -> "Rows":
        """The rows of whose labels something is known: what a fit reads.

        Raises:
            ValueError: there is none.
        """
        known = np.asarray(np.isfinite(self.truth).any(axis=1))
        if not known.any():
            raise ValueError("At least one row should have a label. Found none. Give rows of labelled images.")
        return self if known.all() else self.take(known)


def _check_names(rows: Rows) -> None:
    for name, values in (("ids", rows.ids), ("members", rows.members)):
        if not values:
            raise ValueError(f"`{name}` should hold at least one. Found none. Gather runs that predicted images.")
        if any(one >= other for one, other in pairwise(values)):
            raise ValueError(f"`{name}` should be sorted and unlike. Found others. Make them with `Rows.sorted`.")
    if len(rows.classes) < (1 if rows.several else 2) or len(set(rows.classes)) < len(rows.classes):
        raise ValueError(f"`classes` should be two or more unlike names. Found {', '.join(rows.classes) or 'none'}.")


def _check_arrays(rows: Rows) -> None:
    num, members, classes = len(rows.ids), len(rows.members), len(rows.classes)
    shapes = {
        "groups": (len(rows.groups), num),
        "contents": (len(rows.contents), num),
        "labels": (rows.labels.shape, (num, classes) if rows.several else (num,)),
        "probabilities": (rows.probabilities.shape, (members, num, classes)),
        "folds": (rows.folds.shape, (num,)),
        **{f"features[{name}]": (values.shape[:1], (num,)) for name, values in rows.features.items()},
    }
    if rows.foreground is not None:
        shapes["foreground"] = (rows.foreground.shape, (members, num))
    for name, (found, wanted) in shapes.items():
        if found != wanted:
            raise ValueError(f"`{name}` should be of size {wanted}. Found {found}.")
    if unknown := sorted(set(rows.features) - set(rows.members)):
        raise ValueError(f"`features` should be of members. Found others: {', '.join(unknown)}.")
    for name, values in rows.features.items():
        if not np.isfinite(values).all():
            raise ValueError(f"`features` should be finite. Found others of {name}. Leave that member out.")
    inside = (rows.probabilities >= 0) & (rows.probabilities <= 1)  # false of NaN
    sums = rows.probabilities.sum(axis=2)
    proper = inside.all(axis=2) if rows.several else inside.all(axis=2) & (np.abs(sums - 1) <= SUM_TOLERANCE)
    if not proper.all():
        member, row = np.argwhere(~proper)[0]
        rule = "lie in [0, 1]" if rows.several else "lie in [0, 1] and add up to 1"
        raise ValueError(
            f"Probabilities should {rule}. Found {rows.probabilities[member, row]} of {rows.members[member]} for "
            f"{rows.ids[row]}. Leave that member out, or predict with it again."
        )
    if rows.several:
        valid = np.isnan(rows.labels) | (rows.labels == 0) | (rows.labels == 1)
    else:
        valid = (rows.labels >= UNKNOWN_LABEL) & (rows.labels < classes)
    if not valid.all():
        rule = "0, 1 or NaN" if rows.several else f"-1 or in [0, {classes})"
        raise ValueError(f"`labels` should be {rule}. Found {rows.labels[~valid].ravel()[0]}.")
