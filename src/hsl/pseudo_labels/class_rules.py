"""Rules that the mask of a class has to keep, such as ``symptom > 0.01 and foreground > 0.1``.

A rule speaks of the share that each class has of all pixels of a picture, the uncertain ones counted with them, and of
``foreground``, the share of all classes but the background. It knows numbers, ``+ - * /``, comparisons (also chained),
``and``, ``or``, ``not`` and parentheses, nothing else. A class name that is no word of Python is written with
underscores (``leaf spot`` as ``leaf_spot``, ``2nd`` as ``_2nd``). x / 0 is infinite; with 0 / 0 every comparison but
``!=`` is false.
"""

import ast
import keyword
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hsl.errors import ConfigError

Shares = Mapping[str, float]
Number = Callable[[Shares], float]
Truth = Callable[[Shares], bool]
_ARITHMETIC: dict[type[ast.AST], Callable[[float, float], float]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: np.divide,
}  # fmt: skip
_COMPARISONS: dict[type[ast.AST], Callable[[float, float], bool]] = {
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
    ast.Eq: operator.eq, ast.NotEq: operator.ne,
}  # fmt: skip


@dataclass(frozen=True)
class ClassRule:
    """A rule that was understood.

    Attributes:
        text: as it was written.
        names: what the rule calls each class, in the order of the class indices.
    """

    text: str
    names: tuple[str, ...]
    _truth: Truth = field(repr=False, compare=False)

    def holds(self, mask: NDArray[np.uint8]) -> bool:
        """Whether the mask ``(H, W)`` keeps the rule; 255 is uncertain."""
        counts = np.bincount(mask.ravel(), minlength=256)[: len(self.names)] / mask.size
        shares = dict(zip(self.names, counts.astype(np.float64), strict=True))
        with np.errstate(divide="ignore", invalid="ignore"):  # the rule's text is the user's, and x / 0 has its meaning
            return bool(self._truth({**shares, "foreground": counts[1:].sum()}))


def parse_rule(text: str, classes: Sequence[str]) -> ClassRule:
    """Understand a rule.

    Args:
        text: the rule.
        classes: class names, the background first.

    Raises:
        ConfigError: the text is no rule, or it names what is neither a class nor ``foreground``.

    Example:
        >>> rule = parse_rule("spot > 0.2 and foreground <= 0.5", ["background", "spot"])
        >>> rule.holds(np.array([[0, 0, 1, 255]], np.uint8)), rule.holds(np.array([[0, 1, 1, 1]], np.uint8))
        (True, False)
    """
    names = tuple(_word(name) for name in classes)
    if len({*names, "foreground"}) <= len(names):
        raise ConfigError(
            f"The class names should differ as words of a rule, and from `foreground`. Found {list(names)} for "
            f"{list(classes)}. Rename a class."
        )
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # what ast.parse raises on bad text
        raise _unparsable(text, str(error)) from error
    return ClassRule(text, names, _Reader(text, (*names, "foreground")).truth(tree.body))


@dataclass(frozen=True)
class _Reader:
    text: str
    known: tuple[str, ...]

    def truth(self, node: ast.expr) -> Truth:
        match node:
            case ast.BoolOp(op=op, values=values):
                parts, together = [self.truth(value) for value in values], all if isinstance(op, ast.And) else any
                return lambda shares: together(part(shares) for part in parts)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                inner = self.truth(operand)
                return lambda shares: not inner(shares)
            case ast.Compare(left=left, ops=ops, comparators=right) if all(type(op) in _COMPARISONS for op in ops):
                terms, compare = [self.number(term) for term in (left, *right)], [_COMPARISONS[type(op)] for op in ops]
                return lambda shares: _chain([term(shares) for term in terms], compare)
        raise _unparsable(self.text, f"`{ast.unparse(node)}` is no comparison")

    def number(self, node: ast.expr) -> Number:
        match node:
            case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
                return lambda _: value
            case ast.Name(id=name):
                if name not in self.known:
                    raise ConfigError(
                        f"The rule `{self.text}` should speak of {', '.join(self.known)}. Found `{name}`. "
                        "Correct the name."
                    )
                return lambda shares: shares[name]
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                inner = self.number(operand)
                return lambda shares: -inner(shares)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
                first, second, calculate = self.number(left), self.number(right), _ARITHMETIC[type(op)]
                return lambda shares: calculate(first(shares), second(shares))
        raise _unparsable(self.text, f"`{ast.unparse(node)}` is no share, number or + - * / of them")


def _chain(values: Sequence[float], compare: Sequence[Callable[[float, float], Any]]) -> bool:
    return all(test(a, b) for test, a, b in zip(compare, values, values[1:], strict=False))


def _word(name: str) -> str:
    word = re.sub(r"\W", "_", name, flags=re.ASCII)
    return f"_{word}" if not word or word[0].isdigit() or keyword.iskeyword(word) else word


def _unparsable(text: str, why: str) -> ConfigError:
    return ConfigError(
        f"A class rule should be a comparison of shares, such as `foreground > 0.1 and not leaf / foreground < 0.5`. "
        f"Found `{text}`: {why}. Correct it."
    )
