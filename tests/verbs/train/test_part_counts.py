"""What the parts of a split hold, against a loop over the pictures of the demo."""

import numpy as np
import pytest
from hydra.utils import instantiate

from hsl.reports.statistics.part_tests import EVERY
from hsl.verbs.audit import part_tests


def loop_over(data, original, part, index):
    """Groups of a part, how many of them show a class, and pixels of it."""
    shown, pixels = {}, 0
    for record in data.catalogue.records:
        if record.id in data.parts[part]:
            mask = original(record.id)[1]
            group = record.attributes["group"]
            shown[group] = shown.get(group, False) or bool((mask == index).any())
            pixels += int((mask == index).sum())
    return len(shown), sum(shown.values()), pixels


def test_counts_of_masks_are_those_of_a_loop_over_groups(tiny):
    loaded = instantiate(tiny("data.split.groups=group").data)
    data, original = loaded.prepared, loaded.original
    found = part_tests(data)
    assert (found.unit, found.fold, found.data) == ("groups", 0, data.catalogue.name)
    for i, name in enumerate(data.classes["segmentation"]):
        test = next(one for one in found.tests if one.of == "shown" and one.subject == name)
        for part in ("train", "val", "test"):
            num, shown, _ = loop_over(data, original, part, i)
            assert test.groups[part] == num
            assert test.shares[part] == pytest.approx(shown / num)
    pixels = [test for test in found.tests if test.of == "pixels"]
    assert [test.subject for test in pixels] == [EVERY] * 3
    counts = {part: np.array([loop_over(data, original, part, i)[2] for i in range(len(data.classes["segmentation"]))])
              for part in ("train", "val")}  # fmt: skip
    p, q = (values / values.sum() for values in counts.values())
    middle = (p + q) / 2
    terms = [(side[side > 0] * np.log2(side[side > 0] / middle[side > 0])).sum() for side in (p, q)]
    assert pixels[0].divergence == pytest.approx(sum(terms) / 2)


def test_without_groups_the_unit_is_the_picture_and_image_labels_are_compared_too(tiny):
    cfg = tiny("data.split.groups=null", "data.image_labels=[crack,stain]", "data.audit.near_duplicates=off")
    data = instantiate(cfg.data).prepared
    found = part_tests(data)
    assert found.unit == "pictures"
    tests = [test for test in found.tests if test.head == "classification"]
    assert {test.subject for test in tests} == {"crack", "stain"}
    assert {part: len(ids) for part, ids in data.parts.items()} == tests[0].groups


def test_one_image_class_per_picture_is_also_compared_over_all_classes(tiny):
    data = instantiate(tiny("data.image_labels=material").data).prepared
    tests = [test for test in part_tests(data).tests if test.head == "classification"]
    assert tests[0].of == "classes"
    assert tests[0].groups == {
        part: len({data.catalogue.records[i].attributes["group"] for i in range(len(data.catalogue.records))
                   if data.catalogue.records[i].id in ids})
        for part, ids in data.parts.items()
    }  # fmt: skip
