"""Training batches as a function of (seed, position), and the errors of reading them."""

import collections
import itertools
import os
import random
import resource
import shutil
import signal

import numpy as np
import pytest
import torch
from mixed_set import write_mixed_set
from runs import TINY

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.common import AspectRatioGroupedDataset
from detectron2.data.datasets import register_coco_instances
from detectron2.data.samplers import TrainingSampler
from detectron2.utils import comm

from resnest_d2.config import get_config
from resnest_d2.data import (
    DataWorkerError,
    build_test_loader,
    build_train_loader,
    build_train_mapper,
)
from resnest_d2.data.batches.randomness import EXAMPLE, ITERATION, kept_generators, seed_generators
from resnest_d2.data.batches.worker_errors import explained_worker_errors

AUGMENTED = (
    *("INPUT.MIN_SIZE_TRAIN", "(40, 48, 56, 64)", "INPUT.CROP.ENABLED", "True"),
    *("INPUT.CROP.SIZE", "[0.7, 0.7]", "SOLVER.IMS_PER_BATCH", "3"),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_mixed_set(tmp_path_factory.mktemp("mixed"))


@pytest.fixture
def config_for(request, data):
    """``config_for(*opts, data=…)``: a config whose training set is the mixed one."""
    names = []

    def build(*opts, data=data):
        name = f"{request.node.name}-{len(names)}"
        register_coco_instances(name, {}, *data)
        names.append(name)
        return get_config(
            "sample_mask_rcnn_resnest14_fpn",
            (*TINY, *AUGMENTED, "DATASETS.TRAIN", f"('{name}',)", *opts),
        )

    yield build
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def loader_for(cfg, *, seed=5, start=0, mapper=None):
    return build_train_loader(cfg, mapper=mapper or build_train_mapper(cfg), seed=seed, start=start)


def take(loader, count):
    batches = iter(loader)
    return list(itertools.islice(batches, count))


def ids(batches):
    return [[example["image_id"] for example in batch] for batch in batches]


def assert_same(first, second):
    assert ids(first) == ids(second)
    for a, b in zip(itertools.chain(*first), itertools.chain(*second), strict=True):
        assert torch.equal(a["image"], b["image"])
        assert torch.equal(a["instances"].gt_boxes.tensor, b["instances"].gt_boxes.tensor)
        assert torch.equal(a["instances"].gt_masks.tensor, b["instances"].gt_masks.tensor)


def test_batches_are_those_of_detectron2s_grouping(config_for):
    cfg = config_for()
    records = DatasetCatalog.get(cfg.DATASETS.TRAIN[0])
    sampled = (records[index] for index in TrainingSampler(len(records), seed=5))
    expected = take(AspectRatioGroupedDataset(sampled, 3), 40)
    batches = take(loader_for(cfg), 40)
    assert ids(batches) == ids(expected)
    shapes = {example["width"] > example["height"] for batch in batches for example in batch}
    assert shapes == {False, True}
    for batch in batches:
        assert len({example["width"] > example["height"] for example in batch}) == 1


def test_without_grouping_batches_are_the_samplers_order(config_for):
    cfg = config_for("DATALOADER.ASPECT_RATIO_GROUPING", "False")
    order = itertools.islice(TrainingSampler(12, seed=5), 15)
    assert ids(take(loader_for(cfg), 5)) == [
        [10 * (index + 1) for index in batch] for batch in zip(*[order] * 3, strict=True)
    ]


@pytest.mark.parametrize("workers", ["1", "2", "4"])
def test_batches_do_not_depend_on_the_number_of_workers(config_for, workers):
    assert_same(
        take(loader_for(config_for()), 9),
        take(loader_for(config_for("DATALOADER.NUM_WORKERS", workers)), 9),
    )


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_later_start_skips_batches(config_for, workers):
    cfg = config_for("DATALOADER.NUM_WORKERS", workers)
    batches = take(loader_for(cfg), 12)
    for start in (1, 5, 11):
        assert_same(take(loader_for(cfg, start=start), 12 - start), batches[start:])
    sought = loader_for(cfg)
    sought.seek(7)
    assert_same(take(sought, 5), batches[7:])


def test_each_seed_and_each_epoch_differs(config_for):
    cfg = config_for("DATALOADER.ASPECT_RATIO_GROUPING", "False")
    first, second = take(loader_for(cfg), 8), take(loader_for(cfg, seed=6), 8)
    assert ids(first) != ids(second)
    epochs = [sorted(first[:4], key=str), sorted(first[4:], key=str)]
    assert ids(first[:4]) != ids(first[4:])
    images = [{e["image_id"]: e["image"] for batch in epoch for e in batch} for epoch in epochs]
    assert set(images[0]) == set(images[1])
    same = [
        images[0][i].shape == images[1][i].shape and torch.equal(images[0][i], images[1][i])
        for i in images[0]
    ]
    assert sum(same) < len(same)  # augmented anew


def test_an_accumulating_step_takes_micro_batches_in_a_row(config_for):
    cfg = config_for("SOLVER.IMS_PER_BATCH", "4", "RESNEST.ACCUMULATE", "2")
    assert {len(batch) for batch in take(loader_for(cfg), 4)} == {2}


def test_processes_share_the_stream_out(config_for, monkeypatch):
    cfg = config_for("SOLVER.IMS_PER_BATCH", "4", "DATALOADER.ASPECT_RATIO_GROUPING", "False")
    seen = []
    mapper = lambda record: {**record, "draw": np.random.rand()}  # noqa: E731
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    for rank in (0, 1):
        monkeypatch.setattr(comm, "get_rank", lambda rank=rank: rank)
        seen.append([e for batch in take(loader_for(cfg, mapper=mapper), 3) for e in batch])
    images = [{example["image_id"] for example in share} for share in seen]
    assert not images[0] & images[1]
    assert len(images[0] | images[1]) == 12  # an epoch
    assert len({example["draw"] for share in seen for example in share}) == 12


def test_mapping_leaves_the_models_generators_alone(config_for):
    def draws():
        return random.random(), np.random.rand(), torch.rand(1).item()

    def mapper(record):
        return {"all": draws()}

    expected = [draws() for _ in range(3)]
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    batches = iter(loader_for(config_for(), mapper=mapper))
    mapped = []
    for numbers in expected:
        mapped += next(batches)
        assert draws() == numbers
    for place in range(3):
        assert len({example["all"][place] for example in mapped}) == len(mapped)


def test_a_resumed_stream_draws_nothing_from_the_models_generator(config_for):
    before = torch.get_rng_state()
    take(loader_for(config_for("DATALOADER.NUM_WORKERS", "2")), 1)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("workers", ["0", "2"])
def test_what_takes_the_place_of_none_depends_on_the_position(config_for, workers):
    cfg = config_for("DATALOADER.NUM_WORKERS", workers)

    def mapper(record):
        return None if record["image_id"] % 20 else {"image_id": record["image_id"]}

    batches = ids(take(loader_for(cfg, mapper=mapper), 10))
    assert ids(take(loader_for(cfg, mapper=mapper, start=4), 6)) == batches[4:]
    assert ids(take(loader_for(config_for(), mapper=mapper), 10)) == batches
    assert all(image % 20 == 0 for batch in batches for image in batch)
    with pytest.raises(ValueError, match="None for every image"):
        take(loader_for(cfg, mapper=lambda record: None), 1)


def test_no_two_numbers_seed_a_generator_alike():
    seen = collections.defaultdict(set)
    with kept_generators():
        for number in range(20_000):
            seed_generators(7, EXAMPLE, number)
            seen["torch"].add(torch.initial_seed())
            seen["numpy"].add(np.random.get_state()[1][:8].tobytes())
            seen["random"].add(random.getrandbits(128))
        assert {len(states) for states in seen.values()} == {20_000}
        seed_generators(7, ITERATION, 0)
        assert torch.initial_seed() not in seen["torch"]


# ---- Samplers ----


def plain(record):
    return record


def counted(cfg):
    batches = take(loader_for(cfg, mapper=plain), 60)
    return collections.Counter(image for batch in ids(batches) for image in batch)


def test_class_balanced_sampling_shows_a_rare_class_as_often_as_its_factor(config_for):
    cfg = config_for(
        *("DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler"),
        *("DATALOADER.REPEAT_THRESHOLD", "0.75", "DATALOADER.ASPECT_RATIO_GROUPING", "False"),
    )
    loader = loader_for(cfg, mapper=plain)
    # The rare class is in 1 of 12 images: sqrt(0.75 * 12) = 3 of 14 images of an epoch.
    counts = collections.Counter(i for batch in ids(take(loader, 14 * 10)) for i in batch)
    assert counts.pop(10) == 3 * 30
    assert set(counts.values()) == {30}


def test_class_balancing_that_does_nothing_is_said(config_for, caplog):
    cfg = config_for("DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler")
    loader_for(cfg)
    assert "DATALOADER.REPEAT_THRESHOLD is 0.0" in caplog.text


def test_a_random_subset_stays_the_same(config_for):
    cfg = config_for("DATALOADER.SAMPLER_TRAIN", "RandomSubsetTrainingSampler")
    with pytest.raises(ValueError, match="needs a key DATALOADER.RANDOM_SUBSET_RATIO"):
        loader_for(cfg)
    cfg.DATALOADER.RANDOM_SUBSET_RATIO = 0.5
    assert len(counted(cfg)) == 6
    assert counted(cfg) == counted(cfg)
    cfg.DATALOADER.RANDOM_SUBSET_RATIO = 0.01
    with pytest.raises(ValueError, match="RANDOM_SUBSET_RATIO.*12 training images, got 0.01"):
        loader_for(cfg)


@pytest.mark.parametrize("by_category", [False, True])
def test_weighted_sampling_of_data_sets(config_for, tmp_path, by_category):
    other = write_mixed_set(tmp_path / "other", images=4)
    cfg = config_for()
    name, other_name = cfg.DATASETS.TRAIN[0], config_for(data=other).DATASETS.TRAIN[0]
    cfg.DATASETS.TRAIN = (name, other_name)
    cfg.DATASETS.TRAIN_REPEAT_FACTOR = [[other_name, 3.0]]
    kind = "WeightedCategoryTrainingSampler" if by_category else "WeightedTrainingSampler"
    cfg.DATALOADER.SAMPLER_TRAIN = kind
    cfg.DATALOADER.ASPECT_RATIO_GROUPING = False
    batches = take(loader_for(cfg, mapper=plain), 80)  # 240 draws: 10 epochs of 12 + 3 * 4
    folders = collections.Counter(
        example["file_name"].startswith(other[1]) for batch in batches for example in batch
    )
    assert folders == {False: 120, True: 120}
    cfg.DATASETS.TRAIN_REPEAT_FACTOR = [["elsewhere", 3.0]]
    with pytest.raises(ValueError, match="TRAIN_REPEAT_FACTOR.*got elsewhere"):
        loader_for(cfg)
    cfg.DATASETS.TRAIN_REPEAT_FACTOR = [[name, 0.0]]
    with pytest.raises(ValueError, match="above 0"):
        loader_for(cfg)


def test_values_that_cannot_be_are_refused_by_key(config_for):
    for key, value, words in (
        ("DATALOADER.SAMPLER_TRAIN", "No", "SAMPLER_TRAIN must be one of .'TrainingSampler'"),
        ("DATALOADER.NUM_WORKERS", "-1", "NUM_WORKERS must be at least 0, got -1"),
        ("RESNEST.ACCUMULATE", "2", "IMS_PER_BATCH must be a multiple .* 1 x 2, got 3"),
        ("RESNEST.ACCUMULATE", "0", "RESNEST.ACCUMULATE"),
    ):
        with pytest.raises(ValueError, match=words):
            loader_for(config_for(key, value))


def test_records_without_a_size_are_refused_where_they_are_grouped(config_for):
    cfg = config_for()
    name = cfg.DATASETS.TRAIN[0]
    records = [dict(record) for record in DatasetCatalog.get(name)]
    for record in records:
        del record["width"], record["height"]
    DatasetCatalog.remove(name)
    DatasetCatalog.register(name, lambda: records)
    with pytest.raises(ValueError, match="00.png: .*'width'.*ASPECT_RATIO_GROUPING"):
        loader_for(cfg)
    cfg.DATALOADER.ASPECT_RATIO_GROUPING = False
    assert len(take(loader_for(cfg), 2)) == 2


# ---- Errors ----


@pytest.fixture
def own_copy(data, tmp_path):
    """The mixed set where a test may break it."""
    folder = shutil.copytree(data[1], tmp_path / "images")
    return data[0], str(folder)


@pytest.mark.parametrize("workers", ["0", "2"])
def test_an_image_removed_in_mid_epoch_is_named(config_for, own_copy, workers):
    cfg = config_for("DATALOADER.NUM_WORKERS", workers, data=own_copy)
    batches = iter(loader_for(cfg))
    next(batches)
    path = os.path.join(own_copy[1], "04.png")
    os.remove(path)
    with pytest.raises(FileNotFoundError) as error:
        for _ in range(20):
            next(batches)
    message = str(error.value)
    assert message.startswith(f"{path} (image id 50) is not there any more: restore it")
    assert "--resume" in message and "\n" not in message
    assert isinstance(error.value.__cause__, FileNotFoundError)


@pytest.mark.parametrize("workers", ["0", "2"])
@pytest.mark.parametrize(
    "content, kind, words",
    [
        ("nothing", OSError, "cannot be read: it has 0 bytes"),
        ("half", OSError, "cannot be read: .*(truncated|broken)"),
        ("other", ValueError, "cannot be used: SizeMismatchError: Mismatched"),
    ],
)
def test_an_image_that_cannot_be_used_is_named(config_for, own_copy, workers, content, kind, words):
    path = os.path.join(own_copy[1], "04.png")
    if content == "other":
        shutil.copy(os.path.join(own_copy[1], "00.png"), path)
    else:
        with open(path, "r+b") as file:
            file.truncate(0 if content == "nothing" else os.path.getsize(path) // 2)
    cfg = config_for("DATALOADER.NUM_WORKERS", workers, data=own_copy)
    with pytest.raises(kind, match=rf"04.png \(image id 50\) {words}") as error:
        take(loader_for(cfg), 20)
    assert "Traceback" not in str(error.value)
    assert error.value.__cause__ is not None


class _UnsendableError(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} {two}")


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_mappers_own_error_keeps_its_stack(config_for, workers):
    def mapper(record):
        raise _UnsendableError("very", "wrong")

    cfg = config_for("DATALOADER.NUM_WORKERS", workers)
    with pytest.raises(RuntimeError, match="image id .*_UnsendableError: very wrong") as error:
        take(loader_for(cfg, mapper=mapper), 1)
    cause = error.value.__cause__
    if workers == "0":
        assert isinstance(cause, _UnsendableError)
    else:
        assert "in mapper" in str(cause)


def test_a_killed_data_worker_is_explained(config_for):
    def mapper(record):
        if record["image_id"] == 50:
            os.kill(os.getpid(), signal.SIGKILL)
        return record

    cfg = config_for("DATALOADER.NUM_WORKERS", "2")
    with pytest.raises(DataWorkerError, match="memory.*/dev/shm.*NUM_WORKERS.*--resume") as error:
        with explained_worker_errors():  # the signal may come when no batch is being taken
            take(loader_for(cfg, mapper=mapper), 20)
    assert "\n" not in str(error.value)
    assert isinstance(error.value.__cause__, RuntimeError)


def test_full_shared_memory_is_an_error_and_no_endless_wait(config_for):
    def mapper(record):
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, 2**16))  # for files in /dev/shm too
        return {"image": torch.zeros(2**20)}

    cfg = config_for("DATALOADER.NUM_WORKERS", "1")
    with pytest.raises(DataWorkerError, match="hand over its batch: .*shm.*NUM_WORKERS"):
        take(loader_for(cfg, mapper=mapper), 1)


