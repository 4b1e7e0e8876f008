"""Training batches as a function of (seed, position): a run can go on from any of them.

The data set, its filters and the samplers are Detectron2's, and so is the rule of its aspect-ratio
groups. Detectron2's loader groups examples after its workers have mapped them, with the random
numbers of each worker's generators: its batches depend on the number of workers, and a run cannot
return to one of them. Here indices are grouped before anything is loaded, and an example's random
numbers are a function of its position in the stream of all processes. So the batches are the same
for any number of workers, and to return to one is to count through integers.
"""

import contextlib
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, get_worker_info

from detectron2.config import CfgNode
from detectron2.data import (
    DatasetFromList,
    build_detection_test_loader,
    get_detection_dataset_dicts,
)
from detectron2.data.samplers import (
    RandomSubsetTrainingSampler,
    RepeatFactorTrainingSampler,
    TrainingSampler,
)
from detectron2.utils import comm

from ...errors import check_choice
from .class_images import ClassMapper
from .mapper import ImageMapper
from .randomness import EXAMPLE, kept_generators, seed_generators
from .worker_errors import CheckedLoader, Failure, NamedErrors, hand_over

logger = logging.getLogger(__name__)

SAMPLERS = (
    "TrainingSampler",
    "RepeatFactorTrainingSampler",
    "RandomSubsetTrainingSampler",
    "WeightedTrainingSampler",
    "WeightedCategoryTrainingSampler",
)
"""Values of ``DATALOADER.SAMPLER_TRAIN``."""

_COUNT_OBJECTS = ("RepeatFactorTrainingSampler", "WeightedCategoryTrainingSampler")

_CLASSIFIED = 32  # images of a batch in the evaluation of a classifier


class TrainLoader(CheckedLoader):
    """An endless iterable of batches. Each iterator begins at the batch that :meth:`seek` names."""

    def __init__(self, loader: DataLoader, batches: "_Batches"):
        super().__init__(loader)
        self._batches = batches

    def __len__(self) -> int:
        raise TypeError("a training stream has no end")

    def seek(self, start: int) -> None:
        """Let new iterators begin at batch number ``start``, from 0."""
        self._batches.start = start


def build_train_loader(
    cfg: CfgNode, *, mapper: Callable[[dict], dict | None], seed: int, start: int = 0
) -> TrainLoader:
    """This process's training batches, of ``SOLVER.IMS_PER_BATCH`` / processes / ``ACCUMULATE``.

    Iterating raises what is wrong with a record's file or annotations (``FileNotFoundError``,
    another ``OSError``, ``ValueError``, ``RuntimeError``), and
    :class:`~resnest_d2.data.batches.worker_errors.DataWorkerError`.

    Args:
        mapper: from a record to a training example. Its random numbers must come from
            ``numpy.random``, ``random`` or ``torch``. Where it returns None, another random record
            is taken.
        seed: at least 0, the same in all processes.
        start: how many batches are left out. They are counted, not loaded.

    Raises:
        ValueError: the config has invalid values; the message names the key.
    """
    workers = cfg.DATALOADER.NUM_WORKERS
    if workers < 0:
        raise ValueError(f"DATALOADER.NUM_WORKERS must be at least 0, got {workers}")
    size = _batch_size(cfg)
    records = _records(cfg, cfg.DATASETS.TRAIN)
    if isinstance(records, IterableDataset):
        raise ValueError(
            f"DATASETS.TRAIN {cfg.DATASETS.TRAIN} is an IterableDataset, which has no positions to "
            "return to: register a list of records, or a Dataset with indices"
        )
    sampler = _sampler(cfg, records, seed)
    logger.info(f"Training batches of {size} images, sampled by {cfg.DATALOADER.SAMPLER_TRAIN}")
    grouped = cfg.DATALOADER.ASPECT_RATIO_GROUPING
    groups = [grouped and _is_portrait(records[index]) for index in range(len(records))]
    if isinstance(records, list):
        records = DatasetFromList(records, copy=False)
    batches = _Batches(sampler, groups, size, start)
    loader = DataLoader(
        _Examples(records, mapper, seed),
        batch_sampler=batches,
        collate_fn=hand_over,
        num_workers=workers,
        # An iterator draws a seed for its workers. It must not be drawn from the generator that
        # the model uses: a resumed run makes one more iterator.
        generator=torch.Generator(),
    )
    return TrainLoader(loader, batches)


