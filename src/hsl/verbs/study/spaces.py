"""Search spaces: what may vary, checked before any training, and how a point becomes words of train.py."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeGuard

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import BaseTrial

from hsl.errors import ConfigError

Value = str | int | float | bool | None
KEYS = ("low", "high", "log", "step", "choices", "when")
_BARE = re.compile(r"(?!(?i:true|false|null|nan|inf)$)[A-Za-z_][\w./-]*")  # what Hydra reads as text
FORMS = (
    "`{low: 1.0e-4, high: 1.0e-2, log: true}`, `{low: 1, high: 8}` (whole numbers), `{low: 0.0, high: 1.0, step: 0.1}` "
    "or `{choices: [a, b]}`"
)


@dataclass(frozen=True)
class Dimension:
    """One key of the config, or one group, that varies.

    Attributes:
        key: as it stands on the command line, ``optimizer.lr``, ``encoder``.
        low: smallest value; whole numbers on both ends make a whole number.
        high: largest value.
        log: whether it is drawn evenly on a logarithmic scale.
        step: between the values; ``None``: any, of whole numbers 1.
        choices: instead of a range.
        when: key -> values: it varies only where these other dimensions have one of these values.
    """

    key: str
    low: float | int = 0
    high: float | int = 0
    log: bool = False
    step: float | int | None = None
    choices: tuple[Value, ...] = ()
    when: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)

    @property
    def is_whole(self) -> bool:
        """Whether it is drawn among whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def distribution(self) -> BaseDistribution:
        """What Optuna draws from."""
        if self.choices:
            return CategoricalDistribution(self.choices)
        if self.is_whole:
            return IntDistribution(int(self.low), int(self.high), log=self.log, step=int(self.step or 1))
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)

    @property
    def ends(self) -> tuple[Value, ...]:
        """Values to try a config with: both ends, or every choice."""
        return self.choices or (self.low, self.high)

    def suggest(self, trial: BaseTrial) -> Value:
        """The value of a trial."""
        if self.choices:
            chosen: Value = trial.suggest_categorical(self.key, list(self.choices))
            return chosen
        if self.is_whole:
            return trial.suggest_int(self.key, int(self.low), int(self.high), step=int(self.step or 1), log=self.log)
        return trial.suggest_float(self.key, self.low, self.high, step=self.step, log=self.log)

    def holds(self, value: Any) -> bool:
        """Whether a value lies in it."""
        return bool(self.distribution._contains(self.distribution.to_internal_repr(value)))  # no public way

    def within(self, other: "Dimension") -> bool:
        """Whether it is `other` or a part of it, drawn alike."""
        if bool(self.choices) != bool(other.choices) or self.when != other.when:
            return False
        if self.choices:
            return set(self.choices) <= set(other.choices)
        alike = (self.is_whole, self.log, self.step) == (other.is_whole, other.log, other.step)
        return alike and other.low <= self.low and self.high <= other.high


def read_space(content: Any) -> dict[str, Dimension]:
    """The dimensions of ``study.space``, in their order.

    Raises:
        ConfigError: one is not drawable; all findings at once.
    """
    findings: list[str] = []
    space: dict[str, Dimension] = {}
    if not isinstance(content, Mapping):
        raise ConfigError(f"`study.space` should hold keys, each one of {FORMS}. Found `{content}`.")
    for key, given in content.items():
        before = len(findings)
        findings += _findings(str(key), given, space)
        if len(findings) == before:
            when = {name: tuple(_listed(values)) for name, values in (given.get("when") or {}).items()}
            rest = {name: given[name] for name in ("low", "high", "log", "step") if given.get(name) is not None}
            space[str(key)] = Dimension(str(key), **rest, choices=tuple(given.get("choices") or ()), when=when)
    if not content:
        findings.append(
            "`study.space` should have a key at least. Found none. Choose a study of conf/study/ that has some."
        )
    if findings:
        raise ConfigError(" ".join(findings))
    return space


def _listed(values: Any) -> Sequence[Value]:
    return values if isinstance(values, list | tuple) else [values]


def _findings(key: str, given: Any, space: Mapping[str, Dimension]) -> list[str]:
    name = f"study.space.{key}"
    if not isinstance(given, Mapping) or not given.keys() <= set(KEYS):
        unknown = sorted(given.keys() - set(KEYS)) if isinstance(given, Mapping) else []
        what = f"the words {unknown}" if unknown else f"`{given}`"
        return [f"`{name}` should be one of {FORMS}. Found {what}."]
    if ("choices" in given) == ("low" in given or "high" in given) or ("low" in given) != ("high" in given):
        return [f"`{name}` should have both `low` and `high`, or `choices`. Found {sorted(given)}."]
    findings = _of_choices(name, given) if "choices" in given else _of_range(name, given)
    for other, values in (given.get("when") or {}).items():
        known = space.get(other)
        if known is None:
            findings.append(
                f"`{name}.when` should name keys that stand before it. Found `{other}`. They are {list(space)}."
            )
        elif outside := [one for one in _listed(values) if not _drawn(known, one)]:
            findings.append(f"`{name}.when.{other}` should hold values that it can have. Found `{outside[0]}`.")
    return findings


def _drawn(dimension: Dimension, value: Any) -> bool:
    return value in dimension.choices if dimension.choices else _is_number(value) and dimension.holds(value)