@pytest.mark.parametrize("workers", ["0", "2"])
def test_evaluation_names_a_removed_image_too(config_for, own_copy, workers):
    cfg = config_for("DATALOADER.NUM_WORKERS", workers, data=own_copy)
    loader = build_test_loader(cfg, cfg.DATASETS.TRAIN[0])
    assert ids(loader) == [[10 * (number + 1)] for number in range(len(loader))]
    path = os.path.join(own_copy[1], "04.png")
    os.remove(path)
    with pytest.raises(FileNotFoundError, match=rf"{path} \(image id 50\)"):
        list(loader)


@pytest.mark.slow
def test_workers_that_are_started_afresh_read_the_same(config_for):
    expected = take(loader_for(config_for()), 2)
    cfg = config_for("DATALOADER.NUM_WORKERS", "1")
    method = torch.multiprocessing.get_start_method()
    torch.multiprocessing.set_start_method("spawn", force=True)  # they get all in a pickle
    try:
        assert_same(take(loader_for(cfg), 2), expected)
    finally:
        torch.multiprocessing.set_start_method(method, force=True)


def test_positions_are_counted_not_loaded(config_for):
    loaded = []
    batches = iter(loader_for(config_for(), mapper=lambda r: loaded.append(1) or r, start=100_000))
    assert len(next(batches)) == len(loaded) == 3
