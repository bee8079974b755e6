"""The listing of run folders: finished, unfinished and broken ones, filtered and sorted."""

import json

import pytest
from omegaconf import OmegaConf

from hsl.errors import ConfigError
from hsl.reports.listing import COLUMNS, LISTED, Row, arrange, as_text, read_row
from hsl.verbs.runs import runs


@pytest.fixture
def listed(make_run):
    """``listed(name, encoder, fold, ...)``: a run whose provenance says what every run's does."""

    def make(name="a", encoder="mit_b0", fold=0, seed=0, status="finished", choices=True, **more):
        config = {
            "encoder": {"name": encoder, "_target_": "hsl.models.encoders.build_encoder"},
            "loss": {"_target_": "hsl.losses.dual_head.DualHeadLoss"},
            "task": {"_target_": "hsl.tasks.segmentation.SegmentationTask"},
        }
        facts = {"name": name, "fold": fold, "seed": seed, "config": config} | more.pop("facts", {})
        if choices:
            facts["choices"] = {"encoder": encoder, "loss": "ce_dice", "task": "segmentation", "experiment": None}
        return make_run(name, encoder, fold, seed=seed, status=status, provenance=facts, **more)

    return make


def settings(root, **more):
    keys = {"root": str(root), "filter": None, "sort": "started", "limit": None, "json": True}
    return OmegaConf.create(keys | more)


def printed(capsys, root, **more):
    runs(settings(root, **more))
    return capsys.readouterr().out


def test_the_key_numbers_of_a_finished_run(listed):
    folder = listed(confusion=[[50, 0, 0], [50, 50, 0], [0, 0, 0]], facts={"data": "coral"})
    row = read_row(folder)
    assert row == Row(
        str(folder), "a", "coral", "segmentation", "mit_b0", "ce_dice", 0, 0, "finished", "val/miou", 0.5, 1,
        dict.fromkeys(LISTED) | {"miou": 0.5}, epochs=2, wall_time=61.0, started="2026-01-01_00-00-00",
    )  # fmt: skip


def test_runs_are_listed_and_chosen_by_their_data_set(listed, tmp_path, capsys):
    listed("a", facts={"data": "coral"})
    listed("b", facts={"data": "steel"})
    listed("c")  # of before: it does not tell
    found = json.loads(printed(capsys, tmp_path / "outputs", filter="data=st*"))
    assert [(row["name"], row["data"]) for row in found] == [("b", "steel")]
    text = printed(capsys, tmp_path / "outputs", json=False)
    assert "data" in text.splitlines()[0].split()
    assert "coral" in text


def test_the_numbers_of_an_image_head(listed, add_image_head):
    folder = add_image_head(listed(), dense=False)
    stored = json.loads((folder / "metrics.json").read_text())["parts"]["val"]["plain"]["image_heads"]["classification"]
    row = read_row(folder)
    assert {"accuracy", "macro_f1"} < set(LISTED)
    assert row.scores == {name: stored.get(name) for name in LISTED}
    assert 0 < row.scores["accuracy"] <= 1


def test_a_run_that_recorded_no_choices_shows_what_its_config_says(listed):
    row = read_row(listed(choices=False))
    assert (row.task, row.encoder, row.loss) == ("SegmentationTask", "mit_b0", "DualHeadLoss")


@pytest.mark.parametrize(
    ("status", "error", "reason"),
    [
        ("failed", {"error": "RuntimeError: no\nsecond line"}, "RuntimeError: no"),
        ("interrupted", {}, "resume=last"),
        ("running", {}, "last sign of life"),
    ],
)
def test_an_unfinished_run_is_listed_with_its_reason(listed, status, error, reason):
    folder = listed(status=status, facts=error)
    (folder / "history.csv").unlink()
    row = read_row(folder)
    assert (row.status, row.epochs, row.scores, row.monitor) == (status, 0, {}, None)
    assert reason in row.reason
    text = as_text([row])
    assert f"{status}: {folder}: " in text
    assert reason in text
    assert "second line" not in text
    assert "miou" not in text.splitlines()[0], "a column that says nothing is left out"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("provenance.json", None, "missing"),
        ("provenance.json", "{", "not valid JSON"),
        ("provenance.json", "[]", "object"),
        ("provenance.json", "{}", "`name`"),
        ("metrics.json", None, "missing"),
        ("metrics.json", '{"monitor": 3, "parts": {}}', "`monitor`"),
    ],
)
def test_a_broken_folder_is_named_and_the_others_stay(listed, capsys, tmp_path, name, content, words):
    good, bad = listed(fold=0), listed(fold=1)
    if content is None:
        (bad / name).unlink()
    else:
        (bad / name).write_text(content)
    rows = {row["folder"]: row for row in json.loads(printed(capsys, tmp_path / "outputs"))}
    assert rows[str(good)]["status"] == "finished"
    assert rows[str(bad)]["status"] == "unreadable"
    assert words in rows[str(bad)]["reason"]
    assert name in rows[str(bad)]["reason"]
    assert rows[str(bad)]["fold"] == (1 if name == "metrics.json" else None), "what can be read is shown"
    text = printed(capsys, tmp_path / "outputs", json=False)
    assert f"unreadable: {bad}: " in text
    assert "2 of 2 runs" in text


