import contextlib
import multiprocessing
import os
import resource
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from hsl.errors import ConfigError, DataError
from hsl.verbs.study import checks, trials
from hsl.verbs.study.fold_runs import Ended
from hsl.verbs.study.full_disk import told_of_a_full_disk
from hsl.verbs.study.grid import Grid, most_trials
from hsl.verbs.study.pages.importance import importance_of
from hsl.verbs.study.pages.showing import best_first, chart, is_done, rows_of, status_line
from hsl.verbs.study.pages.study_page import write_pages
from hsl.verbs.study.running import Trials
from hsl.verbs.study.spaces import as_json, read_space
from hsl.verbs.study.stored_study import new_study, read_study, write_study
from hsl.verbs.study.study import _check_code
from hsl.verbs.study.study_storage import code_of, open_storage
from hsl.verbs.study.trials import next_trial


def test_a_trial_is_its_folds(tmp_path, study, stored, space, trainings, take):
    trainings.outcomes = {0: 0.4, 1: 0.6}
    claimed = take(study, space)
    said = Trials(stored, study, None).run(claimed)
    claimed.release()
    assert said == "trial 0: val/miou 0.5000 ± 0.1414"
    assert [words["fold"] for words in trainings] == ["0", "1"]
    assert {words["experiment"] for words in trainings} == {"demo"}
    assert trainings[0]["resume"] == "last"
    assert trainings[0]["run_dir"] == f"'{tmp_path}/trial0/fold0'"
    (row,) = rows_of(study, stored)
    assert (row["score"], row["folds"], row["state"]) == (pytest.approx(0.5), 2, "complete")
    assert row["deviation"] == pytest.approx(0.141421, abs=1e-6)


def test_no_test_score_is_opened(tmp_path, study, stored, space, trainings, take):
    opened = []
    sys.addaudithook(lambda event, arguments: opened.append(str(arguments[0])) if event == "open" else None)
    claimed = take(study, space)
    Trials(stored, study, None).run(claimed)
    write_pages(tmp_path, stored, study)
    mine = [path for path in opened if str(tmp_path) in path]
    assert any("history.csv" in path for path in mine)
    assert not [path for path in mine if "metrics.json" in path or "per_image" in path or "results.json" in path]
    assert study.trials[0].value == 0.5  # not the 0.99 that stands in the column of the test part


def test_several_objectives(tmp_path, stored, space, trainings, take):
    stored = stored.model_copy(update={"objectives": ["score", "parameters"]})
    study = open_storage(tmp_path, stored, None, optuna.samplers.RandomSampler(seed=0))
    Trials(stored, study, None).run(take(study, space))
    assert study.trials[0].values == [0.5, 7.0]
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    write_pages(tmp_path, stored, study)


def test_a_failed_trial_is_told_and_the_next_goes_on(tmp_path, study, stored, space, trainings, take):
    log = tmp_path / "log"
    log.write_text("epoch 1\nerror: the loss is NaN\n")
    trainings.outcomes = {1: Ended(2, False, log)}
    running = Trials(stored, study, None)
    assert running.run(take(study, space)) == "trial 0: failed, fold 1: the loss is NaN"
    trainings.outcomes = {}
    running.run(take(study, space))
    assert [trial.state.name for trial in study.trials] == ["FAIL", "COMPLETE"]
    assert rows_of(study, stored)[0]["why"] == "fold 1: the loss is NaN"
    assert "2 trials ended, best score 0.5000 (trial 1)" in status_line(study, stored)
    assert status_line(study, stored, 60).endswith("about 1 min left")


def test_killed_from_outside_three_times(tmp_path, study, stored, space, trainings, take):
    trainings.outcomes = {0: Ended(-signal.SIGKILL, False, tmp_path / "fold0.log")}
    said = Trials(stored, study, None).run(take(study, space))
    assert "killed from outside, as the system does where memory runs out" in said
    assert len(trainings) == 3


def test_pruned_by_folds(tmp_path, stored, space, trainings, take):
    stored = stored.model_copy(update={"folds": list(range(8))})
    with pytest.warns(optuna.exceptions.ExperimentalWarning):
        pruner = optuna.pruners.WilcoxonPruner(p_threshold=0.1)
    study = open_storage(tmp_path, stored, None, optuna.samplers.RandomSampler(seed=0), pruner)
    running = Trials(stored, study, "folds")
    trainings.outcomes = {fold: 0.8 + 0.01 * fold for fold in range(8)}
    running.run(take(study, space))
    trainings.outcomes = {fold: 0.3 + 0.01 * fold for fold in range(8)}
    assert running.run(take(study, space)) == "trial 1: pruned after 4 of 8 folds"
    assert checks.FIRST_PRUNED_FOLD == 4  # what the warning says