def _of_choices(name: str, given: Mapping[str, Any]) -> list[str]:
    choices = given["choices"]
    plain = isinstance(choices, list | tuple) and all(
        one is None or isinstance(one, str | int | float | bool) for one in choices
    )
    if not plain or not choices:
        return [f"`{name}.choices` should be a list of plain values, one at least. Found `{choices}`."]
    if len({json.dumps(one) for one in choices}) < len(choices):
        return [f"`{name}.choices` should name none twice. Found `{choices}`."]
    return [
        f"`{name}` should have `{word}` only in a range." for word in ("log", "step") if given.get(word) is not None
    ]


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _of_range(name: str, given: Mapping[str, Any]) -> list[str]:
    low, high, log, step = (given.get("low"), given.get("high"), given.get("log"), given.get("step"))
    if not (_is_number(low) and _is_number(high)):
        return [
            f"`{name}` should have numbers for `low` and `high`. Found `{low}` and `{high}`. YAML reads 1e-4 as "
            "text: write 1.0e-4."
        ]
    findings = []
    if not low < high:
        findings.append(f"`{name}` should have `low` below `high`. Found {low} and {high}.")
    if log not in (None, True, False):
        findings.append(f"`{name}.log` should be true or false. Found `{log}`.")
    if log and not low > 0:
        findings.append(f"`{name}.low` should be above 0 for `log: true`. Found {low}. There is no logarithm of it.")
    if step is not None and not (_is_number(step) and 0 < step <= high - low):
        findings.append(f"`{name}.step` should be above 0, at most high - low. Found `{step}`.")
    whole = isinstance(low, int) and isinstance(high, int)
    if step is not None and whole and not isinstance(step, int):
        findings.append(
            f"`{name}.step` should be a whole number, as `low` and `high` are. Found {step}. Write "
            f"`low: {float(low)}` for any number."
        )
    if step is not None and log:
        findings.append(f"`{name}` should have `step` or `log`, not both.")
    return findings


def suggest(trial: BaseTrial, space: Mapping[str, Dimension]) -> dict[str, Value]:
    """The point of a trial: key -> value, of the dimensions that vary there."""
    point: dict[str, Value] = {}
    for key, dimension in space.items():
        if varies(dimension, point):
            point[key] = dimension.suggest(trial)
    return point


def varies(dimension: Dimension, point: Mapping[str, Value]) -> bool:
    """Whether a dimension varies where those before it have the values of a point."""
    return all(other in point and point[other] in values for other, values in dimension.when.items())


def words_of(point: Mapping[str, Value]) -> list[str]:
    """What stands behind train.py: groups first, since keys of an option exist only where it is chosen.

    Example:
        >>> words_of({"optimizer.lr": 0.001, "encoder": "mit_b0", "encoder.weights": None})
        ['encoder=mit_b0', 'optimizer.lr=0.001', 'encoder.weights=null']
    """
    ordered = sorted(point, key=lambda key: "." in key)
    return [f"{key}={_as_word(point[key])}" for key in ordered]


def quoted(text: object) -> str:
    """A text as a value of the command line, a path for instance."""
    escaped = str(text).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _as_word(value: Value) -> str:
    if isinstance(value, str):
        return value if _BARE.fullmatch(value) else quoted(value)
    return json.dumps(value)


def as_json(space: Mapping[str, Dimension]) -> dict[str, Any]:
    """For ``study.json``: plain lists and maps, equal to what is read again."""
    plain = {key: {name: value for name, value in asdict(one).items() if name != "key"} for key, one in space.items()}
    read: dict[str, Any] = json.loads(json.dumps(plain))
    return read


def from_json(content: Mapping[str, Any]) -> dict[str, Dimension]:
    """What `as_json` made."""
    return {
        key: Dimension(
            key, **{**one, "choices": tuple(one["choices"]), "when": {k: tuple(v) for k, v in one["when"].items()}}
        )
        for key, one in content.items()
    }


def whole_of(space: Mapping[str, Dimension], first: Mapping[str, Dimension]) -> dict[str, Dimension]:
    """The space to draw from: choices as the study began with them, which Optuna does not let change; see `fits`.

    Raises:
        ConfigError: the space is not the first one of the study, or a part of it.
    """
    unlike = [
        key for key in {**first, **space} if key not in first or key not in space or not space[key].within(first[key])
    ]
    if unlike:
        raise ConfigError(
            f"`study.space` should be that of the study, or a narrower one. Found another for {', '.join(unlike)}. "
            "Give the study of another space another `study.name`."
        )
    return {key: first[key] if first[key].choices else one for key, one in space.items()}


def fits(point: Mapping[str, Value], space: Mapping[str, Dimension]) -> bool:
    """Whether a point lies in a space that was narrowed."""
    return all(value in space[key].choices for key, value in point.items() if space[key].choices)


def drawn_points(study: optuna.Study) -> dict[str, int]:
    """Points that were drawn, as JSON, with the number of the first trial there."""
    points: dict[str, int] = {}
    for trial in study.get_trials(deepcopy=False):
        points.setdefault(point_key(trial.params), trial.number)
    return points


def point_key(point: Mapping[str, Any]) -> str:
    """A point as text, equal for equal points."""
    return json.dumps(dict(sorted(point.items())))
