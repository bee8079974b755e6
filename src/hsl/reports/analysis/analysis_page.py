"""The page of an analysis, in Markdown: what ``analysis.json`` says, with the pictures."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hsl.reports.tables.score_tables import markdown_row, markdown_texts

SHOWN = 30  # ids in a list


def analysis_page(content: Mapping[str, Any]) -> str:
    """The text of ``index.md``.

    Args:
        content: of ``analysis.json``.
    """
    shown = markdown_texts(content)
    return "\n".join(
        line
        for part in (_head, _heat_maps, _attention, _stages, _similarity, _errors, _definitions)
        for line in (*part(shown), "")
    )


def _head(content: Mapping[str, Any]) -> Iterator[str]:
    yield f"# {content['data']}: what {len(content['runs'])} trained classifiers look at"
    yield ""
    yield (
        f"{content['num_pictures']} pictures of the {content['part']} part, fold {content['fold']}, "
        f"{len(content['classes'])} image classes. The test part was not read."
    )
    yield ""
    rows = [
        [run["label"], run["encoder"], f"{run['num_wrong']} ({_percent(run['error_rate'])})", f"`{run['run']}`"]
        for run in content["runs"]
    ]
    yield from _table(["run", "encoder", "wrong", "folder"], rows)
    for note in content["notes"]:
        yield ""
        yield f"Note: {note}"


def _heat_maps(content: Mapping[str, Any]) -> Iterator[str]:
    yield "## Where they look"
    yield ""
    yield f"![mean heat map of each class and run]({content['files']['overview']})"
    for run in content["runs"]:
        yield ""
        yield f"### {run['label']}"
        yield ""
        yield f"![heat maps of {run['label']}]({run['heat_maps']})"


def _attention(content: Mapping[str, Any]) -> Iterator[str]:
    yield "## Attention inside the foreground"
    yield ""
    if "attention_plot" not in content["files"]:
        yield "Left out: no picture has a mask with foreground and a heat map."
        return
    yield f"![attention inside the foreground]({content['files']['attention_plot']})"
    yield ""
    rows = [
        [run["label"], name, one["num_pictures"], one["left_out"], _percent(one["share"]), _percent(one["area"]),
         _number(one["ratio"])]
        for run in content["runs"]
        for name, one in run["attention"].items()
    ]  # fmt: skip
    yield from _table(["run", "class", "pictures", "left out", "attention inside", "area (chance)", "ratio"], rows)


def _stages(content: Mapping[str, Any]) -> Iterator[str]:
    yield "## What the stages give"
    yield ""
    yield f"![activations per stage]({content['files']['stages_plot']})"
    yield ""
    rows = [
        [run["label"], stride, one["num_channels"], _number(one["mean"]), _number(one["std"]), one["num_dead"],
         _percent(one["dead_share"])]
        for run in content["runs"]
        for stride, one in run["stages"].items()
    ]  # fmt: skip
    yield from _table(["run", "stride", "channels", "mean", "std", "dead", "dead share"], rows)


def _similarity(content: Mapping[str, Any]) -> Iterator[str]:
    yield "## How alike their features are"
    yield ""
    yield "Linear CKA of the last features: 1 is alike, about 0 unrelated."
    yield ""
    labels = [run["label"] for run in content["runs"]]
    rows = [[label, *map(_number, row)] for label, row in zip(labels, content["feature_similarity"], strict=True)]
    yield from _table(["run", *labels], rows)


def _errors(content: Mapping[str, Any]) -> Iterator[str]:
    errors, labels = content["errors"], [run["label"] for run in content["runs"]]
    yield "## Errors"
    yield ""
    yield f"Wrong in every run: {_names(errors['wrong_in_all'])}."
    if "wrong_in_all" in content["files"]:
        yield ""
        yield f"![pictures that every run gets wrong]({content['files']['wrong_in_all']})"
    yield ""
    yield "Wrong in one run alone:"
    yield ""
    for label in labels:
        yield f"- {label}: {_names(errors['wrong_in_one'][label])}"
    yield ""
    yield "Overlap of the errors (wrong in both / wrong in either):"
    yield ""
    rows = [[label, *map(_number, row)] for label, row in zip(labels, errors["overlap"], strict=True)]
    yield from _table(["run", *labels], rows)
    for i, label in enumerate(labels, start=1):
        if (key := f"confused_{i:02d}") in content["files"]:
            yield ""
            yield f"![classes that {label} confuses most]({content['files'][key]})"


def _definitions(content: Mapping[str, Any]) -> Iterator[str]:
    yield "## How the numbers are defined"
    yield ""
    for name, text in content["definitions"].items():
        yield f"- **{name.replace('_', ' ')}**: {text}"


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    yield markdown_row(columns)
    yield markdown_row(["---"] * len(columns))
    for row in rows:
        yield markdown_row(row)


def _names(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
    return f"{len(ids)} ({', '.join(ids[:SHOWN])}{more})" if ids else "none"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