def test_pruned_by_epochs(tmp_path, stored, space, trainings, take):
    pruner = optuna.pruners.MedianPruner(n_startup_trials=1, n_warmup_steps=0)
    study = open_storage(tmp_path, stored, None, optuna.samplers.RandomSampler(seed=0), pruner)
    running = Trials(stored, study, "epochs")
    running.run(take(study, space))
    trainings.outcomes = {0: 0.2}
    assert running.run(take(study, space)) == "trial 1: pruned after epochs of the first fold"
    assert study.trials[1].state == TrialState.PRUNED
    assert study.trials[0].intermediate_values == {0: 0.4, 1: 0.5}


def test_what_a_dead_worker_left_is_taken_first(tmp_path, study, stored, space, trainings, take):
    first = take(study, space)
    other = take(study, space)
    assert (first.trial.number, other.trial.number, first.again) == (0, 1, False)
    first.release()  # as the system does for a process that was killed
    again = take(study, space)
    assert (again.trial.number, again.again) == (0, True)
    assert again.point == first.point
    running = Trials(stored, study, None)
    trainings.outcomes = {1: KeyboardInterrupt()}
    with pytest.raises(KeyboardInterrupt):
        running.run(again)
    trainings.outcomes = {0: 0.1}  # the first fold is finished, and is not trained again
    running.run(again)
    assert [words["fold"] for words in trainings] == ["0", "1", "1"]
    assert study.trials[0].value == 0.5
    assert take(study, space).trial.number == 2


@pytest.mark.parametrize("zone", ["UTC-2", "UTC", "UTC+2"])
def test_a_worker_that_died_while_it_asked(tmp_path, study, stored, space, monkeypatch, take, zone):
    """Whatever the clock of its machine said."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    asked = study.ask()
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    waited = []
    monkeypatch.setattr(time, "sleep", lambda seconds: waited.append(seconds) or asked.set_user_attr("place", "x"))
    assert take(study, space).trial.number == 1  # it was asking just then
    assert take(study, space).trial.number == 2
    assert waited == [trials.UNNAMED_S]
    study.ask()
    monkeypatch.setattr(time, "sleep", waited.append)
    taken = take(study, space, number=4)
    assert (taken.trial.number, taken.again, set(taken.point)) == (3, True, set(space))


def test_a_full_disk_ends_the_worker_and_nothing_else(tmp_path, study, stored, space, take, trainings):
    """By a limit on the size of files, at every length that the journal may have reached."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    running, journal = Trials(stored, study, None), tmp_path / "journal.log"
    taken = take(study, space)
    told = []
    for room in range(0, 2000, 43):
        resource.setrlimit(resource.RLIMIT_FSIZE, (journal.stat().st_size + room, hard))
        with contextlib.suppress(DataError), told_of(told), told_of_a_full_disk(tmp_path):
            running.run(taken)
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        taken.release()
        if len(told) == room // 43:
            break
        again = open_storage(tmp_path, stored, None, optuna.samplers.RandomSampler(seed=1))
        running = Trials(stored, again, None)
        taken = take(again, space)
        assert (taken.trial.number, taken.again) == (0, True)
    assert len(told) > 8
    assert set(told) == {
        f"The disk of `{tmp_path}` should have room. Found: File too large. Free some space and start the same command "
        "again: what ended is kept, and the trial under way goes on where it stood."
    }
    assert len(trainings) == 2, "a fold was trained twice"
    assert [trial.value for trial in open_storage(tmp_path, stored, None).trials] == [0.5]


@contextlib.contextmanager
def told_of(sentences):
    try:
        yield
    except DataError as error:
        sentences.append(str(error))
        raise


def test_a_training_without_room_is_no_failed_trial(tmp_path, study, stored, space, take, trainings):
    log = tmp_path / "full.log"
    log.write_text("error: `last.ckpt`: No space left on device. Free some space, then run it again.")
    trainings.outcomes = {0: Ended(2, False, log)}
    taken = take(study, space)
    with pytest.raises(DataError, match="Found: No space left on device"), told_of_a_full_disk(tmp_path):
        Trials(stored, study, None).run(taken)
    taken.release()
    trainings.outcomes = {}
    again = take(study, space)
    assert (again.trial.number, again.again) == (0, True)
    Trials(stored, study, None).run(again)
    assert study.trials[0].value == 0.5


