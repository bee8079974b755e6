from pathlib import Path

import pytest

from hsl.data.formats.findings import Findings
from hsl.errors import DataError


def test_nothing_found_raises_nothing():
    findings = Findings()
    findings.add_names([], "Broken are", "Mend them.")
    findings.raise_if_any(Path("root"))


def test_one_finding_is_the_whole_message():
    findings = Findings()
    findings.add("`a` is broken. Correct it.")
    with pytest.raises(DataError) as error:
        findings.raise_if_any(Path("root"))
    assert str(error.value) == "`a` is broken. Correct it."


def test_several_findings_are_raised_together():
    findings = Findings()
    findings.add("`a` is broken. Correct it.")
    findings.add_names(["b", "c"], "Lost are", "Find them.")
    with pytest.raises(DataError) as error:
        findings.raise_if_any(Path("root"))
    assert str(error.value) == "`root` has 2 faults:\n- `a` is broken. Correct it.\n- Lost are `b`, `c`. Find them."


def test_the_first_names_are_shown_and_the_rest_counted():
    findings = Findings()
    findings.add_names([str(number) for number in (0, 0, 1, 2, 3, 4, 5, 6, 7)], "Lost are", "Find them.")
    assert findings.sentences == ["Lost are `0`, `1`, `2`, `3`, `4` and 3 more. Find them."]
