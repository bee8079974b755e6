"""The spot check of pseudo-labels as training needs it: which pictures are looked at, and what the answers mean."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hsl.data.labels.label_table import TIERS, LabelRow, LabelTable, read_labels, read_labels_json
from hsl.errors import DataError

REVIEW = "review.json"
Answer = Literal["accept", "marginal", "reject"]
Share = Annotated[float, Field(ge=0, le=1)]


class Thresholds(BaseModel):
    """Least accepted share of a tier."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)
    A: Share = 0.9
    B: Share = 0.7


class Settings(BaseModel):
    """What decides which pictures are looked at and when the labels pass.

    Args:
        per_class_and_tier: So many pictures of each image class and tier at most.
        seed: Which ones.
        thresholds: Least accepted share of tier A and of tier B.
        max_c_share: Largest share of the data that tier C may have.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)
    per_class_and_tier: Annotated[int, Field(ge=1)] = 10
    seed: Annotated[int, Field(ge=0)] = 0
    thresholds: Thresholds = Thresholds()
    max_c_share: Share = 0.3


class Review(BaseModel):
    """The content of ``review.json``: the pictures looked at in their order, each with its answer or ``None``.

    Args:
        verdicts: Of the sample, which alone decides.
        flagged: Of the refined labels that disagree most with the first ones. A picture may be in both.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    format: Literal[1] = 1
    data: str
    labels_sha256: str
    settings: Settings
    verdicts: dict[str, Answer | None]
    flagged: dict[str, Answer | None] = {}
    verdict: dict[str, Any]
    updated: str

    @property
    def answers(self) -> dict[str, Answer | None]:
        """Every picture with its answer, the flagged ones first."""
        return {**self.flagged, **self.verdicts}


@dataclass(frozen=True)
class TierCount:
    """Answers in one tier; ``share`` is accepted / looked at, ``None`` where none was."""

    accepted: int
    marginal: int
    rejected: int
    left: int
    share: float | None


@dataclass(frozen=True)
class ReviewVerdict:
    """What the answers mean for training; ``reasons`` says why not, and that B was demoted."""

    passed: bool
    demote_b: bool
    left: int
    tiers: dict[str, TierCount]
    c_share: float
    reasons: tuple[str, ...]


def sample(rows: Sequence[LabelRow], per_class_and_tier: int = 10, seed: int = 0) -> list[str]:
    """Ids of the pictures to look at, class by class with the tiers mixed.

    Of each image class and tier those with the smallest SHA-256 of seed and id: the same on every machine, and a
    picture more in the data changes one place at most.

    Returns:
        Ids, at most ``per_class_and_tier`` of each class and tier; all of them where there are fewer.
    """
    groups: dict[tuple[str, str], list[LabelRow]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: _lot(row, seed)):
        groups[row.label, row.tier].append(row)
    chosen = [row for group in groups.values() for row in group[:per_class_and_tier]]
    return [row.id for row in sorted(chosen, key=lambda row: (row.label, _lot(row, seed)))]


