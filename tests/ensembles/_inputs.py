"""Rows of members whose skill is known."""

from typing import Any

import numpy as np

from hsl.ensembles.rows import Rows


def rows_of(
    skills: dict[str, float] | list[float],
    num: int = 120,
    classes: int = 3,
    several: bool = False,
    group_size: int = 2,
    seed: int = 0,
    **others: Any,
) -> Rows:
    """Members see the truth through noise; a skill of 0 is noise alone. Labels are those of whole groups."""
    if isinstance(skills, list):
        skills = {f"m{i:02d}": skill for i, skill in enumerate(skills)}
    generator = np.random.default_rng(seed)
    num_groups = -(-num // group_size)
    of_group = (
        generator.integers(0, 2, (num_groups, classes)) if several else generator.integers(0, classes, num_groups)
    )
    group = np.arange(num) // group_size
    labels = of_group[group]
    truth = labels if several else np.eye(classes)[labels]
    logits = np.stack(
        [skill * 4 * (truth - 0.5) + generator.normal(size=(num, classes)) * 1.5 for skill in skills.values()]
    )
    probabilities = 1 / (1 + np.exp(-logits))
    if not several:
        probabilities = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    fields: dict[str, Any] = {
        "ids": [f"i{i:04d}" for i in range(num)],
        "groups": [f"g{i:04d}" for i in group],
        "contents": [f"c{i:04d}" for i in range(num)],
        "labels": labels,
        "classes": tuple("abcdefgh"[:classes]),
        "several": several,
        "members": list(skills),
        "probabilities": probabilities,
        "folds": group % 3,
        "features": {
            name: (truth * skill) @ generator.normal(size=(classes, 12)) + generator.normal(size=(num, 12))
            for name, skill in skills.items()
        },
        "foreground": np.clip(
            np.array(list(skills.values()))[:, None] / 2 + generator.uniform(0, 0.2, (len(skills), num)), 0, 1
        ),
    }
    return Rows.sorted(**fields | others)


def shuffled(rows: Rows, seed: int = 0) -> Rows:
    """Rows and members in another order, then made canonical."""
    generator = np.random.default_rng(seed)
    index, members = generator.permutation(len(rows.ids)), generator.permutation(rows.num_members)
    foreground = rows.foreground
    return Rows.sorted(
        **{name: [getattr(rows, name)[i] for i in index] for name in ("ids", "groups", "contents")},
        labels=rows.labels[index],
        classes=rows.classes,
        several=rows.several,
        members=[rows.members[i] for i in members],
        probabilities=rows.probabilities[members][:, index],
        folds=rows.folds[index],
        features={name: rows.features[name][index] for name in reversed(rows.features)},
        foreground=None if foreground is None else foreground[members][:, index],
    )


def labels_shuffled_within_groups(rows: Rows, seed: int = 0) -> Rows:
    """The labels of whole groups change places: nothing can be learnt, and groups still agree with themselves."""
    names = sorted(set(rows.groups))
    other = dict(zip(names, np.random.default_rng(seed).permutation(names), strict=True))
    first = {name: rows.groups.index(name) for name in names}
    labels = rows.labels[[first[other[name]] for name in rows.groups]]
    return relabelled(rows, labels)


def relabelled(rows: Rows, labels: Any) -> Rows:
    """The same rows with other labels."""
    from dataclasses import replace

    return replace(rows, labels=np.asarray(labels, dtype=rows.labels.dtype))
