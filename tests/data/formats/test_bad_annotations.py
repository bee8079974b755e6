"""What is wrong with an export is told with file and item, all at once; what has a meaning keeps it."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.data.formats._exports import EXPORTS, HEIGHT, WIDTH, dump, save, scenes
from tests.data.formats._read import ids_of, mask_of, message, read

from hsl.errors import ConfigError

SQUARE = [[10.0, 10.0], [30.0, 10.0], [30.0, 30.0], [10.0, 30.0]]
GREY = np.full((HEIGHT, WIDTH), 90, np.uint8)


def one_labelme(root: Path, *shapes: Any, **changed: Any) -> Path:
    save(GREY, root / "a.png")
    content = {"version": "5", "shapes": list(shapes), "imagePath": "a.png", "imageHeight": HEIGHT, "imageWidth": WIDTH}
    dump(content | changed, root / "a.json")
    return root


def shape(points: Any = SQUARE, label: Any = "crack", kind: str = "polygon", **more: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "shape_type": kind, **more}


def one_coco(root: Path, *objects: dict[str, Any], **changed: Any) -> Path:
    save(GREY, root / "a.png")
    known = {"image_id": 1, "category_id": 1}
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": HEIGHT, "width": WIDTH}],
        "annotations": [{"id": i, **known, **each} for i, each in enumerate(objects, start=1)],
        "categories": [{"id": 1, "name": "crack"}, {"id": 2, "name": "hole"}],
    }
    dump(content | changed, root / "a.json")
    return root


def flat(points: list[list[float]] = SQUARE) -> list[list[float]]:
    return [[number for point in points for number in point]]


@pytest.mark.parametrize("name", ["labelme", "coco", "yolo", "cvat", "label_studio", "cityscapes"])
def test_a_folder_of_another_tool_is_named(name: str, tmp_path: Path) -> None:
    for other in ("labelme", "coco", "yolo", "cvat"):
        if other != name:
            EXPORTS[other](tmp_path / other, scenes())
            assert f"`data={other}`" in message(name, tmp_path / other)


def test_labelme_tells_all_faults_at_once(tmp_path: Path) -> None:
    nan = float("nan")
    wrong = [
        (shape([["10", 1], [2, 3], [4, 5]]), "numbers, found '10'"), (shape([[nan, 1], [2, 3], [4, 5]]), "finite.*nan"),
        (shape([[1e300, 1], [2, 3], [4, 5]]), "finite"), (shape([[1, 2, 3]]), "pairs"),
        (shape([[1, 2], [3]]), "unlike"),
        (shape(None), "list of numbers"), (shape(label=None), "a name, found nothing"),
        (shape(label=""), "label"), (shape(kind="blob"), "shape_type"), ("text", "object"),
        (shape([[1, 1]], kind="circle"), "."), (shape([[1, 1], [3, 3]], kind="mask", mask="%%"), "base64"),
        (shape([[1, 1], [3, 3]], kind="mask", mask="AAAA"), "picture that can be read"),
    ]  # fmt: skip
    for fault, what in wrong:
        text = message("labelme", one_labelme(tmp_path, fault, shape()))
        assert re.search(f"a.json, shape 1` \\(.*{what}", text), text
    text = message(
        "labelme", one_labelme(tmp_path, *(fault for fault, _ in wrong), shape([[1, 1], [2, 2]], kind="line"))
    )
    assert f"{len(wrong)} cannot be read" in text
    assert "are lines" in text
    assert "has 2 faults" in text


def test_boxes_and_lines_ask_what_they_are(tmp_path: Path) -> None:
    box, line = shape([[10, 10], [20, 20]], kind="rectangle"), shape([[0, 5.5], [60, 5.5]], kind="line")
    root = one_labelme(tmp_path, box, line, shape([[1, 1]], kind="point"), shape(label="hole"))
    text = message("labelme", root)
    assert "boxes=fill" in text
    assert "line_width=3" in text
    catalogue = read("labelme", root, boxes="fill", line_width=3)
    assert (mask_of(catalogue) == 1).sum() == 3 * 60 + 4  # the box lies under the square; the line has round ends
    told = " ".join(catalogue.not_read)
    assert "1 boxes count as the objects in them" in told
    assert "1 points have no area" in told
    ignored = read("labelme", root, boxes="ignore", line_width=0)
    assert ignored.classes == ("background", "hole")
    assert "1 lines are left out" in " ".join(ignored.not_read)
    with pytest.raises(ConfigError, match=r"boxes.*should be one of fill, ignore, skip"):
        read("labelme", root, boxes="filled")


def test_coordinates_outside_are_cut_and_counted(tmp_path: Path) -> None:
    beyond = shape([[-20, -20], [5, -20], [5, 5], [-20, 5]])
    few, closed = shape([[1, 1], [2, 2], [1, 1]]), shape([*SQUARE, SQUARE[0]])
    catalogue = read("labelme", one_labelme(tmp_path, beyond, few, closed))
    assert (mask_of(catalogue) == 1).sum() == 25 + 400
    told = " ".join(catalogue.not_read)
    assert "1 regions reach beyond their picture" in told
    assert "1 polygons have fewer than 3 corners" in told


def test_labels_become_classes_by_the_settings(tmp_path: Path) -> None:
    shapes = [shape(label="crack"), shape([[0, 0], [4, 0], [4, 4], [0, 4]], label="Crack"),
              shape([[40, 0], [44, 0], [44, 4], [40, 4]], label="ignore"),
              shape([[12, 12], [14, 12], [14, 14], [12, 14]], label="_background_")]  # fmt: skip
    root = one_labelme(tmp_path, *shapes)
    assert "`Crack` and `crack`" in message("labelme", root)
    catalogue = read("labelme", root, classes={"crack": ["crack", "Crack"]}, background="clean")
    assert catalogue.classes == ("clean", "crack")
    found = np.unique(mask_of(catalogue), return_counts=True)
    assert dict(zip(*map(np.ndarray.tolist, found), strict=True))[255] == 16
    assert (mask_of(catalogue) == 1).sum() == 16 + 400 - 4
    assert "Did you mean `crack`?" in message("labelme", root, classes=["crak"])
    assert "labels that `data.reader.classes` lacks are background: Crack" in " ".join(
        read("labelme", root, classes=["crack"]).not_read
    )
    numbered = one_labelme(tmp_path, shape(label=7))
    assert read("labelme", numbered).classes == ("background", "7")


def test_parts_of_a_group_are_one_object(tmp_path: Path) -> None:
    other = [[40.0, 10.0], [50.0, 10.0], [50.0, 20.0]]
    catalogue = read(
        "labelme", one_labelme(tmp_path, shape(group_id=3), shape(other, group_id=3), shape([[0, 0], [5, 0], [0, 5]]))
    )
    assert set(np.unique(ids_of(catalogue.records[0]))) == {0, 1, 2}


def test_pictures_that_are_missing_or_not_annotated(tmp_path: Path) -> None:
    one_labelme(tmp_path, shape())
    save(GREY, tmp_path / "b.png")
    assert [record.id for record in read("labelme", tmp_path).records] == ["a"]
    assert "1 picture is without annotation and left out" in " ".join(read("labelme", tmp_path).not_read)
    both = read("labelme", tmp_path, unannotated="background")
    assert [record.id for record in both.records] == ["a", "b"]
    assert not mask_of(both, both.records[1]).any()
    dump({"shapes": [shape()], "imagePath": "C:\\new\\c.png"}, tmp_path / "d.json")
    assert re.search(r"Missing are 1: `C:\\new\\c.png` \(.*d.json\)", message("labelme", tmp_path))
    (tmp_path / "d.json").unlink()
    save(GREY, tmp_path / "deep" / "a.png")
    dump({"shapes": [shape()], "imagePath": "a.png"}, tmp_path / "deep" / "a.json")
    assert [record.id for record in read("labelme", tmp_path).records] == ["a", "deep__a"]
    dump({"shapes": [shape()], "imagePath": "../a.png"}, tmp_path / "deep" / "a.json")
    assert "A picture should be annotated once" in message("labelme", tmp_path)


def test_coco_tells_all_faults_at_once(tmp_path: Path) -> None:
    wrong = [
        ({"segmentation": [["x", 1, 2, 3, 4, 5]]}, "numbers, found 'x'"), ({"segmentation": [[1, 2, 3]]}, "pairs"),
        ({"segmentation": {"size": [9, 9], "counts": [80]}}, "81 pixels, found 80"), ({}, "neither"),
        ({"segmentation": flat(), "category_id": 9}, "category 9 is not in"), ({"segmentation": 3}, "polygons or run"),
        ({"segmentation": flat(), "image_id": 5}, "image 5 is not in `images`"),
        ({"segmentation": flat(), "image_id": [1]}, r"image \[1\] is not"),
        ({"segmentation": [None]}, "numbers, found None"), ({"bbox": [1, 2, None, 4]}, "neither"),
    ]  # fmt: skip
    for fault, what in wrong:
        text = message("coco", one_coco(tmp_path, fault, {"segmentation": flat()}))
        assert re.search(f"a.json, annotation 1` \\(.*{what}", text), text
    root = one_coco(tmp_path, {"segmentation": flat()}, categories=[{"id": 1, "name": None}, {"id": 1, "name": "a"}, 3],
                    images=[{"id": 1}, {"id": None, "file_name": "a.png"}])  # fmt: skip
    text = message("coco", root)
    for what in ("another one has its id", "name should be text", "`file_name`", "`categories` should hold objects"):
        assert what in text


def test_coco_crowds_boxes_and_categories(tmp_path: Path) -> None:
    size = [HEIGHT, WIDTH]
    crowd = {"segmentation": {"size": size, "counts": [0, HEIGHT * WIDTH]}, "iscrowd": 1, "category_id": 0}
    hole = {"segmentation": flat([[12, 12], [16, 12], [16, 16], [12, 16]]), "category_id": 7}
    categories = [
        {"id": 0, "name": "crack"},
        {"id": 7, "name": "hole"},
        {"id": 9, "name": "crack"},
        {"id": 3, "name": "x"},
    ]
    root = one_coco(tmp_path, hole, {"segmentation": flat(), "category_id": 9}, crowd, categories=categories)
    catalogue = read("coco", root)
    assert catalogue.classes == ("background", "crack", "hole")
    mask = mask_of(catalogue)
    assert ((mask == 1).sum(), (mask == 2).sum()) == (400 - 16, 16)
    assert (mask == 255).sum() == HEIGHT * WIDTH - 400
    told = " ".join(catalogue.not_read)
    assert "labels without a region that counts are no classes: x" in told
    assert "1 categories have a name that another has" in told
    box = one_coco(tmp_path, {"bbox": [1, 2, 3, 4]}, {"segmentation": flat()})
    assert "boxes=fill" in message("coco", box)
    assert (mask_of(read("coco", box, boxes="ignore")) == 255).sum() == 12


def test_coco_chooses_files(tmp_path: Path) -> None:
    drawn = scenes()
    EXPORTS["coco"](tmp_path, drawn)
    for scene in drawn:
        if scene.split == "train":
            (tmp_path / "train" / f"{scene.name}.png").unlink()
    assert "data.reader.annotations='*val*.json'" in message("coco", tmp_path)
    assert {record.split for record in read("coco", tmp_path, annotations="*val*.json").records} == {"val"}
    assert "Choose from" in message("coco", tmp_path, annotations="nothing*")
    save(GREY, tmp_path / "val" / "extra.png")
    assert "1 picture is without annotation" in " ".join(read("coco", tmp_path, annotations="*val*.json").not_read)


def test_coco_panoptic(tmp_path: Path) -> None:
    ids = np.zeros((HEIGHT, WIDTH), np.int64)
    ids[:, :20], ids[:, 20:30], ids[:, 30:40] = 300, 70000, 5
    png = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=2).astype(np.uint8)
    save(GREY, tmp_path / "images" / "a.png")
    save(png, tmp_path / "panoptic_val" / "a.png")
    segments = [
        {"id": 300, "category_id": 1},
        {"id": 70000, "category_id": 2},
        {"id": 5, "category_id": 2, "iscrowd": 1},
    ]
    content: dict[str, Any] = {
        "images": [{"id": 1, "file_name": "a.png", "height": HEIGHT, "width": WIDTH}],
        "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": segments}],
        "categories": [{"id": 1, "name": "sky", "isthing": 0}, {"id": 2, "name": "dog", "isthing": 1}],
    }
    dump(content, tmp_path / "panoptic_val.json")
    catalogue = read("coco", tmp_path)
    assert catalogue.classes == ("background", "sky", "dog")
    assert mask_of(catalogue)[0, [0, 20, 30, 40]].tolist() == [1, 2, 255, 255]
    assert ids_of(catalogue.records[0])[0, [0, 20, 30, 40]].tolist() == [0, 1, 0, 0]
    segments.pop(0)
    dump(content, tmp_path / "panoptic_val.json")
    catalogue = read("coco", tmp_path)
    with pytest.raises(Exception, match="does not list, such as 300"):
        mask_of(catalogue)


def test_a_picture_of_another_size_and_a_turned_one(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"48 x 65 .*a.png` has 48 x 64"):
        mask_of(read("labelme", one_labelme(tmp_path, shape(), imageWidth=WIDTH + 1)))
    exif = Image.Exif()
    exif[274] = 6  # shown turned to the right: the stored left edge is the upper one
    Image.fromarray(GREY).save(tmp_path / "a.png", exif=exif)
    corner = shape([[0, 0], [8, 0], [8, 4], [0, 4]])
    for height, width, expected in ((HEIGHT, WIDTH, (8, 4, True)), (WIDTH, HEIGHT, (4, 8, False))):
        content = {"shapes": [corner], "imagePath": "a.png", "imageHeight": height, "imageWidth": width}
        dump(content, tmp_path / "a.json")
        mask = mask_of(read("labelme", tmp_path))
        assert mask.shape == (WIDTH, HEIGHT)
        rows, columns = np.nonzero(mask)
        assert (len(set(rows)), len(set(columns)), bool(columns.min() > 0)) == expected


def cvat_file(root: Path, *images: str, head: str = "") -> Path:
    save(GREY, root / "a.png")
    (root / "a.xml").write_text(f"{head}<annotations>{''.join(images)}</annotations>", encoding="utf8")
    return root


IMAGE = f'<image id="0" name="a.png" width="{WIDTH}" height="{HEIGHT}">'


def test_cvat_tells_faults_and_reads_all_shapes(tmp_path: Path) -> None:
    for inner, what in [
        ('<polygon label="a" points="1,2;3"/>', "pairs"), ('<polygon label="a" points="1,nan;3,4;5,6"/>', "finite"),
        ('<polygon points="1,2;3,4;5,6"/>', "label"), ('<box label="a" xtl="x" ytl="1" xbr="2" ybr="3"/>', "xtl"),
        ('<mask label="a" rle="1, 2" left="0" top="0" width="2" height="2"/>', "fill 2 x 2 pixels, found 3"),
        ('<mask label="a" rle="1, -2" left="0" top="0" width="2" height="2"/>', "whole numbers"),
        ('<ellipse label="a" cx="1" cy="2" rx="inf" ry="1"/>', "rx"),
    ]:  # fmt: skip
        text = message("cvat", cvat_file(tmp_path, IMAGE, inner, "</image>"))
        assert re.search(f"a.xml, line 1` \\(.*{what}", text), text
    shapes = (
        '<box label="a" xtl="10" ytl="10" xbr="20" ybr="14" rotation="90"/>'
        '<ellipse label="b" cx="40" cy="20" rx="5" ry="3"/>'
        '<mask label="a" rle="1, 2, 1" left="0" top="40" width="2" height="2"/><points label="a" points="1,1"/>'
        '<tag label="t"/>'
    )
    catalogue = read("cvat", cvat_file(tmp_path, IMAGE, shapes, "</image>"), boxes="fill")
    mask = mask_of(catalogue)
    assert mask[7:17, 13:17].all()  # ten high, four wide, about its centre
    assert mask[40:42, 0:2].tolist() == [[0, 1], [1, 0]]
    assert mask[20, 40] == 2
    assert "of a video" in message("cvat", cvat_file(tmp_path, "<track/>"))
    assert "document type" in message("cvat", cvat_file(tmp_path, head="<!DOCTYPE a>"))
    empty = cvat_file(tmp_path, IMAGE, "</image>")
    assert "should have a class besides" in message("cvat", empty)


def yolo_file(root: Path, *rows: str, names: str = "names: {0: crack, 5: hole}") -> Path:
    save(GREY, root / "images" / "a.png")
    (root / "labels").mkdir(exist_ok=True)
    (root / "labels" / "a.txt").write_text("\n".join(rows), encoding="utf8")
    (root / "data.yaml").write_text(names, encoding="utf8")
    return root


def test_yolo_tells_faults(tmp_path: Path) -> None:
    good = "5 0.1 0.1 0.4 0.1 0.4 0.4"
    for row, what in [
        ("1 0.1 0.1 0.4 0.1 0.4 0.4", "class 1 is not in `names`"), ("-1 0.1 0.1 0.4 0.1 0.4 0.4", "class -1"),
        ("0.5 0.1 0.1 0.4 0.1 0.4 0.4", "class 0.5"), ("0 0.1 0.1 0.4 0.1 0.4", "pairs"), ("0 x", "numbers"),
        ("0 30 10 64 10 64 40", r"shares of the picture in \[0, 1\], found 30"), ("nan 1 1 1 1 1 1", "class nan"),
        ("0 0.1 0.1 nan 0.1 0.4 0.4", "found nan"), ("0", "pairs"),
    ]:  # fmt: skip
        text = message("yolo", yolo_file(tmp_path, good, row))
        assert re.search(f"a.txt, line 2` \\(.*{what}", text), text
    assert "boxes=fill" in message("yolo", yolo_file(tmp_path, good, "0 0.5 0.5 0.1 0.1"))
    assert read("yolo", yolo_file(tmp_path, good)).classes == ("background", "hole")
    for names, what in [("names: [yes, no]", "into quotes"), ("nc: 2", "names of the classes"), ("names: 3", "list"),
                        ("names: [a", "as YAML"), ("names: {a: b}", "whole numbers")]:  # fmt: skip
        assert what in message("yolo", yolo_file(tmp_path, good, names=names))
    root = yolo_file(tmp_path, good)
    (root / "labels" / "b.txt").write_text(good, encoding="utf8")
    assert "should have a picture" in message("yolo", root)


def test_yolo_of_roboflow(tmp_path: Path) -> None:
    for part in ("train", "valid"):
        save(GREY, tmp_path / part / "images" / f"{part}_a.jpg")
        (tmp_path / part / "labels").mkdir()
        (tmp_path / part / "labels" / f"{part}_a.txt").write_text("0 0.1 0.1 0.4 0.1 0.4 0.4", encoding="utf8")
    (tmp_path / "README.roboflow.txt").write_text("no labels", encoding="utf8")
    text = "train: ../train/images\nval: ../valid/images\nnc: 1\nnames: ['crack']\n"
    (tmp_path / "data.yaml").write_text(text, encoding="utf8")
    assert [(record.id, record.split) for record in read("yolo", tmp_path).records] == [
        ("train_a", "train"),
        ("valid_a", "val"),
    ]


def studio_file(root: Path, *tasks: Any) -> Path:
    save(GREY, root / "a.png")
    dump(list(tasks), root / "p.json")
    return root


def result(kind: str = "polygon", **value: Any) -> dict[str, Any]:
    return {"type": f"{kind}labels", "original_width": WIDTH, "original_height": HEIGHT,
            "value": {"points": [[0, 0], [50, 0], [50, 50]], f"{kind}labels": ["crack"], **value}}  # fmt: skip


def test_label_studio_tells_faults_and_keeps_meanings(tmp_path: Path) -> None:
    def task(*results: Any, **more: Any) -> dict[str, Any]:
        return {"id": 4, "data": {"image": "s3://bucket/x/a.png"}, "annotations": [{"result": list(results)}], **more}

    for fault, what in [
        (result(points=[["a", 1]]), "numbers"), (result(polygonlabels=[]), "one label"), ("x", "value"),
        ({**result(), "image_rotation": 90}, "image_rotation"), ({**result(), "original_width": None}, "_width"),
        ({"value": {"brushlabels": ["a"], "rle": [1, 2]}, "original_width": 2, "original_height": 2}, "a brush"),
        (result(polygonlabels=["a", "b"]), "one label"),
    ]:  # fmt: skip
        text = message("label_studio", studio_file(tmp_path, task(fault)))
        assert re.search(f"task 4, region 1` \\(.*{what}", text), text
    save(GREY, tmp_path / "b.png")
    save(GREY, tmp_path / "c.png")
    empty = {"id": 5, "data": {"image": "/data/local-files/?d=x%2Fb.png"}, "annotations": [{"result": []}]}
    none = {"id": 6, "data": {"image": "c.png"}, "annotations": [], "predictions": [{"result": [result()]}]}
    catalogue = read("label_studio", studio_file(tmp_path, task(result()), empty, none))
    assert [record.id for record in catalogue.records] == ["a", "b"]
    assert mask_of(catalogue).any()
    assert not mask_of(catalogue, catalogue.records[1]).any()
    assert "1 tasks have no annotation" in " ".join(catalogue.not_read)
    short = {"id": 1, "image": "a.png", "label": [{"points": [[0, 0], [50, 0], [50, 50]], "polygonlabels": ["crack"],
             "original_width": WIDTH, "original_height": HEIGHT}]}  # fmt: skip
    np.testing.assert_array_equal(mask_of(read("label_studio", studio_file(tmp_path, short))), mask_of(catalogue))
    save(GREY, tmp_path / "brush" / "task-1-annotation-2-by-1-tag-crack-0.png")
    (tmp_path / "p.json").unlink()
    assert "name tasks, not pictures" in message("label_studio", tmp_path)


def test_voc_and_cityscapes_tell_faults(tmp_path: Path) -> None:
    voc, city = tmp_path / "voc", tmp_path / "city"
    EXPORTS["voc"](voc, scenes())
    (voc / "labelmap.txt").write_text("background:0,0,0::\ncrack:250,50::\ncrack\n", encoding="utf8")
    assert "line 2 (`crack:250,50::`), line 3" in message("voc", voc)
    (voc / "labelmap.txt").unlink()
    (voc / "ImageSets" / "Segmentation" / "val.txt").write_text("part00\ngone\n", encoding="utf8")
    text = message("voc", voc)
    assert "Without one are `gone`" in text
    assert "In two are `part00 (train and val)`" in text
    EXPORTS["cityscapes"](city, scenes())
    dump({"crack": 7, "hole": 7}, city / "classes.json")
    assert "each once" in message("cityscapes", city)
    dump({"crack": 7}, city / "classes.json")
    assert read("cityscapes", city).classes == ("unlabelled", "crack")
    next(city.glob("leftImg8bit/*/*/part00*")).unlink()
    assert "Every mask should have a picture" in message("cityscapes", city)


def damaged(content: bytes) -> dict[str, bytes]:
    """What people and disks make of a file."""
    half, latin1 = content[: len(content) // 2], content.replace(b"crack", "Ri\xdf".encode("latin1"))
    return {"cut off": half, "empty": b"", "zeros": bytes(200), "latin-1": latin1}


@pytest.mark.parametrize(("name", "file"), [("labelme", "part01.json"), ("coco", "annotations/instances_val.json"),
                                            ("cvat", "annotations.xml"), ("label_studio", "project-1.json"),
                                            ("yolo", "labels/train/part00.txt"), ("yolo", "data.yaml")])  # fmt: skip
def test_damaged_files_are_named(name: str, file: str, tmp_path: Path) -> None:
    EXPORTS[name](tmp_path, scenes())
    path = tmp_path / file
    content = path.read_bytes()
    for what, changed in damaged(content).items():
        path.write_bytes(changed)
        if name == "yolo" and what in ("empty", "cut off", "latin-1") and path.suffix == ".txt":
            continue  # an empty one is background; rows may end anywhere; it holds no letters
        text = message(name, tmp_path)
        assert path.name in text or (name == "yolo" and "data.yaml" in text), (what, text)
    for encoding in ("utf-8-sig", "utf-16") if name not in ("yolo", "cvat") else ("utf-8-sig",):
        path.write_text(content.decode(), encoding=encoding)
        assert len(read(name, tmp_path).records) == 6


def test_names_no_screen_can_show(tmp_path: Path) -> None:
    one_labelme(tmp_path, shape(label="\ud800"))
    assert "letters that can be seen" in message("labelme", tmp_path)
    content = json.loads((one_labelme(tmp_path, shape()) / "a.json").read_text(encoding="utf8"))
    dump(content | {"imagePath": "\ud800\x00.png"}, tmp_path / "b.json")
    assert message("labelme", tmp_path).encode("utf8", "replace")