def test_the_code_that_began_a_study_is_kept_where_all_its_machines_see_it(tmp_path, stored):
    study = open_storage(tmp_path, stored, None)
    assert code_of(study, stored) == stored.code
    other = stored.model_copy(update={"code": "0.0+of another machine's folder"})
    assert code_of(open_storage(tmp_path, other, None), other) == stored.code
    _check_code(stored.code, other_code=False)
    with pytest.raises(ConfigError, match=r"begun by hsl 0.0\+x. Found hsl .*`study.other_code=true`"):
        _check_code("0.0+x", other_code=False)
    _check_code("0.0+x", other_code=True)


def test_a_trial_of_another_machine_is_left_alone(tmp_path, study, stored, space, monkeypatch, take):
    monkeypatch.setattr(trials, "UNNAMED_S", 0.0)
    take(study, space, place="the id of another folder").release()
    assert take(study, space).trial.number == 1
    assert not is_done(study, 1)


def test_no_point_twice_and_an_exhausted_space(tmp_path, study, stored, trainings, monkeypatch, take):
    monkeypatch.setattr(trials, "MAX_PASSED", 30)
    small = read_space({"loss": {"choices": ["dice", "ce"]}})
    running = Trials(stored, study, None)
    for _ in range(2):
        running.run(take(study, small, number=9))
    assert {trial.params["loss"] for trial in study.trials if trial.state == TrialState.COMPLETE} == {"dice", "ce"}
    with pytest.raises(DataError, match="should have points that were not tried"):
        take(study, small, number=9)
    assert len(rows_of(study, stored.model_copy(update={"space": as_json(small)}))) == 2


def test_a_grid_is_every_point_once_and_then_the_study_is_done(tmp_path, stored, trainings, take):
    space = read_space(
        {
            "optimizer": {"choices": ["adamw", "sgd"]},
            "optimizer.momentum": {"low": 0.0, "high": 0.2, "step": 0.1, "when": {"optimizer": "sgd"}},
            "data.batch_size": {"low": 4, "high": 8, "step": 4},
        }
    )
    pairs = [("adamw", None), ("sgd", 0.0), ("sgd", 0.1), ("sgd", 0.2)]
    wanted = [(*pair, size) for pair in pairs for size in (4, 8)]
    narrow = {**space, "optimizer": replace(space["optimizer"], choices=("sgd",))}
    stored = stored.model_copy(update={"space": as_json(space)})
    study = open_storage(tmp_path, stored, None, Grid(space, space), optuna.pruners.NopPruner())
    running, found = Trials(stored, study, None), []
    assert most_trials(study, space) == 8
    assert most_trials(study, narrow) == 6
    while claimed := take(study, space, number=min(20, most_trials(study, space))):
        running.run(claimed)
        claimed.release()
        found.append(tuple(claimed.point.get(key) for key in ("optimizer", "optimizer.momentum", "data.batch_size")))
    assert found == wanted
    assert most_trials(study, narrow) == 8
    endless = read_space({"optimizer.lr": {"low": 1e-4, "high": 1e-1}})
    with pytest.raises(
        ConfigError, match=r"Found any number for optimizer.lr\. Give `study.space.optimizer.lr` a `step`"
    ):
        Grid(endless, endless)


def test_a_narrowed_space_is_kept_to(tmp_path, study, stored, space, trainings, take):
    narrow = read_space({"optimizer.lr": {"low": 1e-3, "high": 1e-2, "log": True}, "loss": {"choices": ["ce"]}})
    running = Trials(stored, study, None)
    running.run(take(study, space))
    for _ in range(3):
        whole = {**narrow, "loss": space["loss"]}
        claimed = take(study, whole, number=4, allowed=narrow)
        running.run(claimed)
        assert claimed.point["loss"] == "ce"
        assert 1e-3 <= claimed.point["optimizer.lr"] <= 1e-2


def test_another_study_in_the_storage(tmp_path, stored, space):
    open_storage(tmp_path, stored, None)
    with pytest.raises(ConfigError, match="holds a study `s` already"):
        open_storage(tmp_path, stored.model_copy(update={"words": ["experiment=steel"]}), None)