def test_an_unknown_status_is_broken(listed):
    row = read_row(listed(status="sleeping"))
    assert row.status == "unreadable"
    assert "'sleeping'" in row.reason


ROWS = [
    Row("a", fold=0, scores={"miou": 0.5}, encoder="mit_b0"),
    Row("b"),
    Row("c", fold=1, scores={"miou": 0.9}, encoder="mit_b3"),
]
ROWS += [Row("d", fold=0, scores={"miou": 0.7}, encoder="resnet50")]


@pytest.mark.parametrize(
    ("wanted", "sort", "expected"),
    [
        (None, "miou", "cdab"),
        (None, "-miou", "adcb"),
        (None, "folder", "dcba"),
        (None, "-folder", "abcd"),
        ("fold=0", "miou", "da"),
        ("encoder=mit_*", "miou", "ca"),
        ("encoder=mit_b0,fold=0", "miou", "a"),
        ("encoder=mit_b0, fold = 1", "miou", ""),
        ("encoder=mit", "miou", ""),
        ("status=unreadable", "-fold", "adcb"),
    ],
)
def test_filter_and_sort(wanted, sort, expected):
    assert "".join(row.folder for row in arrange(ROWS, wanted, sort)) == expected


@pytest.mark.parametrize(
    ("wanted", "sort", "words"),
    [
        (None, "dream", "`dream` in `sort = dream`"),
        ("dream=1", "miou", "`dream` in `filter = dream=1`"),
        ("fold", "miou", "Found `fold`"),
        ("fold=0,", "miou", "Found ``"),
    ],
)
def test_filters_and_orders_that_are_none(wanted, sort, words):
    with pytest.raises(ConfigError, match=words):
        arrange(ROWS, wanted, sort)


def test_json_has_every_column_and_the_limit_comes_after_the_order(listed, capsys, tmp_path):
    for fold, miou in enumerate((0.4, 0.8, 0.6)):
        hits = round(miou * 100)
        listed(fold=fold, confusion=[[hits, 100 - hits, 0], [0, 0, 0], [0, 0, 0]])
    rows = json.loads(printed(capsys, tmp_path / "outputs", sort="miou", limit="2"))
    assert [tuple(row) for row in rows] == [COLUMNS] * 2
    best = [row["miou"] for row in rows]
    assert best == sorted(best, reverse=True)
    assert best[0] > read_row(tmp_path / "outputs/a/fold0/2026-01-01_00-00-00-s0").scores["miou"]
    assert [row["fold"] for row in rows] == [1, 2]


def test_the_table(listed, capsys, tmp_path):
    folder = listed(facts={"wall_time_s": 3661.4, "started": "2026-01-31T12:00:00+00:00"})
    header, line, count = printed(capsys, tmp_path / "outputs", json=False).splitlines()
    assert header.split() == (
        [
            "name",
            "task",
            "encoder",
            "loss",
            "fold",
            "seed",
            "status",
            "monitor",
            "value",
            "best_epoch",
            "miou",
            "epochs",
            "wall_time",
            "started",
            "folder",
        ]
    )
    assert line.split()[:9] == ["a", "segmentation", "mit_b0", "ce_dice", "0", "0", "finished", "val/miou", "0.5000"]
    assert line.split()[9] == "2"  # the second, which metrics.json calls 1
    assert read_row(folder).best_epoch == 1
    assert arrange([read_row(folder)], "best_epoch=2", "fold")
    assert line.split()[-3:] == ["1:01:01", "2026-01-31T12:00:00+00:00", str(folder)]
    assert count == "1 of 1 runs"


def test_no_run_at_all(capsys, tmp_path):
    assert printed(capsys, tmp_path, json=False) == f"No run folder below `{tmp_path}`.\n"
    assert json.loads(printed(capsys, tmp_path)) == []


@pytest.mark.parametrize("limit", ["0", "-1", "many", True])
def test_a_limit_that_is_none(tmp_path, limit):
    with pytest.raises(ConfigError, match="`limit` should be a whole number above 0"):
        runs(settings(tmp_path, limit=limit))
