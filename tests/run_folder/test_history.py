import json

import numpy as np
import pytest

from hsl.errors import DataError
from hsl.run_folder.history import read_events, read_weighting
from hsl.run_folder.run import read_run


def test_a_run_without_events(make_run):
    run = read_run(make_run())
    assert (run.events.phases, run.events.rollback, run.events.memory) == ({}, {}, ())
    assert not run.events.reverted


def test_all_three_files(tmp_path):
    (tmp_path / "phases.json").write_text(json.dumps({"A": {"status": "finished"}}))
    (tmp_path / "rollback.json").write_text(json.dumps({"decision": "reverted"}))
    (tmp_path / "oom.json").write_text(json.dumps([{"micro_batch_before": 8}]))
    found = read_events(tmp_path)
    assert found.phases == {"A": {"status": "finished"}}
    assert found.reverted
    assert found.memory == ({"micro_batch_before": 8},)


def test_weights_that_were_kept_are_not_reverted(tmp_path):
    (tmp_path / "rollback.json").write_text(json.dumps({"decision": "kept"}))
    assert not read_events(tmp_path).reverted


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("phases.json", "[", "is not valid JSON"),
        ("phases.json", "[]", "should be a JSON object. Found list"),
        ("phases.json", '{"A": 1}', "should hold JSON objects"),
        ("oom.json", "{}", "should be a JSON list. Found dict"),
        ("oom.json", "[1]", "should hold JSON objects"),
        ("rollback.json", "1", "should be a JSON object"),
    ],
)
def test_a_broken_file_is_named_and_the_run_can_still_be_read(make_run, name, content, reason):
    folder = make_run()
    (folder / name).write_text(content)
    with pytest.raises(DataError, match=rf"{name}` {reason}"):
        read_events(folder)
    run = read_run(folder)
    assert run.status == "finished"
    assert any(name in problem for problem in run.problems)


def test_each_number_is_an_array_over_the_steps_with_gaps(tmp_path):
    path = tmp_path / "weighting.jsonl"
    path.write_text(
        '{"step": 10, "epoch": 0, "weight/a": 1.0, "weight/b": 0.4, "norm/a": 2.0, "norm/b": 0.0}\n'
        '{"step": 20, "epoch": 0, "weight/a": 3.0, "weight/b": null, "norm/a": 1.0, "norm/b": 4.0, "cosine/a/b": -0.5,'
        ' "solver_failures": 2, "steps": 20, "degraded": 1.0}\n'
        '{"step": 30, "epo'  # the process was killed
    )
    log = read_weighting(tmp_path)
    assert log.steps == [10, 20]
    np.testing.assert_array_equal(log.weights["a"], [1, 3])
    np.testing.assert_array_equal(log.weights["b"], [0.4, np.nan])
    np.testing.assert_array_equal(log.norms["b"], [np.nan, 4])  # no label in the batch: no gradient
    np.testing.assert_array_equal(log.cosines["a, b"], [np.nan, -0.5])
    assert (log.solver_failures, log.solver_steps) == (2, 20)


def test_no_file_and_no_line(tmp_path):
    path = tmp_path / "weighting.jsonl"
    assert read_weighting(tmp_path) is None
    path.write_text("")
    assert read_weighting(tmp_path) is None
    path.write_text('{"step": 10')
    assert read_weighting(tmp_path) is None


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "line 2, is not valid JSON"),
        ("[1]", "line 2, should be an object with a `step`"),
        ('{"epoch": 1}', "line 2, should be an object with a `step`"),
        ('{"step": 2, "weight/a": "x"}', "line 2: `weight/a` should be a number or null"),
    ],
)
def test_a_broken_line_is_named_and_costs_the_run_nothing_else(make_run, line, reason):
    folder = make_run()
    (folder / "weighting.jsonl").write_text(f'{{"step": 1}}\n{line}\n')
    with pytest.raises(DataError, match=reason):
        read_weighting(folder)
    run = read_run(folder)
    assert run.status == "finished"
    assert run.weighting is None
    assert reason in run.problems[0]
