import json

from hsl.reports.facts import audits, package_rows
from hsl.reports.gather import gather

AUDIT = {
    "stopped": False, "method": "kfold", "groups": "group", "num_pictures": {"train": 8, "val": 4, "test": 0},
    "near_duplicates": "stop", "threshold": 0.98, "num_inside": 7, "num_across": 1,
    "findings": [{"rule": "c", "severity": "warn", "message": "one pair", "ids": [], "files": []}],
}  # fmt: skip


def test_alike_audits_stand_together(make_run, tmp_path):
    for fold in range(3):
        changed = {"findings": [], "near_duplicates": "off", "groups": None} if fold == 2 else {}
        (make_run(fold=fold) / "audit.json").write_text(json.dumps(AUDIT | changed))
    make_run("b", "b")
    first, absent, last = audits(gather([str(tmp_path / "outputs")]))
    assert list(first.runs) == ["a fold 0", "a fold 1"]
    assert (first.verdict, first.pictures) == ("passed, findings: 1", "train 8, val 4, test 0")
    assert first.duplicates.startswith("1 across parts, 7 inside")
    assert first.findings == [("c", "warn", "one pair")]
    assert absent.verdict.startswith("no audit: ")
    assert (last.verdict, last.duplicates, last.method) == ("passed", "not searched", "kfold, not grouped")


def test_packages_with_all_their_versions(make_run, tmp_path):
    make_run(provenance={"python": "3.11.7", "packages": {"torch": "2.9.0"}})
    make_run(fold=1, provenance={"python": "3.11.7", "packages": {"torch": "2.10.0"}})
    make_run("b", "b")
    found = package_rows(gather([str(tmp_path / "outputs")]))
    assert found == [("Python", ["3.11.7"]), ("torch", ["2.9.0", "2.10.0"])]
