"""`hsl plan`: what the training part is like, two timed steps, and three plans with the reason of every value."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from rich.table import Table

from hsl.config.validation import validate
from hsl.console import PlainConsole
from hsl.data.prepared import PreparedData
from hsl.files.io import null_for_nan, write_atomically
from hsl.files.output_folder import OutputFolder
from hsl.terminal import say
from hsl.verbs.plan import lengths, rules, views
from hsl.verbs.plan.fingerprint import Fingerprint, fingerprint, groups_of_classes
from hsl.verbs.plan.settings import Given, data_words, read_given
from hsl.verbs.plan.views import Budget, Cost, Setting, View
from hsl.verbs.plan.writing import Entry, command, plan_text

PAGE = "fingerprint.json"
ROWS = (
    "sees",
    "encoder",
    "decoder",
    "batch",
    "seconds a step",
    "epochs",
    "folds",
    "minutes of training in all",
    "minutes of validation and scores",
)
GIVEN = "as it was given to `hsl plan`"


def plan(cfg: DictConfig) -> None:
    """Read the data, look at the training part, time the candidates, write the plans and print them.

    Raises:
        ConfigError: a setting breaks a rule, or no candidate fits the memory.
        DataError: the data set cannot be read, does not pass its audit, or holds nothing to learn.
    """
    validate(cfg)
    given = read_given(cfg)
    options, values = data_words()
    with OutputFolder(cfg.output, "plan", inputs=[cfg.data.root]) as output:
        data, folds = _read(cfg, values)
        data.audit.raise_if_stopped()
        facts = fingerprint(data)
        makers = [_Maker(cfg, given, data, facts, folds, options, values, name) for name in cfg.plans]
        costs = _measured(cfg)
        made = [maker.plan(costs) for maker in makers]
        page = facts.as_json() | {"costs": [vars(cost) for cost in costs]}
        write_atomically(output.work / PAGE, json.dumps(null_for_nan(page), indent=1, ensure_ascii=False).encode())
        for one in made:
            write_atomically(output.work / f"{one.name}.yaml", one.text.encode())
    _print(facts, made)
    for one in made:
        say(command(output.path / f"{one.name}.yaml", one.folds))


@dataclass(frozen=True)
class Plan:
    """A plan that is ready to be written, and what the table shows of it."""

    name: str
    text: str
    folds: Sequence[int]
    row: Sequence[str]


def _read(cfg: DictConfig, values: Mapping[str, Any]) -> tuple[PreparedData, Setting | None]:
    """The data, split into as many folds as the groups of the classes allow where nobody has said how many."""
    data: PreparedData = instantiate(cfg.data).read()
    split = cfg.data.split
    if "num_folds" not in split or "data.split.num_folds" in values:
        return data, None
    number, reason = rules.num_folds(*groups_of_classes(data))
    if number != split.num_folds:
        cfg.data.split.num_folds = number
        data = instantiate(cfg.data).read()
    return data, Setting({"data.split.num_folds": number}, reason)


def _measured(cfg: DictConfig) -> list[Cost]:
    from hsl.verbs.plan import timing  # what is wrong with the data is told before torch is imported

    return timing.measure(list(cfg.encoders), list(cfg.decoders), _precision())


def _precision() -> str:
    from hsl.verbs.plan import timing

    return str(rules.precision(timing.device()).values["trainer.precision"])


@dataclass(frozen=True)
class _Maker:
    """Everything that one plan follows from."""

    cfg: DictConfig
    given: Given
    data: PreparedData
    facts: Fingerprint
    folds: Setting | None
    options: Mapping[str, Any]
    values: Mapping[str, Any]
    name: str

    def plan(self, costs: Sequence[Cost]) -> Plan:
        """Ask every rule, in the order in which they need each other."""
        from hsl.verbs.plan import timing

        settings, facts = self.cfg.plans[self.name], self.facts
        there = len(self.data.fold_assignment.folds)
        number = there if settings.folds == "all" else min(there, int(settings.folds))
        whole = self.given.seconds * settings.share
        whole = whole if settings.most_minutes is None else min(whole, 60 * settings.most_minutes)
        memory = self.given.memory or timing.free_bytes()
        fold = Budget(whole / number, memory)
        budget = replace(fold, seconds=lengths.TRAINING_SHARE * fold.seconds)
        known = [cost for cost in costs if cost.has_weights] or costs
        view = views.choose_view(facts, min(known, key=lambda cost: cost.seconds), budget)
        cost, why = views.choose_network(facts, view, costs, budget)
        batch = views.batch_size(facts, view, cost, budget)
        step = timing.measure_batch(cost, view.height, view.width, batch.values["data.batch_size"], _precision())
        pixels = step.batch_size * view.megapixels
        cost = replace(cost, seconds=step.seconds / pixels)  # of the plan itself, which is what its epochs go by
        stop = rules.stop_fraction(facts)
        length = lengths.choose_length(facts, view, cost, fold, stop.values["data.split.stop_fraction"])
        passes = views.num_passes(facts, view, cost, length.budget)
        made = [*([self.folds] if self.folds else []), stop, *_viewed(view), batch]
        made += [one for one in (rules.sampling(facts),) if one] + [rules.loss(facts)]
        made += [*rules.augmentation(facts, view, passes, self.given.orientation)]
        made += [*lengths.length_settings(facts, view, cost, length), rules.precision(timing.device())]
        training = length.epochs * facts.num_images * cost.seconds * view.megapixels
        seen = f"{'patches of ' if view.patches else ''}{view.height} x {view.width}"
        minutes = [f"{number * one / 60:.0f}" for one in (training, length.beside)]
        row = [seen, cost.encoder, cost.decoder, str(step.batch_size), f"{step.seconds:.2f}",
               str(length.epochs), str(number), *minutes]  # fmt: skip
        return Plan(self.name, self._text(made, cost, why, row, (training, length.beside)), range(number), row)

    def _text(
        self, made: Sequence[Setting], cost: Cost, why: str, row: Sequence[str], seconds: tuple[float, float]
    ) -> str:
        options = {group: Entry(option, GIVEN) for group, option in self.options.items()}
        values = {"name": Entry(f"plan_{self.name}")}
        for one in made:
            chosen = {} if one.choice is None else self._words(one.choice)
            reasons = [one.reason, *[""] * (len(one.values) + len(chosen))]
            options |= {group: Entry(option, reasons.pop(0)) for group, option in chosen.items()}
            values |= {key: Entry(value, reasons.pop(0)) for key, value in one.values.items()}
        options |= {"encoder": Entry(cost.encoder, why), "decoder": Entry(cost.decoder)}
        options |= {group: Entry(option, GIVEN) for group, option in self.options.items()}
        values |= {key: Entry(value, GIVEN) for key, value in self.values.items()}
        return plan_text(self._header(made, row, seconds), options, values)

    def _words(self, choice: str) -> Mapping[str, Any]:
        content: Any = OmegaConf.to_container(self.cfg.words[choice])
        return dict(content)

    def _header(self, made: Sequence[Setting], row: Sequence[str], seconds: tuple[float, float]) -> list[str]:
        facts = self.facts
        training, beside = (f"{one / 60:.0f} min" if one >= 60 else f"{one:.0f} s" for one in seconds)
        lines = [
            f"Plan `{self.name}` of `{facts.data}`, from {facts.num_images} training pictures in {facts.num_groups} "
            f"groups of fold {facts.fold}. Written by `hsl plan`; change any value here or on the command line.",
            f"Command: {command(self._path(), range(int(row[6])))}",
            f"Training takes about {training} a fold: {row[4]} s a step, measured on this machine; validations and "
            f"scores about {beside}",
            rules.visible_difference(facts.num_scored).capitalize(),
        ]
        lines += [f"Open: {one.reason.removeprefix('open question: ')}" for one in made if one.open]
        if not facts.grouped:
            lines.append(
                "Open: no groups are known. Do several pictures show the same thing? Then `group` in labels.csv"
            )
        return lines

    def _path(self) -> Path:
        return Path(self.cfg.output) / f"{self.name}.yaml"


def _viewed(view: View) -> list[Setting]:
    size = {"data.image_size": [view.height, view.width]}
    if not view.patches:
        return [Setting(size, view.reason)]
    stride = round(view.height * 2 / 3)
    cut = {"data.patches.size": view.height, "data.patches.min_distance": stride, "data.patches.max_per_picture": 1,
           "data.evaluation_size": "source", "inference.window": view.height, "inference.stride": stride}  # fmt: skip
    return [Setting(size | cut, view.reason, "patches")]


def _print(facts: Fingerprint, made: Sequence[Plan]) -> None:
    table = Table("class", "pictures", "groups", "% of pixels", "objects", "px across: tenth", "median",
                  title=f"{facts.data}, training part of fold {facts.fold}: {facts.num_images} pictures, "
                  f"{facts.num_groups} groups", title_justify="left")  # fmt: skip
    for one in facts.classes:
        table.add_row(one.name, str(one.num_images), str(one.num_groups), f"{100 * one.share:.3g}",
                      str(one.num_objects), f"{one.smallest_tenth:.1f}", f"{one.median:.1f}")  # fmt: skip
    PlainConsole().print(table)
    plans = Table("plan")
    for each in made:
        plans.add_column(each.name, overflow="fold")
    for what, *cells in zip(ROWS, *(each.row for each in made), strict=True):
        plans.add_row(what, *cells)
    PlainConsole().print(plans)
    say(rules.visible_difference(facts.num_scored))