def build_test_loader(cfg: CfgNode, name: str) -> CheckedLoader:
    """Detectron2's loader of a data set for evaluation, with errors that name the image."""
    classifies = cfg.MODEL.META_ARCHITECTURE == "ImageClassifier"
    mapper = (ClassMapper if classifies else ImageMapper)(cfg, is_train=False)
    batch_size = _CLASSIFIED if classifies else 1  # images of one size
    loader = build_detection_test_loader(
        cfg, name, mapper=NamedErrors(mapper), collate_fn=hand_over, batch_size=batch_size
    )
    return CheckedLoader(loader)


def check_loader(cfg: CfgNode) -> None:
    """Raise a ValueError, with its key, where training images cannot be drawn as it says."""
    task = cfg.MODEL.META_ARCHITECTURE
    objects = task not in ("ImageClassifier", "SemanticSegmentor")
    allowed = [name for name in SAMPLERS if objects or name not in _COUNT_OBJECTS]
    check_choice("DATALOADER.SAMPLER_TRAIN", cfg.DATALOADER.SAMPLER_TRAIN, allowed)
    weighted = cfg.DATALOADER.SAMPLER_TRAIN.startswith("Weighted")
    if weighted and "TRAIN_REPEAT_FACTOR" not in cfg.DATASETS:
        raise ValueError(
            f"DATALOADER.SAMPLER_TRAIN {cfg.DATALOADER.SAMPLER_TRAIN} needs a key "
            "DATASETS.TRAIN_REPEAT_FACTOR, which this Detectron2's config does not have"
        )
    if task == "ImageClassifier" and cfg.DATALOADER.ASPECT_RATIO_GROUPING:
        raise ValueError(
            "DATALOADER.ASPECT_RATIO_GROUPING must be False for an ImageClassifier, whose crops "
            "are square"
        )


def _batch_size(cfg: CfgNode) -> int:
    images, processes = cfg.SOLVER.IMS_PER_BATCH, comm.get_world_size()
    parts = processes * cfg.RESNEST.ACCUMULATE
    if parts < 1 or images < 1 or images % parts:
        raise ValueError(
            f"SOLVER.IMS_PER_BATCH must be a multiple of processes x RESNEST.ACCUMULATE = "
            f"{processes} x {cfg.RESNEST.ACCUMULATE}, got {images}"
        )
    return images // parts


def _records(cfg: CfgNode, names: Sequence[str]) -> list[dict] | Dataset:
    keypoints = cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE if cfg.MODEL.KEYPOINT_ON else 0
    proposals = None
    if cfg.MODEL.LOAD_PROPOSALS:
        files = dict(zip(cfg.DATASETS.TRAIN, cfg.DATASETS.PROPOSAL_FILES_TRAIN, strict=True))
        proposals = [files[name] for name in names]
    filtered = cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
    return get_detection_dataset_dicts(names, filtered, keypoints, proposals)


def _is_portrait(record: dict) -> bool:
    """Detectron2's rule: two groups, and a square is in the second."""
    try:
        return record["width"] <= record["height"]
    except KeyError as error:
        raise ValueError(
            f"{record.get('file_name', record)}: its record has no {error}, by which "
            "DATALOADER.ASPECT_RATIO_GROUPING groups images: add it, or set the key to False"
        ) from error