@pytest.mark.slow
def test_a_database_and_a_study_of_another_program_in_it(tmp_path, stored, space, take, trainings):
    url = f"sqlite:///{tmp_path}/own"
    study = open_storage(tmp_path, stored, url, optuna.samplers.RandomSampler(seed=0))
    Trials(stored, study, None).run(take(study, space))
    assert open_storage(tmp_path, stored, url).trials[0].value == 0.5
    url = f"sqlite:///{tmp_path}/db"
    foreign = optuna.create_study(storage=url, study_name="s")
    foreign.ask()
    with pytest.raises(ConfigError, match="of another program"):
        open_storage(tmp_path, stored, url)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite:////nowhere/at/all", "should be a storage that can be reached"),
        ("nonsense", "should be a storage that can be reached"),
        ("postgresql://me:secret@localhost:1/x", "can be reached|pip install 'hsl.postgres.'"),  # by what is installed
        ("mysql://h/d", "should be a database whose driver is installed"),
    ],
)
def test_a_storage_that_cannot_be_reached(tmp_path, stored, url, said):
    with pytest.raises(ConfigError, match=said) as error:
        open_storage(tmp_path, stored, url)
    assert "secret" not in str(error.value)


def test_a_line_that_was_cut_off(tmp_path, study, stored, space, take, trainings):
    Trials(stored, study, None).run(take(study, space))
    with (tmp_path / "journal.log").open("a") as file:
        file.write('{"op_code":4,"worker_')
    again = open_storage(tmp_path, stored, None, optuna.samplers.RandomSampler(seed=1))
    Trials(stored, again, None).run(take(again, space))
    assert [trial.value for trial in open_storage(tmp_path, stored, None).trials] == [0.5, 0.5]


def work(folder, done, pace):
    """A worker of its own process: trials without training."""
    folder = Path(folder)
    stored = read_study(folder)
    space = read_space({"x": {"low": 0, "high": 10_000}})
    study = open_storage(folder, stored, None, optuna.samplers.RandomSampler())
    while claimed := next_trial(study, folder, stored.id, space, space, 12):
        time.sleep(pace)
        study.tell(claimed.trial, float(claimed.point["x"]))
        with Path(done).open("a") as file:
            file.write(f"{claimed.trial.number}\n")
        claimed.release()


def test_kills_lose_and_repeat_nothing(tmp_path, space):
    write_study(tmp_path, new_study(
        name="s", words=[], monitor="val/miou", mode="max", objectives=["score"], folds=[0],
        space=as_json(read_space({"x": {"low": 0, "high": 10_000}})),
    ))  # fmt: skip
    done, context = tmp_path / "done", multiprocessing.get_context("fork")
    done.touch()
    workers, kills, stop = [], 0, time.monotonic() + 60
    while time.monotonic() < stop:
        workers = [one for one in workers if one.is_alive()]
        if kills and not workers and len(done.read_text().split()) >= 12:
            break
        while len(workers) < 2:
            workers.append(context.Process(target=work, args=(tmp_path, done, 0.3)))
            workers[-1].start()
        time.sleep(0.12)
        if kills < 8:
            os.kill(workers[kills % 2].pid, signal.SIGKILL)
            kills += 1
    stored = read_study(tmp_path)
    study = open_storage(tmp_path, stored, None)
    assert kills == 8
    assert is_done(study, 12)
    assert sorted(trial.number for trial in study.trials if trial.state == TrialState.COMPLETE) == list(range(12))


def test_pictures_and_tables(tmp_path, study, stored, space, trainings, take):
    running = Trials(stored, study, None)
    for i in range(12):
        trainings.outcomes = {0: 0.3 + 0.01 * i, 1: 0.4 + 0.01 * i}
        running.run(take(study, space, number=12))
    assert [trial.number for trial in best_first(study, stored)][:2] == [11, 10]
    assert chart(study, stored)[0] == "▁"
    assert chart(study, stored)[-1] == "█"
    found = importance_of(study, stored)
    assert set(found.means) == set(space)
    assert all(0 <= found.deviations[key] < 1 for key in space)
    write_pages(tmp_path, stored, study)
    page = (tmp_path / "index.html").read_text()
    assert "It was not confirmed" in page
    assert "high by luck" in page
    assert len((tmp_path / "trials.csv").read_text().splitlines()) == 13
