"""Studies whose trainings are made by the writers of the run folder, in no time."""

import optuna
import pytest

from hsl.run_folder import layout
from hsl.run_folder.history import write_history
from hsl.run_folder.provenance import write_provenance
from hsl.verbs.study import running
from hsl.verbs.study.fold_runs import Ended
from hsl.verbs.study.spaces import as_json, read_space
from hsl.verbs.study.stored_study import new_study
from hsl.verbs.study.study_storage import open_storage
from hsl.verbs.study.trials import next_trial

SPACE = {"optimizer.lr": {"low": 1e-4, "high": 1e-1, "log": True}, "loss": {"choices": ["dice", "ce"]}}


@pytest.fixture
def space():
    return read_space(SPACE)


@pytest.fixture
def stored(space):
    return new_study(
        name="s", words=["experiment=demo"], monitor="val/miou", mode="max", objectives=["score"], folds=[0, 1],
        space=as_json(space),
    )  # fmt: skip


@pytest.fixture
def study(tmp_path, stored):
    return open_storage(tmp_path, stored, None, optuna.samplers.RandomSampler(seed=0), optuna.pruners.NopPruner())


@pytest.fixture
def trainings(monkeypatch):
    """Trainings are asked for by their words; `outcomes` says by fold what one comes to: a value, or how it ends."""

    class Trainings(list):
        def __init__(self):
            super().__init__()
            self.outcomes = {}

    made = Trainings()

    def run_apart(verb, words, log, wants_end):
        given = dict(word.split("=", 1) for word in words)
        made.append(given)
        outcome = made.outcomes.get(int(given["fold"]), 0.5)
        if isinstance(outcome, BaseException):
            raise outcome
        if isinstance(outcome, Ended):
            return outcome
        folder = log.parent / f"fold{given['fold']}" / "2026-01-01_00-00-00"
        folder.mkdir(parents=True, exist_ok=True)
        write_history(
            folder / layout.HISTORY,
            [{"epoch": 0, "val/miou": outcome - 0.1, "test/miou": 0.99}, {"epoch": 1, "val/miou": outcome}],
        )
        write_provenance(folder, {"status": "finished", "num_parameters": 7, "wall_time_s": 2.0})
        stopped = wants_end()
        return Ended(-15 if stopped else 0, stopped, log)

    monkeypatch.setattr(running, "run_apart", run_apart)
    return made


@pytest.fixture
def take(tmp_path, stored):
    """Takes trials as one worker does; what is still held is let go at the end."""
    held = []

    def take(study, space, number=3, allowed=None, place=stored.id):
        claimed = next_trial(study, tmp_path, place, space, allowed or space, number)
        if claimed is not None:
            held.append(claimed)
        return claimed

    yield take
    for claimed in held:
        claimed.release()
