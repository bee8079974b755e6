"""Ranges of numbers, as annotations of what a config calls; `hsl.config.calls` checks the values against them."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegativeFloat = Annotated[float, Field(ge=0)]
AtLeastOne = Annotated[float, Field(ge=1)]
Limit = Annotated[float, Field(gt=0, allow_inf_nan=True)]
"""Infinity is not allowed."""
Fraction = Annotated[float, Field(ge=0, le=1)]
FractionAboveZero = Annotated[float, Field(gt=0, le=1)]
FractionBelowOne = Annotated[float, Field(ge=0, lt=1)]

KEYS: Mapping[str, Any] = {
    "metrics.pool.workers": PositiveInt | Literal["auto"],
    "run": str,
    "runs": str | Sequence[str],
    "input": str,
    "output": str,
    "labels": str,
    "root": str,
    "output_root": str,
    "data.root": str,
    "classifiers": Sequence[str],
    "data.image_size": PositiveInt | Sequence[PositiveInt],
    "data.batch_size": PositiveInt,
    "seed": Seed,
    "fold": NonNegativeInt,
    "folds": Sequence[NonNegativeInt],
    "workers": PositiveInt | Literal["auto"],
    "devices": PositiveInt,
    "examples": NonNegativeInt,
    "resamples": PositiveInt,
    "num_pictures": NonNegativeInt,
    "num_parts": PositiveInt,
    "dpi": PositiveInt,
    "max_megapixels": PositiveFloat | None,
    "value_range": Sequence[float] | None,
    "sources": Mapping[str, PositiveFloat | None],
    "uncertain_below": FractionBelowOne,
    "per_class_and_tier": PositiveInt,
    "thresholds": Mapping[str, Fraction],
    "max_c_share": Fraction,
    "port": NonNegativeInt,
    "model": str,
    "gate": str | None,
    "host": str,
    "hosts": Sequence[str],
    "token": str | None,
    "token_file": str | None,
    "insecure": bool,
    "queue": PositiveInt,
    "batch": PositiveInt,
    "timeout_s": Limit,
    "upload_mb": Limit,
    "batch_sizes": Sequence[PositiveInt],
    "rounds": Mapping[str, PositiveInt],
    "attention": NonNegativeFloat,
    "min_miou": Fraction,
    "vote": PositiveInt,
    "percentile": Annotated[float, Field(gt=0, lt=100)],
    "default_threshold": Fraction,
    "min_component": NonNegativeFloat,
    "min_signal_confidence": Fraction,
    "k": PositiveInt,
    "coverage": Annotated[float, Field(gt=0, lt=1)],
    "nearest": NonNegativeInt,
    "per_class": PositiveInt,
    "more": NonNegativeInt,
    "shown": NonNegativeInt,
    "training_pictures": PositiveInt | None,
    "price_per_hour": Limit | None,
    "plans": Mapping[str, Mapping[Literal["share", "folds", "most_minutes"], PositiveFloat | Literal["all"] | None]],
}
"""What the keys of the verbs themselves may be; those of calls are annotated where they are received."""
