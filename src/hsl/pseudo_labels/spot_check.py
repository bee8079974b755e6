"""Looking at a sample of the pseudo-labels and at the largest disagreements; each answer is kept in ``review.json``."""

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from hsl.data.labels.label_table import LabelTable, read_labels
from hsl.data.labels.review import REVIEW, Answer, Review, Settings, judge_labels, read_review, sample
from hsl.errors import ConfigError, DataError
from hsl.files.io import write_atomically
from hsl.files.locks import locked
from hsl.pseudo_labels.refine import read_agreement


def begin(folder: Path, settings: Settings) -> tuple[LabelTable, Review]:
    """Open the review of a folder of pseudo-labels, or go on with the one that was begun.

    Args:
        folder: What `hsl label` wrote.
        settings: Which pictures are looked at, and the thresholds; those of a review that was begun stay.

    Returns:
        The labels and the review, which lies in the folder.

    Raises:
        ConfigError: The review was begun with other settings.
        DataError: The folder holds no labels, or the review belongs to others.
    """
    labels = read_labels(folder)
    with locked(folder / f".{REVIEW}.lock"):
        review = read_review(labels)
        if review is None:
            chosen = sample(labels.rows, settings.per_class_and_tier, settings.seed)
            disagreeing = [row.id for row in read_agreement(labels) if row.flagged]
            review = _write(labels, settings, dict.fromkeys(chosen), dict.fromkeys(disagreeing))
    if review.settings != settings:
        unlike = {key: value for key, value in review.settings if value != getattr(settings, key)}
        raise ConfigError(
            f"The review in `{folder}` was begun with {_said(unlike)}. Found "
            f"{_said({key: getattr(settings, key) for key in unlike})}. Go on with the former values, or move "
            f"{REVIEW} away and begin anew."
        )
    return labels, review


def go_on(folder: Path) -> tuple[LabelTable, Review]:
    """The labels and their review as they lie on the disk now.

    Raises:
        DataError: One of them is gone, or they no longer belong together.
    """
    labels = read_labels(folder)
    review = read_review(labels)
    if review is None:
        raise DataError(f"`{folder / REVIEW}` is gone. Start `hsl label review` again.")
    return labels, review


def keep_answer(folder: Path, picture: str, verdict: Answer | None) -> Review:
    """Keep one answer; those that other windows gave in the meantime stay.

    Args:
        folder: Of the labels.
        picture: Its id.
        verdict: The answer; ``None`` takes it back.

    Returns:
        The review with it, as it lies on the disk.

    Raises:
        DataError: The picture is not in the review, or labels and review no longer belong together.
    """
    with locked(folder / f".{REVIEW}.lock"):
        labels, review = go_on(folder)
        if picture not in review.answers:
            raise DataError(f"`{picture}` is not one of the {len(review.answers)} pictures of this review.")
        given = [{**answers, picture: verdict} if picture in answers else answers for answers in
                 (review.verdicts, review.flagged)]  # fmt: skip
        return _write(labels, review.settings, *given)


def _write(
    labels: LabelTable, settings: Settings, verdicts: dict[str, Answer | None], flagged: dict[str, Answer | None]
) -> Review:
    review = Review(
        data=labels.data,
        labels_sha256=labels.sha256,
        settings=settings,
        verdicts=verdicts,
        flagged=flagged,
        verdict=asdict(judge_labels(labels.rows, verdicts, settings)),
        updated=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    write_atomically(labels.folder / REVIEW, review.model_dump_json(indent=1).encode())
    return review


def _said(values: dict[str, object]) -> str:
    return ", ".join(f"`{key} = {value}`" for key, value in values.items())
