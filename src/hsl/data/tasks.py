"""How several heads read one mask, by a task definition or one a channel, and the head in which all are scored."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hsl.batch import IGNORE_INDEX
from hsl.channels import class_pixels, holds
from hsl.data.files.records import Catalogue
from hsl.data.formats.description import unfit_names
from hsl.errors import ConfigError
from hsl.files.io import check_regular

SHIPPED = Path(__file__).parent / "task_definitions"
REST = "other"
_NUM_VALUES = 256
# attributes of torch.nn.ModuleDict, which keeps a module for each task; they stand here so that an audit needs no torch
MODULE_WORDS = frozenset([
    "T_destination", "add_module", "apply", "bfloat16", "buffers", "call_super_init", "children", "clear",
    "compile", "cpu", "cuda", "double", "dump_patches", "eval", "extra_repr", "float", "forward", "get_buffer",
    "get_extra_state", "get_parameter", "get_submodule", "half", "ipu", "items", "keys", "load_state_dict",
    "modules", "mtia", "named_buffers", "named_children", "named_modules", "named_parameters", "parameters", "pop",
    "register_backward_hook", "register_buffer", "register_forward_hook", "register_forward_pre_hook",
    "register_full_backward_hook", "register_full_backward_pre_hook", "register_load_state_dict_post_hook",
    "register_load_state_dict_pre_hook", "register_module", "register_parameter", "register_state_dict_post_hook",
    "register_state_dict_pre_hook", "requires_grad_", "set_extra_state", "set_submodule", "share_memory",
    "state_dict", "to", "to_empty", "train", "type", "update", "values", "xpu", "zero_grad",
])  # fmt: skip

Table = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Heads:
    """The heads of a run: the tasks, and the global head that holds what the tasks tell apart together.

    Source classes that every task reads alike are one global class. Those that no task names are global class
    0. Where all source classes are told apart the global space is that of the data set, so that a flat model,
    whose only head is the global one, is scored on the same classes.

    Overlapping channels have a head of two classes each. Their global head keeps the codes of the source mask, and its
    classes are ``absent`` and the channels, counted as `hsl.channels.class_pixels` does.

    Attributes:
        classes: Class names by head; the global head is the last.
        tables: By head ``uint8 (256,)``: the class of every value of a source mask; 255 stays 255.
        global_head: Name of the global head.
        num_source_classes: Classes, or codes, of the data set.
        overlapping: Whether the heads are those of overlapping channels.
    """

    classes: Mapping[str, tuple[str, ...]]
    tables: Mapping[str, Table]
    global_head: str
    num_source_classes: int
    overlapping: bool = False

    @property
    def source_tables(self) -> dict[str, NDArray[np.int64]]:
        """By head of the network ``int64 (S,)``: its class of each class of the data set."""
        heads = [self.global_head] if self.flat else [head for head in self.tables if head != self.global_head]
        return {head: self._of_classes(head) for head in heads}

    @property
    def members(self) -> NDArray[np.int64]:
        """``int64 (S,)``: the global class of each class of the data set."""
        return self._of_classes(self.global_head)

    def global_mask(self, source: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The mask of the global head from that of the data set."""
        return source if self.flat else self.tables[self.global_head][source]

    def count(self, histogram: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
        """By head the pixels of each class ``(..., C)`` from those of each source value ``(..., 256)``."""
        return {head: self._counted(histogram, head) for head in self.tables}

    def count_presence(self, histogram: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
        """By head and class the valid pixels of the pictures that show it ``(C,)``, from ``(N, 256)``."""
        counts = self.count(histogram)
        return {head: ((n > 0) * n.sum(1, keepdims=True)).sum(0, dtype=np.int64) for head, n in counts.items()}

    @property
    def flat(self) -> bool:
        """Whether the global head is the only one."""
        return len(self.tables) == 1

    def _of_classes(self, head: str) -> NDArray[np.int64]:
        return self.tables[head][: self.num_source_classes].astype(np.int64)

    def _counted(self, histogram: NDArray[np.int64], head: str) -> NDArray[np.int64]:
        if self.overlapping and head == self.global_head:
            return class_pixels(histogram, len(self.classes[head]), overlapping=True)
        table = self.tables[head]
        columns = [histogram[..., table == index].sum(axis=-1) for index in range(len(self.classes[head]))]
        return np.stack(columns, axis=-1).astype(np.int64)


def heads_of(catalogue: Catalogue, definition: str | Path | None, global_head: str) -> Heads:
    """The heads of a data set: of a task definition, see `read_heads`, or of its overlapping channels.

    Raises:
        ConfigError: There are channels and a definition, or see `read_heads`.
    """
    if not catalogue.overlapping:
        return read_heads(definition, catalogue.classes, global_head)
    if definition is not None:
        raise ConfigError(
            f"`data.tasks` should be null for the overlapping channels of `{catalogue.name}`: each is a task of its "
            f"own. Found `data.tasks = {definition}`. Leave it away."
        )
    absent, *channels = catalogue.classes
    findings: list[str] = []
    for name in channels:
        _check_task_name(name, global_head, findings)
    if findings:
        raise ConfigError(f"The channels of `{catalogue.name}`: {' '.join(findings)}")
    codes = np.arange(_NUM_VALUES, dtype=np.uint8)
    shown = holds(len(channels)).T.astype(np.uint8)
    shown[:, IGNORE_INDEX] = IGNORE_INDEX
    tables = dict(zip(channels, shown, strict=True))
    classes = {name: (absent, name) for name in channels} | {global_head: catalogue.classes}
    return Heads(classes, {**tables, global_head: codes}, global_head, catalogue.num_values, overlapping=True)


def read_heads(definition: str | Path | None, classes: Sequence[str], global_head: str) -> Heads:
    """Read a task definition.

    A task is either ``ids``, each of which becomes a class of its own, or ``groups``, a name with its ids. An id
    is the index of a class of the data set or its name. The ids that a task does not name are its class 0.

    .. code-block:: yaml

        damage: {groups: {damage: [crack, scratch, stain]}}
        kind: {ids: [1, 2, 5]}

    Args:
        definition: A YAML file, or the name of one that comes with ``hsl``. ``None``: one flat head.
        classes: Class names of the data set.
        global_head: The name of the global head; no task may have it.

    Raises:
        ConfigError: The file cannot be read, or with everything that is wrong with it: a task and the id.

    Example:
        >>> heads = read_heads("demo", ("clean", "crack", "scratch", "paint_loss", "stain", "puncture"), "all")
        >>> heads.classes["shape"], heads.tables["shape"][:6].tolist()
        (('clean', 'line', 'area', 'hole'), [0, 1, 1, 2, 2, 3])
    """
    identity = np.arange(_NUM_VALUES, dtype=np.uint8)
    if definition is None:
        return Heads({global_head: tuple(classes)}, {global_head: identity}, global_head, len(classes))
    path = _find(str(definition))
    findings: list[str] = []
    tasks = {name: list(_read_task(name, task, classes, findings)) for name, task in _load(path, global_head, findings)}
    if findings:
        raise ConfigError(f"`{path}`: {' '.join(findings)}")
    tables = {name: _table([ids for _, ids in parts]) for name, parts in tasks.items()}
    names = {name: _names(tables[name], [group for group, _ in parts], classes) for name, parts in tasks.items()}
    for name, found in names.items():
        if unfit := unfit_names(found):
            raise ConfigError(f"`{path}`, task `{name}`: {' '.join(unfit)}")
        if len(set(found)) < len(found):
            raise ConfigError(f"`{path}`: classes of task `{name}` should differ in name. Found {list(found)}.")
    table, together = _global(list(tables.values()), classes)
    return Heads({**names, global_head: together}, {**tables, global_head: table}, global_head, len(classes))


def _find(definition: str) -> Path:
    path = Path(definition)
    if path.suffix in (".yaml", ".yml"):
        return path
    shipped = SHIPPED / f"{definition}.yaml"
    if not shipped.is_file():
        names = ", ".join(sorted(file.stem for file in SHIPPED.glob("*.yaml")))
        raise ConfigError(f"`data.tasks` should be a YAML file or one of {names}. Found `data.tasks = {definition}`.")
    return shipped


def _load(path: Path, global_head: str, findings: list[str]) -> Iterator[tuple[str, Any]]:
    try:
        check_regular(path)
        content = OmegaConf.to_container(OmegaConf.load(path))  # unlike yaml alone it refuses a key given twice
    except (OSError, UnicodeDecodeError, RecursionError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"`{path}` cannot be read: {' '.join(str(error).split())}. Set `data.tasks`.") from error
    if not isinstance(content, dict) or not content:
        raise ConfigError(f"`{path}` should map names of tasks to `ids` or `groups`. Found `{content}`.")
    for name, task in content.items():
        _check_task_name(name, global_head, findings)
        yield str(name), task


def _check_task_name(name: Any, global_head: str, findings: list[str]) -> None:
    fits = isinstance(name, str) and name.isidentifier() and not name.startswith("_")
    if not fits or name == global_head or name in MODULE_WORDS:
        findings.append(
            f"The name of a task should be a letter, then letters, digits and `_`, and not `{global_head}` or a word "
            f"that torch keeps for modules. Found `{name!s}`. Rename it."
        )


def _read_task(
    name: str, task: Any, classes: Sequence[str], findings: list[str]
) -> Iterator[tuple[str | None, list[int]]]:
    """Name (``None``: that of the class) and ids of each class but the background."""
    if not isinstance(task, dict) or len(task) != 1 or not task.keys() <= {"ids", "groups"}:
        found = list(task) if isinstance(task, dict) else task
        findings.append(f"Task `{name}` should have either `ids` or `groups`. Found `{found}`.")
        return
    ((key, content),) = task.items()
    groups = {"ids": content} if key == "ids" else content
    if not isinstance(groups, dict) or not groups:
        findings.append(f"`groups` of task `{name}` should map names to ids. Found `{groups}`.")
        return
    seen: set[int] = set()
    for group, ids in groups.items():
        where = f"task `{name}`" if key == "ids" else f"group `{group}` of task `{name}`"
        if not isinstance(ids, list) or not ids:
            findings.append(f"The ids of {where} should be a list that is not empty. Found `{ids}`.")
            continue
        numbers = [number for each in ids for number in _read_id(each, where, classes, seen, findings)]
        if key == "groups":
            yield str(group), numbers
        else:
            yield from ((None, [number]) for number in numbers)


def _read_id(given: Any, where: str, classes: Sequence[str], seen: set[int], findings: list[str]) -> list[int]:
    number = classes.index(given) if given in classes else given
    if type(number) is not int or not 0 < number < len(classes):
        last = len(classes) - 1
        findings.append(
            f"An id of {where} should be in [1, {last}] or the name of one of these classes (0 is the background of "
            f"every task). Found `{given}`."
        )
        return []
    if number in seen:
        findings.append(f"An id should stand in a task once. Found `{given}` again in {where}.")
        return []
    seen.add(number)
    return [number]


def _table(groups: Sequence[Sequence[int]]) -> Table:
    table = np.zeros(_NUM_VALUES, np.uint8)
    for index, ids in enumerate(groups, start=1):
        table[list(ids)] = index
    table[IGNORE_INDEX] = IGNORE_INDEX
    return table


def _names(table: Table, groups: Sequence[str | None], classes: Sequence[str]) -> tuple[str, ...]:
    """Class 0 is called like that of the data set where nothing else falls into it."""
    rest = REST if (table[: len(classes)] == 0).sum() > 1 else classes[0]
    named = (
        classes[int(np.argmax(table == index))] if group is None else group for index, group in enumerate(groups, 1)
    )
    return rest, *named


def _global(tables: Sequence[Table], classes: Sequence[str]) -> tuple[Table, tuple[str, ...]]:
    """One class for all that no task tells apart, in the order of the first id of each."""
    signatures = np.stack(tables)[:, : len(classes)].T.tolist()
    order = {signature: index for index, signature in enumerate(dict.fromkeys(map(tuple, signatures)))}
    table = np.zeros(_NUM_VALUES, np.uint8)
    table[: len(classes)] = [order[tuple(signature)] for signature in signatures]
    table[IGNORE_INDEX] = IGNORE_INDEX
    members = [np.flatnonzero(table[: len(classes)] == index).tolist() for index in range(len(order))]
    rest = REST if len(members[0]) > 1 else classes[0]
    return table, (rest, *(" + ".join(classes[i] for i in ids) for ids in members[1:]))