def _sampler(cfg: CfgNode, records: Sequence[dict], seed: int) -> Sampler[int]:
    """Detectron2's sampler. (Its own builder gives some of them a random seed.)"""
    name = cfg.DATALOADER.SAMPLER_TRAIN
    check_choice("DATALOADER.SAMPLER_TRAIN", name, SAMPLERS)
    if name == "TrainingSampler":
        return TrainingSampler(len(records), seed=seed)
    if name == "RandomSubsetTrainingSampler":
        # Detectron2 reads this key, and its default config does not have it.
        ratio = cfg.DATALOADER.get("RANDOM_SUBSET_RATIO", 0)
        if ratio > 1 or int(len(records) * ratio) < 1:
            raise ValueError(
                f"DATALOADER.SAMPLER_TRAIN {name} needs a key DATALOADER.RANDOM_SUBSET_RATIO, at "
                f"most 1, that leaves some of the {len(records)} training images, got {ratio}"
            )
        return RandomSubsetTrainingSampler(len(records), ratio, seed_shuffle=seed, seed_subset=seed)
    if name == "RepeatFactorTrainingSampler":
        factors = _category_factors(cfg, records)
    else:
        factors = _data_set_factors(cfg, by_category=name == "WeightedCategoryTrainingSampler")
    return RepeatFactorTrainingSampler(factors, seed=seed)


def _category_factors(cfg: CfgNode, records: Sequence[dict]) -> torch.Tensor:
    """How often each image is seen in an epoch, so that rare classes are seen more often."""
    threshold = cfg.DATALOADER.REPEAT_THRESHOLD
    if threshold <= 0:
        logger.warning(
            f"DATALOADER.REPEAT_THRESHOLD is {threshold}: no class is in a smaller share of the "
            "images, so none is seen more often"
        )
    return RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
        records, threshold, sqrt=cfg.DATALOADER.REPEAT_SQRT
    )


def _data_set_factors(cfg: CfgNode, *, by_category: bool) -> torch.Tensor:
    """The same by ``DATASETS.TRAIN_REPEAT_FACTOR``; ``by_category``: times those of categories."""
    names, weights = cfg.DATASETS.TRAIN, dict(cfg.DATASETS.TRAIN_REPEAT_FACTOR)
    if unknown := sorted(set(weights) - set(names)):
        raise ValueError(
            f"DATASETS.TRAIN_REPEAT_FACTOR must name data sets of DATASETS.TRAIN {tuple(names)}, "
            f"got {', '.join(unknown)}"
        )
    if min(weights.values(), default=1) <= 0:
        raise ValueError(
            f"DATASETS.TRAIN_REPEAT_FACTOR must be above 0 for each data set, got {weights}"
        )
    parts = []
    for name in names:
        records = _records(cfg, [name])
        factors = _category_factors(cfg, records) if by_category else torch.ones(len(records))
        parts.append(factors * weights.get(name, 1.0))
    factors = torch.cat(parts)
    return factors / factors.min() if by_category else factors


class _Batches:
    """Batches of (position, index): which record, and where in the stream of all processes.

    A batch comes as soon as its group has enough images, as in Detectron2's
    ``AspectRatioGroupedDataset``. ``sampler`` gives this process's endless indices, the same
    whenever it is iterated; ``groups`` says of each record which of two it is in.
    """

    def __init__(self, sampler: Iterable[int], groups: Sequence[bool], size: int, start: int):
        self.start = start
        self._sampler = sampler
        self._groups = groups
        self._size = size

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return itertools.islice(self._all(), self.start, None)

    def _all(self) -> Iterator[list[tuple[int, int]]]:
        filling = [[], []]
        # Detectron2's samplers give each of n processes every n-th index of one stream.
        positions = itertools.count(comm.get_rank(), comm.get_world_size())
        for position, index in zip(positions, self._sampler, strict=False):
            group = self._groups[index]
            filling[group].append((position, index))
            if len(filling[group]) == self._size:
                batch, filling[group] = filling[group], []
                yield batch


class _Examples(Dataset):
    """Mapped records by (position, index); a :class:`Failure` where that fails."""

    def __init__(self, records: Sequence[dict], mapper: Callable[[dict], dict | None], seed: int):
        self._records = records
        self._mapper = NamedErrors(mapper)
        self._seed = seed

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, place: tuple[int, int]) -> Any:
        position, index = place
        # The generators of a worker serve nothing else.
        with kept_generators() if get_worker_info() is None else contextlib.nullcontext():
            seed_generators(self._seed, EXAMPLE, position)
            example = self._mapper(self._records[index])
            if example is not None:
                return example
            for other in np.random.permutation(len(self._records)).tolist():
                example = self._mapper(self._records[other])
                if example is not None:
                    return example
            return Failure(ValueError("the training mapper returns None for every image"))