def judge_labels(rows: Sequence[LabelRow], verdicts: Mapping[str, Answer | None], settings: Settings) -> ReviewVerdict:
    """Whether the labels may be trained on (definitions 9.5).

    A marginal picture counts as not accepted. Tier A below its threshold fails. Tier B below its own becomes C, which
    passes unless C is then too large a share of the data. Nothing passes before every picture has its answer.

    Args:
        rows: All labelled pictures.
        verdicts: Id of each picture to look at -> its answer, ``None`` without.
        settings: Thresholds.

    Example:
        >>> rows = [LabelRow(str(i), "rust", "AAAC"[i], 1, 0, 0.1, True, "gradcam", "") for i in range(4)]
        >>> verdict = judge_labels(rows, {"0": "accept", "1": "accept", "2": "marginal", "3": "reject"}, Settings())
        >>> verdict.passed, verdict.c_share
        (False, 0.25)
        >>> verdict.reasons
        ('Tier A: 2 of 3 accepted (66.7 %), at least 90 % are needed.',)
    """
    tier_of = {row.id: row.tier for row in rows}
    tiers = {tier: _count([answer for id, answer in verdicts.items() if tier_of[id] == tier]) for tier in TIERS}
    left = sum(count.left for count in tiers.values())
    a_fails = left == 0 and _below(tiers["A"], settings.thresholds.A)
    demote_b = left == 0 and _below(tiers["B"], settings.thresholds.B)
    in_c = ("B", "C") if demote_b else ("C",)
    c_share = sum(row.tier in in_c for row in rows) / len(rows)
    reasons = []
    if left:
        reasons.append(f"{left} of {len(verdicts)} pictures are not judged yet.")
    if a_fails:
        reasons.append(_sentence("A", tiers["A"], settings.thresholds.A))
    if demote_b:
        reasons.append(f"{_sentence('B', tiers['B'], settings.thresholds.B)} Its pictures become tier C.")
    if c_share > settings.max_c_share:
        allowed = _percent(settings.max_c_share)
        reasons.append(f"Tier C is {_percent(c_share)} of the data, at most {allowed} is allowed.")
    passed = left == 0 and not a_fails and c_share <= settings.max_c_share
    return ReviewVerdict(passed, demote_b, left, tiers, c_share, tuple(reasons))


def _lot(row: LabelRow, seed: int) -> str:
    return hashlib.sha256(f"{seed}/{row.id}".encode()).hexdigest()


def _count(answers: Sequence[Answer | None]) -> TierCount:
    accepted, marginal, rejected = (answers.count(each) for each in ("accept", "marginal", "reject"))
    judged = accepted + marginal + rejected
    return TierCount(accepted, marginal, rejected, len(answers) - judged, accepted / judged if judged else None)


def _below(count: TierCount, threshold: float) -> bool:
    return count.share is not None and count.share < threshold


def _sentence(tier: str, count: TierCount, threshold: float) -> str:
    judged = count.accepted + count.marginal + count.rejected
    share = _percent(count.accepted / judged)
    return f"Tier {tier}: {count.accepted} of {judged} accepted ({share}), at least {_percent(threshold)} are needed."


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def read_review(labels: LabelTable) -> Review | None:
    """The review of these labels; ``None`` where none was begun.

    Raises:
        DataError: The file is damaged, or belongs to other data or another labelling.
    """
    path = labels.folder / REVIEW
    if not path.exists():
        return None
    try:
        review = Review.model_validate(read_labels_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise DataError(f"`{path}` is no review: `{place}`: {first['msg']}. Move it away and review anew.") from None
    if review.data != labels.data:
        found = f"made for the data set {labels.data}. Found one of {review.data}"
    elif review.labels_sha256 != labels.sha256:
        found = "made for this labelling. Found one of another: labels.csv was written anew since"
    elif set(review.verdicts) != set(sample(labels.rows, review.settings.per_class_and_tier, review.settings.seed)):
        found = "made of the pictures that its settings choose. Found others"
    else:
        return review
    raise DataError(f"`{path}` should be {found}. Move it away, then begin anew: `hsl label review`.")


def checked(folder: Path) -> dict[str, Any]:
    """What a passed spot check says, for the record of a training run.

    The answers are judged anew; what the file says of its verdict is not trusted.

    Returns:
        ``passed`` (true), ``demote_b``, ``left``, ``tiers``, ``c_share``, ``reasons``, ``settings``, ``labels_sha256``.

    Raises:
        DataError: No review was made, it is not finished, it failed, or it is of other labels.
    """
    labels = read_labels(folder)
    review = read_review(labels)
    way_out = f"Judge them with `hsl label review labels={folder}`, or set `data.labels.unchecked=true`."
    if review is None:
        raise DataError(f"`{folder}` should have passed its spot check. Found no {REVIEW}. {way_out}")
    verdict = judge_labels(labels.rows, review.verdicts, review.settings)
    if not verdict.passed:
        way_out = way_out if verdict.left else "Label anew with other settings, or set `data.labels.unchecked=true`."
        raise DataError(f"`{folder}` should have passed its spot check. Found: {' '.join(verdict.reasons)} {way_out}")
    return {**asdict(verdict), "settings": review.settings.model_dump(), "labels_sha256": labels.sha256}
