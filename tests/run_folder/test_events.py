import json

import pytest

from hsl.errors import DataError
from hsl.run_folder.events import read_events
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
        ("phases.json", "[", "cannot be read"),
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
