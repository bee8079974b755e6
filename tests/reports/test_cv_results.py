import json

import pytest

from hsl.reports.cv_results import cv_results
from hsl.reports.gather import gather
from hsl.reports.models import models_of
from hsl.reports.page.notes import notes_on
from hsl.reports.statistics.ranking import ranked
from hsl.run_folder.run import ScoredOn

HALF = [[50, 50, 0], [50, 50, 0], [0, 0, 0]]  # IoU 50 / 150 in both
FULL = [[50, 0, 0], [0, 50, 0], [0, 0, 0]]


def test_json_has_every_number_and_no_nan(make_run, tmp_path):
    make_run(fold=0, confusion=FULL, tta=HALF)
    (make_run("b", "b", 0) / "metrics.json").unlink()
    runs = gather([str(tmp_path / "outputs")])
    found = models_of(runs, ["name", "fold", "seed"], "encoder.name")
    ranking = ranked(found, "miou", ScoredOn("val"))
    page = cv_results(ranking, [], notes_on(runs, found, ScoredOn("val")), runs, ["val", "test"])
    text = json.dumps(page, allow_nan=False)
    first, second = json.loads(text)["models"]
    assert first["parts"]["val"]["plain"]["folds"]["miou"] == {"0": 1.0}
    assert first["parts"]["val"]["plain"]["over_folds"]["miou"] == {"mean": 1.0, "std": None, "num": 1}
    assert first["parts"]["val"]["tta"]["pooled"]["miou"] == pytest.approx(1 / 3)
    assert first["parts"]["val"]["plain"]["pooled"]["per_class"]["iou"] == [1.0, 1.0, None]
    assert first["parts"]["test"]["plain"] is None
    assert first["missing"] == {"1": "no run folder", "2": "no run folder"}
    assert second["rank"] is None
    assert "metrics.json` is missing" in second["missing"]["0"]
    assert [run["status"] for run in page["runs"]] == ["finished", "unreadable"]
