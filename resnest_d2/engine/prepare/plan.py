"""From a request to a plan: config, own data, device, weights and schedule, checked once.

Whatever can be refused is refused by :func:`prepare`, before a process is started or a data set is
read into memory. Every process of the run works by the plan; none of them prepares again.
"""

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from logging.handlers import QueueHandler
from typing import Any

import torch

from detectron2.modeling import build_backbone

from ...data import check_jitter, check_sizes
from ...data.batches.class_images import check_classifier
from ...data.batches.loader import check_loader
from ...data.folders.class_sets import ClassFolderFiles
from ...data.folders.label_folders import LabelMapFiles
from ...data.formats.coco import CocoFiles
from ...data.intensity import Intensity
from ...errors import check_choice
from ...evaluation import IMPLEMENTATIONS
from ...modeling.checkpointing import add_checkpointing
from ...modeling.windows import use_scales
from ..launch.torchrun import prepare_together
from .classes import check_same_classes, use_classes
from .config_checks import (
    check_files,
    check_step,
    check_training,
    choose_config,
    choose_model_device,
    choose_weights,
    expect_published,
    require_folder,
)
from .folder_data import use_class_folders, use_label_maps
from .own_data import use_own_data
from .request import RunRequest
from .schedule import Origin, set_schedule
from .tasks import check_tasks, check_test_augmentation


@dataclass(frozen=True)
class Plan:
    """A checked run. It can be pickled (with cloudpickle, where a LazyConfig has lambdas).

    Attributes:
        request: as asked for, with torchrun's numbers of processes.
        cfg: the frozen config, or a LazyConfig.
        device: such as ``"cpu"`` or ``"cuda"``.
        output_dir: name of its key, and the folder.
        data_sets: the user's own files, which each process registers.
        origin: where the schedule comes from.
        messages: what was logged while the plan was made, for the run's log file.
    """

    request: RunRequest
    cfg: Any
    device: str
    output_dir: tuple[str, str]
    data_sets: tuple[CocoFiles | LabelMapFiles | ClassFolderFiles, ...] = ()
    origin: Origin = Origin()
    messages: tuple[logging.LogRecord, ...] = ()

    def register(self) -> None:
        """Make the run's own data known to Detectron2 in this process."""
        for data_set in self.data_sets:
            data_set.register()


def prepare(request: RunRequest) -> Plan:
    """Check a request and plan its run; its data sets are registered.

    In processes that torchrun has started, the first one of each machine does it for the others:
    if one refuses, all refuse.

    Raises:
        ValueError, KeyError, FileNotFoundError, FileExistsError: with key, value and choices.
    """
    return prepare_together(_prepare, request)


class _Messages(QueueHandler):
    """Keeps what is logged, as records that can be pickled."""

    def enqueue(self, record):
        self.queue.append(record)


def keeps_messages(prepare: Callable[[RunRequest], Plan]) -> Callable[[RunRequest], Plan]:
    """Add to the plan what is logged while it is made: the run's log file is opened later."""

    @functools.wraps(prepare)
    def prepare_and_keep(request):
        log, messages = logging.getLogger("resnest_d2"), []
        handler = _Messages(messages)
        log.addHandler(handler)
        try:
            return replace(prepare(request), messages=tuple(messages))
        finally:
            log.removeHandler(handler)

    return prepare_and_keep


@keeps_messages
def _prepare(request: RunRequest) -> Plan:
    cfg, given, trained = choose_config(request)
    recorded = trained is not None and request.config is None  # config and classes are the model's
    require_folder("OUTPUT_DIR", cfg.OUTPUT_DIR)
    expect_published(cfg, request)
    class_names = trained.class_names if trained is not None else ()
    if cfg.MODEL.META_ARCHITECTURE == "ImageClassifier":
        check_classifier(cfg)
        data_sets = use_class_folders(cfg, request, class_names)
    elif unlabelled := [root for file, root in request.train + request.val if not file]:
        raise ValueError(
            f"{unlabelled[0]} has no annotations, and a {cfg.MODEL.META_ARCHITECTURE} needs them: "
            "give --train-json or --train-labels (--val-json or --val-labels) with it. Only an "
            "ImageClassifier takes images in folders of classes"
        )
    elif cfg.MODEL.META_ARCHITECTURE == "SemanticSegmentor":
        data_sets = use_label_maps(cfg, request, class_names)
    else:
        data_sets = use_own_data(cfg, request, given)
    if not recorded:
        use_classes(cfg, request, given)
    choose_weights(cfg, request, given)
    choose_model_device(cfg, request)

    check_step(cfg)
    check_loader(cfg)
    check_choice("RESNEST.EVALUATOR", cfg.RESNEST.EVALUATOR, IMPLEMENTATIONS)
    check_jitter(cfg)
    Intensity.from_config(cfg)
    with torch.device("meta"):  # no memory, no time: only the checks of the builders
        add_checkpointing(build_backbone(cfg), cfg)
    if recorded:
        check_same_classes(cfg, trained.weights, trained.class_names)
    check_files(cfg, request, trained)
    check_test_augmentation(cfg)
    use_scales(cfg)
    check_tasks(cfg, () if request.eval_only else cfg.DATASETS.TRAIN, cfg.DATASETS.TEST)
    origin = Origin()
    if not request.eval_only:
        check_sizes(cfg)
        origin = set_schedule(cfg, given)
        check_training(cfg, request)
    cfg.freeze()
    output_dir = ("OUTPUT_DIR", cfg.OUTPUT_DIR)
    return Plan(request, cfg, cfg.MODEL.DEVICE, output_dir, tuple(data_sets), origin)
