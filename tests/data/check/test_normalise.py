"""What converters write soundly in another form is joined, kept and trained on; ids come back."""

import json

import pytest
import torch
from PIL import Image

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, Instances

from resnest_d2.data import check_coco, register_coco
from resnest_d2.data.check.normalise import GIVEN_ID, given_ids, normalise
from resnest_d2.evaluation import CocoEvaluator
from resnest_d2.evaluation.coco_evaluator import RESULTS

SQUARE = [[1, 1, 5, 1, 5, 5, 1, 5]]


def _object(number, image_id, category_id=1, **changes):
    base = {"id": number, "image_id": image_id, "category_id": category_id, "bbox": [1, 1, 4, 4]}
    return base | {"iscrowd": 0, "area": 16, "segmentation": SQUARE} | changes


def _file(images, annotations, categories=({"id": 1, "name": "cat"},)):
    """Content of a file; ``images`` are (id, file name), of 12 x 8 pixels."""
    rows = [{"id": i, "file_name": name, "width": 12, "height": 8} for i, name in images]
    return {"images": rows, "annotations": list(annotations), "categories": list(categories)}


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a file beside a folder with images a.png, b.png; changed copies go to a cache here."""
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "images").mkdir()
    for number, name in enumerate("ab"):
        Image.new("RGB", (12, 8), (number, 0, 0)).save(tmp_path / "images" / f"{name}.png")

    def write(content, encoding="utf-8"):
        (tmp_path / "own.json").write_bytes(json.dumps(content).encode(encoding))
        return str(tmp_path / "own.json"), str(tmp_path / "images")

    return write


def _loaded(pair, **kwargs):
    """Objects of each file as Detectron2 loads them, and the changed copy."""
    name = register_coco(*pair, **kwargs)
    records = DatasetCatalog.get(name)
    objects = {record["file_name"][-5:]: len(record["annotations"]) for record in records}
    return objects, json.loads(open(MetadataCatalog.get(name).json_file).read())


@pytest.mark.parametrize(
    ("images", "references", "numbers", "joined"),
    [
        (["a", "b"], ["a", "b"], [1, 2], [1, 2]),
        (["17", "9"], [17, "9"], [17, 9], [17, 9]),  # references of the other type
        ([17, 9], ["17", 9.0], [17, 9], [17, 9]),
        (["007", 8], [7, "8.0"], [7, 8], [7, 8]),
        ([-1, 0], [-1, "0"], [1, 0], [1, 0]),
        ([17, "17"], [17, "17"], [17, 18], [17, 18]),  # not the same: none may take the other's
        ([2.0, 1 << 70], [2, 1 << 70], [2, 3], [2, 3]),
    ],
)
def test_ids_of_any_type_become_numbers_that_references_follow(images, references, numbers, joined):
    content = _file(
        zip(images, ("a.png", "b.png"), strict=True),
        [_object(number, image_id) for number, image_id in enumerate(references, start=1)],
    )
    given = [image["id"] for image in content["images"]]
    normalise(content, lambda *_: None)
    assert [image["id"] for image in content["images"]] == numbers
    assert [annotation["image_id"] for annotation in content["annotations"]] == joined
    assert [image.get(GIVEN_ID, image["id"]) for image in content["images"]] == given


def test_a_reference_to_nothing_does_not_meet_a_number_that_was_given_to_another():
    content = _file([("a", "a.png")], [_object(1, 1)])  # "a" is image 1 now
    normalise(content, lambda *_: None)
    assert content["annotations"][0]["image_id"] != content["images"][0]["id"]


def test_rows_of_one_file_are_one_image_and_only_these(write):
    rows = [(100, "a.png"), (101, "./a.png"), (102, "b.png"), (102, "b.png")]
    pair = write(_file(rows, [_object(i, number) for i, (number, _) in enumerate(rows, start=1)]))
    objects, written = _loaded(pair)
    assert objects == {"a.png": 2, "b.png": 2}
    assert [image["id"] for image in written["images"]] == [100, 102]
    # Two files of one id: nobody knows whose the annotation is.
    pair = write(_file([(1, "a.png"), (2, "a.png"), (2, "b.png")], [_object(1, 2)]))
    with pytest.raises(ValueError, match="duplicate-image-id"):
        register_coco(*pair)


def test_annotation_ids_carry_nothing_and_are_numbered_anew_where_they_are_no_ids(write):
    numbers = [7, 7, 0, "text", -3, 2.5, None]
    annotations = [_object(number, 1, area=place) for place, number in enumerate(numbers)]
    del annotations[-1]["id"]
    objects, written = _loaded(write(_file([(1, "a.png"), (2, "b.png")], annotations)))
    assert objects["a.png"] == 7
    ids = [annotation["id"] for annotation in written["annotations"]]
    assert ids[0] == 7 and len(set(ids)) == 7 and min(ids) > 0


def test_the_objects_of_a_file_joined_with_itself_are_counted_once(write):
    content = _file([(1, "a.png"), (2, "b.png")], [_object(1, 1), _object(2, 2, area=7)])
    joined = {section: entries + entries for section, entries in content.items()}
    objects, written = _loaded(write(joined))
    assert objects == {"a.png": 1, "b.png": 1}
    assert {section: len(written[section]) for section in content} == {
        "images": 2,
        "annotations": 2,
        "categories": 1,
    }


def test_sizes_areas_flags_and_keypoint_counts_are_converted_or_computed(write):
    person = {"id": 1, "name": "person", "keypoints": ["L_eye", "R_eye", "nose"]}
    points = [2, 2, 2, 3, 3, 1, 0, 0, 0]
    annotations = [
        _object(1, 1, keypoints=points, area=None),
        _object(2, 1, keypoints=points, num_keypoints=3, iscrowd=None),
        _object(3, 1, keypoints=points, iscrowd="0", area="big", segmentation=[]),
    ]
    content = _file([(1, "a.png"), (2, "b.png")], annotations, [person])
    content["images"][0].update(width=12.0, height="8")
    objects, written = _loaded(write(content))
    assert objects["a.png"] == 3
    image = written["images"][0]
    assert (image["width"], image["height"]) == (12, 8)
    assert [a["num_keypoints"] for a in written["annotations"]] == [2, 2, 2]
    assert [a["iscrowd"] for a in written["annotations"]] == [0, 0, 0]
    assert [a["area"] for a in written["annotations"]] == [16, 16, 16]  # the mask's, the box's


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_file_in_another_unicode_encoding_is_read(write, encoding):
    pair = write(_file([(1, "a.png")], [_object(1, 1)]), encoding)
    assert [p.kind for p in check_coco(*pair)] == ["encoding"]
    assert _loaded(pair)[0] == {"a.png": 1}


def test_categories_of_joined_files_are_one_where_they_agree(write):
    cat, dog = {"id": "1", "name": "cat"}, {"id": 2, "name": "dog"}
    annotations = [_object(1, 1, "1"), _object(2, 1, 1), _object(3, 1, 2)]
    pair = write(_file([(1, "a.png")], annotations, [cat, dog, dict(cat), dict(dog)]))
    name = register_coco(*pair)
    assert MetadataCatalog.get(name).thing_classes == ["cat", "dog"]
    classes = [a["category_id"] for a in DatasetCatalog.get(name)[0]["annotations"]]
    assert classes == [0, 0, 1]
    dog["name"] = "wolf"
    pair = write(_file([(1, "a.png")], annotations, [cat, dog, {"id": 2, "name": "dog"}]))
    with pytest.raises(ValueError, match="duplicate-category-id"):
        register_coco(*pair)


def test_results_carry_the_ids_of_the_file(write, tmp_path):
    categories = [{"id": "x", "name": "cat"}, {"id": 4, "name": "dog"}]
    pair = write(_file([("first", "a.png"), (5, "b.png")], [_object(1, "first", "x")], categories))
    name = register_coco(*pair)
    evaluator = CocoEvaluator(name, tasks=("bbox",), output_dir=str(tmp_path))
    evaluator.reset()
    for record, score in zip(DatasetCatalog.get(name), (0.1, 0.9), strict=True):
        found = Instances((8, 12), pred_boxes=Boxes(torch.tensor([[1.0, 1, 5, 5]])))
        found.scores = torch.tensor([score])
        found.pred_classes = torch.tensor([1])  # "x", which is numbered after 4
        evaluator.process([record], [{"instances": found}])
    assert evaluator.evaluate()["bbox"]["AP-cat"] == pytest.approx(100)
    results = json.loads((tmp_path / RESULTS).read_text())
    assert {r["image_id"] for r in results} == {"first", 5}
    assert {r["category_id"] for r in results} == {"x"}


def test_a_sound_file_is_registered_as_it_is(write):
    pair = write(_file([(1, "a.png"), (2, "b.png")], [_object(1, 1), _object(2, 2)]))
    assert check_coco(*pair) == []
    assert MetadataCatalog.get(register_coco(*pair)).json_file == pair[0]


def test_an_id_of_ours_that_a_strangers_file_has_of_another_type_is_not_used():
    entries = {1: {"id": 1, GIVEN_ID: "a"}, 2: {"id": 2, GIVEN_ID: [1]}, 3: {"id": 3, GIVEN_ID: {}}}
    assert given_ids(entries) == {1: "a"}


def test_ids_that_have_one_hash_are_joined_in_linear_time():
    ids = [number * (2**61 - 1) for number in range(9, 50_000)]  # all have the hash 0
    categories = [{"id": number, "name": str(number)} for number in ids]
    rows = [(number, f"{number}.png") for number in ids]
    content = _file(rows, [_object(1, ids[3], ids[5])], categories)
    content["images"].append({"id": 1, "file_name": "a.png", "width": ids[0], "height": 8})
    content["images"] += [
        {"id": 1, "file_name": "a.png", "width": width, "height": 8} for width in ids
    ]
    normalise(content, lambda *_: None)
    (annotation,) = content["annotations"]
    by_id = {entry["id"]: entry[GIVEN_ID] for entry in content["images"] if GIVEN_ID in entry}
    assert by_id[annotation["image_id"]] == ids[3]
    assert content["categories"][5]["id"] == annotation["category_id"]


def test_references_that_have_one_hash_are_checked_in_linear_time(write):
    objects = [_object(i, 1, i * (2**61 - 1)) for i in range(1, 40_000)]
    found = check_coco(*write(_file([(1, "a.png")], objects)))
    assert sum(problem.kind == "unknown-category" for problem in found) == len(objects)
