import numpy as np
import pytest

from hsl.errors import DataError
from hsl.run_folder.run import read_run
from hsl.run_folder.weighting_steps import read_weighting


def test_each_number_is_an_array_over_the_steps_with_gaps(tmp_path):
    path = tmp_path / "weighting.jsonl"
    path.write_text(
        '{"step": 10, "epoch": 0, "weight/a": 1.0, "weight/b": 0.4, "norm/a": 2.0, "norm/b": 0.0}\n'
        '{"step": 20, "epoch": 0, "weight/a": 3.0, "weight/b": null, "norm/a": 1.0, "norm/b": 4.0, "cosine/a/b": -0.5,'
        ' "solver_failures": 2, "steps": 20, "degraded": 1.0}\n'
        '{"step": 30, "epo'  # the process was killed
    )
    log = read_weighting(path)
    assert log.steps == [10, 20]
    np.testing.assert_array_equal(log.weights["a"], [1, 3])
    np.testing.assert_array_equal(log.weights["b"], [0.4, np.nan])
    np.testing.assert_array_equal(log.norms["b"], [np.nan, 4])  # no label in the batch: no gradient
    np.testing.assert_array_equal(log.cosines["a, b"], [np.nan, -0.5])
    assert (log.solver_failures, log.solver_steps) == (2, 20)


def test_no_file_and_no_line(tmp_path):
    path = tmp_path / "weighting.jsonl"
    assert read_weighting(path) is None
    path.write_text("")
    assert read_weighting(path) is None
    path.write_text('{"step": 10')
    assert read_weighting(path) is None


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
        read_weighting(folder / "weighting.jsonl")
    run = read_run(folder)
    assert run.status == "finished"
    assert run.weighting is None
    assert reason in run.problems[0]
