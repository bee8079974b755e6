"""What travels between the process that listens and the one that computes, and what a model has to be able to do."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from hsl.exporting.prediction import Prediction
from hsl.heads import Head

Work = Literal["predict", "segment"]
Format = Literal["png", "overlay", "rle", "polygons", "objects"]
JSON = "application/json"


class Verdict(Protocol):
    """What a gate says of a picture, see `hsl.serving`'s models."""

    @property
    def accepted(self) -> bool: ...
    @property
    def reasons(self) -> Sequence[str]: ...
    @property
    def scores(self) -> Mapping[str, float]: ...


class Served(Protocol):
    """A model as the server sees it: of a run folder, an ensemble or an artefact."""

    @property
    def heads(self) -> Mapping[str, Head]:
        """What the outputs are, by name."""

    @property
    def gated(self) -> bool:
        """Whether there is a gate."""

    def decode(self, data: bytes, name: str) -> NDArray[np.uint8]:
        """RGB ``uint8 (H, W, 3)``, upright.

        Raises:
            DataError: the picture cannot be read.
        """

    def predict_many(self, images: Sequence[NDArray[np.uint8]]) -> list[Prediction]:
        """What the model says of pictures of any sizes, in their order."""

    def judge(self, image: NDArray[np.uint8], said: Prediction) -> Verdict | None:
        """What the gate says; ``None`` without one."""

    def card(self) -> str:
        """What the model is, for people, in Markdown; no path of this machine."""


OpenModel = Callable[[], Served]
"""Opens the model in the process that computes; can be pickled."""


@dataclass(frozen=True)
class Facts:
    """What the process that listens knows of a model.

    Attributes:
        heads: what the outputs are, by name.
        card: see `Served.card`.
        gated: whether there is a gate.
    """

    heads: Mapping[str, Head]
    card: str
    gated: bool

    @classmethod
    def of(cls, model: Served) -> "Facts":
        """Those of an opened model."""
        return cls(dict(model.heads), model.card(), model.gated)

    def masked(self, name: str | None) -> Head | None:
        """The dense head of a name; without one ``segmentation``, else the first; ``None`` where there is none."""
        dense = [head for head in self.heads.values() if head.kind == "dense" and not head.several]
        if name is None:
            return next((head for head in dense if head.name == "segmentation"), dense[0] if dense else None)
        return next((head for head in dense if head.name == name), None)


@dataclass(frozen=True)
class Question:
    """What a request asks of one picture.

    Attributes:
        work: the path that was called.
        data: the picture as it was sent.
        pixels: height times width, from its header.
        format: of the masks.
        head: whose masks.
        force: whether the gate's verdict does not stop the answer.
    """

    work: Work
    data: bytes = field(repr=False)
    pixels: int
    format: Format = "png"
    head: str = ""
    force: bool = False


@dataclass(frozen=True)
class Answer:
    """What a request is answered."""

    status: int
    body: bytes = field(repr=False)
    media_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


class RefusedError(Exception):
    """Why a request is not answered as it asks: a status, a code that stays the same, a sentence for people."""

    def __init__(self, status: int, code: str, sentence: str, retry_after_s: int | None = None, **further: Any) -> None:
        super().__init__(status, code, sentence)
        self.status, self.code, self.sentence = status, code, sentence
        self.retry_after_s, self.further = retry_after_s, further

    def answer(self) -> Answer:
        """As JSON: ``{"code": ..., "error": ...}``."""
        headers = {} if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)}
        return Answer(self.status, as_json({"code": self.code, "error": self.sentence, **self.further}), JSON, headers)


def as_json(content: Any) -> bytes:
    """ASCII, so that it may stand in a header too; a number that is none is refused.

    Example:
        >>> as_json({"leaf": 0.5})
        b'{"leaf": 0.5}'
    """
    return json.dumps(content, allow_nan=False).encode()
