"""Gains of runs and their intervals: against pycocotools, a slow bootstrap, and made-up losses."""

import contextlib
import io
import json

import numpy as np
import pytest
from coco_sets import draw_set
from evaluated_runs import CLASSES, as_truth, draw_results, write_data, write_run

from resnest_d2.analysis.comparing.comparison import compare_runs
from resnest_d2.analysis.comparing.comparison_text import verdict
from resnest_d2.analysis.evaluated_run import read_evaluated_run
from resnest_d2.config import get_config
from resnest_d2.evaluation import evaluate_results
from resnest_d2.evaluation.image_matches import METRICS, weighted_metrics

CATEGORY = CLASSES.index("star") + 1
ONCE = np.ones((1, 6))  # each image of draw_set's counts once


def _evaluate(dataset: dict, results: list[dict], task: str, implementation: str) -> np.ndarray:
    """The six APs, then AP by class, 0-100."""
    with contextlib.redirect_stdout(io.StringIO()):
        found = evaluate_results(as_truth(dataset), results, task, implementation=implementation)
    classes = found.eval["precision"][:, :, :, 0, -1]
    classes = [ap[ap > -1].mean() if (ap > -1).any() else -1 for ap in classes.transpose(2, 0, 1)]
    values = np.array([*found.stats[:6], *classes])
    return np.where(values < 0, np.nan, 100 * values)


def _weighted(dataset: dict, results: list[dict], task: str, times: np.ndarray) -> np.ndarray:
    """The same of each data set in which images count so many times."""
    found = weighted_metrics(as_truth(dataset), results, task, times)
    known = ~np.isnan(found)
    sums = np.where(known, found, 0).sum(axis=0)
    with np.errstate(invalid="ignore"):
        return np.concatenate([sums / known.sum(axis=0), found[:, 0]])


def _duplicated(dataset: dict, results: list[dict], times) -> tuple[dict, list[dict]]:
    """The data set in which each image really is there so many times, under new ids."""
    new = {**dataset, "images": [], "annotations": []}
    found = []
    images = sorted(dataset["images"], key=lambda image: image["id"])
    for image, number in zip(images, times, strict=True):
        for copy_number in range(int(number)):
            copied = {"image_id": 100 * image["id"] + copy_number}
            new["images"].append({**image, "id": copied["image_id"]})
            for annotation in dataset["annotations"]:
                if annotation["image_id"] == image["id"]:
                    name = {"id": len(new["annotations"]) + 1}
                    new["annotations"].append({**annotation, **copied, **name})
            found += [{**r, **copied} for r in results if r["image_id"] == image["id"]]
    return new, found


@pytest.mark.parametrize("seed", range(6))
def test_a_resample_has_the_ap_of_a_set_in_which_the_images_are_duplicated(seed):
    dataset, results = draw_set(seed)
    rng = np.random.default_rng(seed)
    for result in results:  # among equal scores the order is by id, and here are other ids
        result["score"] += float(rng.random()) / 1000
    times = rng.multinomial(6, [1 / 6] * 6, size=3).astype(float)
    assert times.max() > 1
    for task in ("bbox", "segm"):
        found = _weighted(dataset, results, task, times)
        for column, drawn in zip(found.T, times, strict=True):
            expected = _evaluate(*_duplicated(dataset, results, drawn), task, "pycocotools")
            np.testing.assert_allclose(column, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("seed", range(6))
def test_ap_of_the_whole_set_is_that_of_evaluation(seed):
    dataset, results = draw_set(seed)
    for task in ("bbox", "segm"):
        expected = _evaluate(dataset, results, task, "hotcoco")
        found = _weighted(dataset, results, task, ONCE)[:, 0]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)


def test_without_detections_every_ap_is_0():
    dataset, _ = draw_set(0)
    found = _weighted(dataset, [], "bbox", ONCE)[:, 0]
    np.testing.assert_array_equal(found, _evaluate(dataset, [], "bbox", "hotcoco"))
    assert found[0] == 0


def test_an_interval_is_that_of_a_slow_bootstrap(tmp_path):
    results = write_data(tmp_path / "val.json", images=8)
    folders = [
        write_run(tmp_path / name, tmp_path / "val.json", kept)
        for name, kept in (("all", results), ("half", results[::2]))
    ]
    runs = [read_evaluated_run(folder) for folder in folders]
    compared = compare_runs(runs[:1], runs[1:], resamples=40, seed=3).tasks["bbox"]
    dataset = json.loads((tmp_path / "val.json").read_text())
    draws = np.random.default_rng(3).multinomial(8, [1 / 8] * 8, size=40)
    gains = []
    for times in draws:
        both = [
            _evaluate(*_duplicated(dataset, run.results, times), "bbox", "hotcoco") for run in runs
        ]
        gains.append(both[1] - both[0])
    low, high = np.nanpercentile(gains, [2.5, 97.5], axis=0)
    names = (*METRICS, *CLASSES)
    for name, *expected in zip(names, low, high, strict=True):
        gain = (compared.metrics | compared.classes)[name]
        assert gain.low <= gain.high
        np.testing.assert_allclose([gain.low, gain.high], expected, rtol=0, atol=1e-8)


