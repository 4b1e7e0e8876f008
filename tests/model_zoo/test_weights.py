"""The published files: equal to what is known of them, complete, and nothing invented."""

import re

import pytest

from resnest_d2.checkpoint.statistics import CLASSIFIER, DETECTOR, MSRA
from resnest_d2.config import ALIASES
from resnest_d2.model_zoo import MODELS, WEIGHTS

# how the facts call a format -> ours
FORMATS = {
    "torch flat state_dict with fc": "official",
    "safetensors + pytorch_model.bin, official names": "timm",
    "torch flat dict, keys backbone.bottom_up.stem.conv1_1...": "detectron2",
    "bare names": "resnest_d2",
    "d2 checkpoint (model, maybe optimizer)": "detectron2",
    "mmdet names {meta,state_dict}": "mmdet",
    "mmcls names (backbone.stem..., head.fc)": "mmcls",
}
UNUSABLE = {"MXNet params in zip", "mmdet detector {meta,state_dict}"}


@pytest.fixture
def known(facts) -> list[dict]:
    """The usable files of the facts."""
    files = facts("weights")["weights"]
    assert {file["format"] for file in files} == set(FORMATS) | UNUSABLE
    return [file for file in files if file["format"] not in UNUSABLE]


def ours(file: dict):
    """The record of a file of the facts: the one that has its first mirror."""
    (first, *_) = urls(file)
    (record,) = [record for record in WEIGHTS.values() if first in record.urls]
    return record


def urls(file: dict) -> tuple[str, ...]:
    """The mirrors; of a repository on the hub, its safetensors file."""
    hub = "https://huggingface.co/"
    return tuple(
        url.replace(hub, "hf://") + "/model.safetensors" if url.startswith(hub) else url
        for url in file["urls"]
    )


def test_every_usable_file_is_there_once_and_no_other(known, facts):
    segmentation = facts("segmentation")["published"]
    assert len({ours(file).name for file in known}) == len(known)
    assert len(known) + len(segmentation) == len(WEIGHTS)


def test_segmentation_models_have_their_sha1_and_the_names_of_recipes(facts):
    for row in facts("segmentation")["published"]:
        (record,) = [file for file in WEIGHTS.values() if file.sha1 == row["sha1"]]
        assert record.urls[0].endswith(f"/{row['name']}-{row['sha1'][:8]}.zip")
        assert MODELS[record.name].weights == record.name
        assert MODELS[record.name].published.miou == row["mIoU"]
        assert (record.format, record.statistics) == ("encoding", CLASSIFIER)


def test_mirrors_hash_and_format_are_the_known_ones(known):
    for file in known:
        record = ours(file)
        assert record.urls == urls(file), record.name
        assert record.sha256 == (file["hash"] or ""), record.name
        assert record.format == FORMATS[file["format"]], record.name


def test_statistics_are_the_known_ones(known):
    for file in known:
        channels, scale, numbers = re.match(
            r"(RGB|BGR) 0-(1|255) mean (.*)", file["normalisation"]
        ).groups()
        mean, std = (
            [float(number) * (255 if scale == "1" else 1) for number in re.findall(r"[\d.]+", part)]
            for part in numbers.split("std")
        )
        statistics = ours(file).statistics
        assert statistics.format == channels
        assert statistics.mean == pytest.approx(mean)
        assert statistics.std == pytest.approx(std * 3 if len(std) == 1 else std)


def test_statistics_are_among_those_that_the_project_names():
    assert {file.statistics for file in WEIGHTS.values()} == {CLASSIFIER, DETECTOR, MSRA}


def test_names_are_keys_and_fit_into_a_uri():
    for name, file in WEIGHTS.items():
        assert file.name == name
        assert re.fullmatch(r"\w[\w.-]*", name)


def test_a_hash_is_the_one_in_the_file_name():
    for file in WEIGHTS.values():
        for url in file.urls:
            found = re.search(r"-([0-9a-f]{8})\.pth$", url)
            assert (found[1] if found else "") == file.sha256, url


def test_a_detector_has_the_name_of_its_recipe(known):
    detectors = [file for file in known if file["format"].startswith("d2 checkpoint")]
    assert {ours(file).name for file in detectors} == set(ALIASES.values())
