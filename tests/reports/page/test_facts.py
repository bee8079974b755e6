import json

from hsl.reports.gather import gather
from hsl.reports.page.facts import audits, package_rows, unchecked

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
    older = "not all was checked"
    assert (first.verdict, first.pictures) == (f"findings: 1; {older}", "train 8, val 4, test 0")
    assert first.duplicates.startswith("1 across parts, 7 inside")
    assert first.findings[0] == ("c", "warn", "one pair")
    assert first.findings[1][1] == "not known"
    assert absent.verdict.startswith("no audit: ")
    assert last.verdict == f"nothing found; {older}"
    assert (last.duplicates, last.method) == ("not searched", "kfold, not grouped")


def test_what_was_not_checked_has_not_passed(make_run, tmp_path):
    sound = {rule: {"state": "passed", "reason": ""} for rule in "abcdefg"}
    groups = {"state": "not checked", "reason": "no groups known"}
    off = {"state": "off", "reason": "switched off by `data.audit.near_duplicates`"}
    for fold, states in enumerate([sound, sound | {"b": groups}, sound | {"b": groups, "c": off}]):
        config = {"data": {"labels": {"unchecked": fold == 2}}}
        page = AUDIT | {"findings": [], "states": states}
        (make_run(fold=fold, config=config) / "audit.json").write_text(json.dumps(page))
    make_run("b", "b")
    make_run("b", "b", 1)
    runs = gather([str(tmp_path / "outputs")])
    first, _, second, third = audits(runs)
    assert (first.verdict, first.findings) == ("passed", [])
    assert second.verdict == "nothing found; not all was checked"
    assert second.findings == [("b", "not checked", "no groups known")]
    assert [(rule, state) for rule, state, _ in third.findings] == [("b", "not checked"), ("c", "off")]
    told = sorted(unchecked(runs))
    assert told[0] == "Audit, rule (b): not checked: no groups known. (a fold 1, a fold 2)"
    assert told[1].startswith("Audit, rule (c): off: switched off by")
    assert told[2] == "Pseudo-labels were used without a passed spot check. (a fold 2)"
    assert told[3:] == ["The data were not audited: `audit.json` is missing. (b fold 0, b fold 1)"]


def test_packages_with_all_their_versions(make_run, tmp_path):
    make_run(provenance={"python": "3.11.7", "packages": {"torch": "2.9.0"}})
    make_run(fold=1, provenance={"python": "3.11.7", "packages": {"torch": "2.10.0"}})
    make_run("b", "b")
    found = package_rows(gather([str(tmp_path / "outputs")]))
    assert found == [("Python", ["3.11.7"]), ("torch", ["2.9.0", "2.10.0"])]