def test_the_drawn_set_has_crowds_sizes_and_equal_scores():
    dataset, results = draw_results(30, 100, classes=3)
    areas = np.array([a["area"] for a in dataset["annotations"]])
    assert min((areas < 32**2).sum(), (areas > 96**2).sum()) > 10
    assert {a["iscrowd"] for a in dataset["annotations"]} == {0, 1}
    assert len(results) == 30 * 100 and len({r["score"] for r in results}) <= 101
    assert (dataset, results) == draw_results(30, 100, classes=3)
    assert draw_results(30, 100, classes=3, seed=1) != (dataset, results)
    assert all(0 <= r["bbox"][0] <= r["bbox"][0] + r["bbox"][2] <= 640 for r in results)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A folder with the data and the results of a good run."""
    folder = tmp_path_factory.mktemp("drawn")
    return folder, write_data(folder / "val.json")


def _runs(drawn, tmp_path, *all_results, opts=()):
    folder, _ = drawn
    return [
        read_evaluated_run(write_run(tmp_path / f"run{n}", folder / "val.json", results, *opts))
        for n, results in enumerate(all_results)
    ]


def test_equal_runs_have_no_gain(drawn, tmp_path):
    first, second = _runs(drawn, tmp_path, drawn[1], drawn[1])
    compared = compare_runs([first], [second], resamples=100)
    for task, found in compared.tasks.items():
        assert found.metrics["AP"].baseline > 5
        for gain in (*found.metrics.values(), *found.classes.values()):
            assert (gain.gain, gain.low, gain.high) == (0, 0, 0) and not gain.is_clear
        text = verdict(compared, task)
        assert "no difference" in text and "which contains 0" in text
    assert set(compared.tasks) == {"bbox", "segm"} and not compared.changes


@pytest.mark.parametrize(
    ("opts", "name"),
    [
        ("", "ResNeSt-14"),
        ("MODEL.RESNETS.RADIX 1", "ResNeSt-14"),
        ("MODEL.RESNETS.RADIX 0", "ResNet-14-D"),
        ("MODEL.RESNETS.RADIX 0 MODEL.RESNETS.DEEP_STEM False", "ResNet-14"),
    ],
)
def test_the_backbone_has_its_papers_name(drawn, tmp_path, opts, name):
    (run,) = _runs(drawn, tmp_path, drawn[1], opts=opts.split())
    assert compare_runs([run], [run], resamples=40).other.backbone == name


def _without_half(results):
    stars = [r for r in results if r["category_id"] == CATEGORY]
    lost = {id(r) for r in stars[::2]}
    return [r for r in results if id(r) not in lost]


def _shifted(results):
    """Every box of the class a third of its width to the right; masks stay."""
    return [
        {**r, "bbox": [r["bbox"][0] + r["bbox"][2] / 3, *r["bbox"][1:]]}
        if r["category_id"] == CATEGORY
        else r
        for r in results
    ]


@pytest.mark.parametrize("damage", [_without_half, _shifted])
def test_a_loss_is_found_and_its_class_named(drawn, tmp_path, damage):
    good, bad = _runs(drawn, tmp_path, drawn[1], damage(drawn[1]))
    compared = compare_runs([good], [bad], resamples=400)
    found = compared.tasks["bbox"]
    assert found.metrics["AP"].high < 0
    assert found.classes["star"].high < 0
    for name in ("circle", "square", "ring"):
        assert (found.classes[name].gain, found.classes[name].is_clear) == (0, False)
    text = verdict(compared, "bbox")
    assert f"{bad.name} loses" in text and "star -" in text and "circle" not in text
    masks_too = damage is _without_half
    assert compared.tasks["segm"].classes["star"].is_clear is masks_too
    back = compare_runs([bad], [good], resamples=400)
    assert f"{good.name} gains" in verdict(back, "bbox")
    assert back.tasks["bbox"].classes["star"].low > 0


def test_seeds_are_averaged_and_their_spread_widens_the_interval(drawn, tmp_path):
    _, results = drawn
    runs = _runs(drawn, tmp_path, results, results[::2], results[::3], results[::2], results[::2])
    different, equal = runs[:3], [runs[1], runs[3], runs[4]]
    spread = compare_runs(equal, different, resamples=100).tasks["bbox"]
    alone = [compare_runs(equal[:1], [run], resamples=100).tasks["bbox"] for run in different]
    aps = tuple(single.metrics["AP"].other for single in alone)
    assert spread.other_values == aps and len(set(aps)) == 3
    ap = spread.metrics["AP"]
    assert ap.other == pytest.approx(np.mean(aps), abs=1e-9)
    assert ap.gain == pytest.approx(ap.other - ap.baseline, abs=1e-8)
    widths = [single.metrics["AP"].high - single.metrics["AP"].low for single in alone]
    assert ap.high - ap.low > 1.5 * max(widths)
    # Equal runs on both sides: nothing but noise of rounding, which is no gain.
    for gain in compare_runs(equal, equal[:1], resamples=100).tasks["bbox"].classes.values():
        assert (gain.gain, gain.low, gain.high) == (0, 0, 0)


def test_the_same_data_in_another_file_is_the_same(drawn, tmp_path):
    folder, results = drawn
    dataset = json.loads((folder / "val.json").read_text())
    for number, annotation in enumerate(reversed(dataset["annotations"]), start=1):
        annotation["id"] = number
        if not annotation["iscrowd"]:
            del annotation["iscrowd"]
    (tmp_path / "copy.json").write_text(json.dumps(dataset))
    first = read_evaluated_run(write_run(tmp_path / "a", folder / "val.json", results))
    second = read_evaluated_run(write_run(tmp_path / "b", tmp_path / "copy.json", results))
    assert compare_runs([first], [second], resamples=40).tasks["bbox"].metrics["AP"].gain == 0


def _less_images(dataset):
    gone = dataset["images"].pop()["id"]
    dataset["annotations"] = [a for a in dataset["annotations"] if a["image_id"] != gone]


def _other_category(dataset):
    dataset["categories"][1]["name"] = "hexagon"


def _moved_object(dataset):
    dataset["annotations"][0]["bbox"][0] += 1


@pytest.mark.parametrize(
    ("change", "named"),
    [(_less_images, "images 60"), (_other_category, "categories 2"), (_moved_object, "images 1 ")],
)
def test_different_data_is_refused(drawn, tmp_path, change, named):
    folder, results = drawn
    dataset = json.loads((folder / "val.json").read_text())
    change(dataset)
    (tmp_path / "other.json").write_text(json.dumps(dataset))
    first = read_evaluated_run(write_run(tmp_path / "a", folder / "val.json", results))
    second = read_evaluated_run(write_run(tmp_path / "b", tmp_path / "other.json", []))
    with pytest.raises(ValueError, match=f"different data: .*{named}.*other.json"):
        compare_runs([first], [second])


def test_runs_of_a_side_must_be_of_one_model(drawn, tmp_path):
    (first,) = _runs(drawn, tmp_path, [])
    (deeper,) = _runs(drawn, tmp_path / "b", [], opts=("MODEL.RESNETS.DEPTH", "26"))
    (seeded,) = _runs(drawn, tmp_path / "c", [], opts=("SEED", "7", "MODEL.WEIGHTS", "w.pth"))
    with pytest.raises(ValueError, match="MODEL.RESNETS.DEPTH 14, .*26"):
        compare_runs([first, deeper], [first])
    with pytest.raises(ValueError, match="each side needs a run"):
        compare_runs([first], [])
    compared = compare_runs([first, seeded], [deeper], resamples=40)
    assert compared.network == {"MODEL.RESNETS.DEPTH": (14, 26)}


def test_a_different_recipe_is_told(drawn, tmp_path):
    (first,) = _runs(drawn, tmp_path, [])
    (second,) = _runs(
        drawn,
        tmp_path / "b",
        [],
        opts=("SOLVER.MAX_ITER", "2000", "SEED", "3", "MODEL.RESNETS.RADIX", "1"),
    )
    compared = compare_runs([first], [second], resamples=40)
    recipe = get_config("sample_mask_rcnn_resnest14_fpn").SOLVER.MAX_ITER
    assert compared.changes == {"SOLVER.MAX_ITER": (recipe, 2000)}
    assert compared.network == {"MODEL.RESNETS.RADIX": (2, 1)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"confidence": 1.0}, "confidence must be between 0 and 1, got 1.0"),
        ({"confidence": float("nan")}, "confidence must be between 0 and 1, got nan"),
        ({"resamples": 39}, "resamples must be at least 40 for a confidence of 0.95, got 39"),
        ({"resamples": 100, "confidence": 0.99}, "resamples must be at least 200"),
    ],
)
def test_impossible_draws_are_refused(drawn, tmp_path, options, message):
    (run,) = _runs(drawn, tmp_path, [])
    with pytest.raises(ValueError, match=message):
        compare_runs([run], [run], **options)
