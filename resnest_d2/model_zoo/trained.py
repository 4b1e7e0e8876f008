"""Which model a checkpoint belongs to: its config, class names and category ids.

A checkpoint that ``resnest-d2 train`` wrote says so itself. Published weights, ``resnest://NAME``,
belong to the recipe of that name in the catalog. Any other file, such as one that stock
Detectron2's trainer wrote, needs the config that it was trained with.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog

from ..checkpoint import (
    RECORD_KEY,
    RunCheckpointer,
    StoredWeights,
    find_checkpoint,
    parse_config,
    read_record,
    read_weights,
)
from ..config import (
    add_resnest_config,
    flat_values,
    get_config,
    get_value,
    move_old_keys,
    read_config,
)
from ..errors import error_text
from ..modeling.build import meta_model
from ..text import printable
from ..version import __version__
from .catalog import MODELS, list_models
from .config_limits import check_limits
from .download import find
from .handler import PREFIX, resolve_weights
from .weights import WEIGHTS


@dataclass(frozen=True)
class TrainedModel:
    """What is known of a checkpoint's model.

    Attributes:
        weights: the file, or ``resnest://NAME``, which is downloaded only when it is read.
        cfg: the config, not frozen.
        class_names: by class number; empty where they are not known.
        category_ids: of the training data, by class number; empty where they are not known.
    """

    weights: str
    cfg: CfgNode
    class_names: list[str]
    category_ids: list[int]
    _stored: StoredWeights | None = None

    @property
    def is_published(self) -> bool:
        return self.weights.startswith(PREFIX)

    def read(self) -> StoredWeights:
        """The weights and what lies beside them. Errors as for ``read_weights``."""
        return self._stored or read_weights(checkpoint_file(self.weights))


def find_trained_model(
    source: str | os.PathLike,
    config: str | os.PathLike | CfgNode | None = None,
    *,
    trust_pickle: bool = False,
) -> TrainedModel:
    """The model of a checkpoint.

    Args:
        source: a checkpoint file; a run's output folder (its last checkpoint that can be read); or
            ``resnest://NAME``, weights of the catalog or a file of ``RESNEST_D2_WEIGHTS``.
        config: a packaged config's name, a YAML file or a config, in place of the checkpoint's own.
        trust_pickle: see :func:`.checkpoint.read_weights`.

    Raises:
        FileNotFoundError: no such checkpoint or config file.
        KeyError: no such packaged config, or unknown keys in it.
        ValueError: not a checkpoint, a published backbone or classifier, or a checkpoint without a
            config where none is given.
    """
    given = None if config is None else read_config(config)[0]
    name = os.fspath(source).removeprefix(PREFIX)
    if os.fspath(source).startswith(PREFIX):
        _require_detector(name)
        if name in MODELS:
            cfg = get_config(name) if given is None else given
            file = MODELS[name].weights or name
            return TrainedModel(f"{PREFIX}{file}", cfg, *_classes_of_config(cfg))
    stored = read_weights(checkpoint_file(source), trust_pickle=trust_pickle)
    if given is not None and RECORD_KEY not in stored.metadata:
        return TrainedModel(str(stored.path), given, *_classes_of_config(given), stored)
    record = read_record(stored)
    cfg = given
    if cfg is None:
        cfg = recorded_config(record, stored.path)
        check_network(cfg, stored)
    names = record["class_names"]
    ids = record.get("category_ids") or known_category_ids(cfg.DATASETS.TRAIN, names)
    return TrainedModel(str(stored.path), cfg, names, ids, stored)


def checkpoint_file(source: str | os.PathLike) -> Path:
    """The file that :func:`find_trained_model` reads for a source. Same errors."""
    if os.fspath(source).startswith(PREFIX):
        return Path(resolve_weights(os.fspath(source)))
    return find_checkpoint(source)


def recorded_config(record: dict, path: os.PathLike) -> CfgNode:
    """The config of a checkpoint's record, not frozen; ``path`` is named where it does not fit.

    Raises:
        ValueError: it does not fit this version.
    """
    cfg = get_cfg()
    add_resnest_config(cfg)
    defaults = flat_values(cfg)
    try:
        cfg.merge_from_other_cfg(parse_config(record["config"]))
        check_limits(flat_values(cfg), defaults)
        move_old_keys(cfg)
    except Exception as error:  # yacs and yaml raise a dozen kinds
        version = printable(record.get("version", "?"), 20)
        raise ValueError(
            f"the config in {path}, written by resnest_d2 {version}, does not fit version "
            f"{__version__}: {printable(error_text(error), 300)}"
        ) from error
    return cfg


def check_network(cfg: CfgNode, stored: StoredWeights) -> None:
    """Refuse weights that do not fill the config's network, before that takes memory or time.

    Raises:
        ValueError: they do not, or the config is of no network.
    """
    try:
        model = meta_model(cfg, max_parameters=2 * len(stored.tensors) + 100)
    except Exception as error:  # what a network is asked for may be any wrong value
        raise ValueError(
            f"the config in {stored.path} builds no model: {printable(error_text(error), 300)}"
        ) from error
    RunCheckpointer(model, whole=True).check_stored(stored)


HEADS = {
    "GeneralizedRCNN": "MODEL.ROI_HEADS",
    "PanopticFPN": "MODEL.ROI_HEADS",
    "RetinaNet": "MODEL.RETINANET",
    "SemanticSegmentor": "MODEL.SEM_SEG_HEAD",
    "ImageClassifier": "RESNEST.CLASSIFIER",
}
"""The node of a config that has ``NUM_CLASSES``, by meta-architecture."""


def head_key(cfg: CfgNode) -> str:
    """The node that has the model's ``NUM_CLASSES``."""
    return HEADS.get(cfg.MODEL.META_ARCHITECTURE, "MODEL.ROI_HEADS")


def head_of(cfg: CfgNode) -> CfgNode:
    """The values of :func:`head_key`."""
    return get_value(cfg, head_key(cfg))


def class_names_of(data_set: str, cfg: CfgNode) -> list[str]:
    """Names of a registered data set's classes for the config's model: of stuff for a
    ``SemanticSegmentor``, else of things. None where it has no such classes.

    Nor are there any where it is not registered, or its file, which would say them, is not here.
    """
    if data_set not in DatasetCatalog:
        return []
    metadata = MetadataCatalog.get(data_set)
    file = metadata.get("json_file", "")
    if cfg.MODEL.META_ARCHITECTURE == "ImageClassifier":
        file = metadata.get("image_root", "")
    key = "thing_classes"
    if cfg.MODEL.META_ARCHITECTURE == "SemanticSegmentor":
        key = "stuff_classes"
    if not metadata.get(key) and ("://" in file or os.path.exists(file)):
        DatasetCatalog.get(data_set)  # register_coco_instances learns the names by loading
    return list(metadata.get(key, ()))


def known_category_ids(datasets: Sequence[str], class_names: Sequence[str]) -> list[int]:
    """Category ids of the first data set, by class number.

    Empty unless it is registered with these classes, and each has one id.
    """
    if not datasets or datasets[0] not in MetadataCatalog.list():
        return []
    metadata = MetadataCatalog.get(datasets[0])
    numbers = metadata.get("thing_dataset_id_to_contiguous_id", {})
    whole = sorted(numbers.values()) == list(range(len(class_names)))
    if not whole or metadata.get("thing_classes") != list(class_names):
        return []
    return sorted(numbers, key=numbers.get)


def _classes_of_config(cfg: CfgNode) -> tuple[list[str], list[int]]:
    """Class names and category ids of the training data, as far as this process knows them."""
    names = [name for data_set in cfg.DATASETS.TRAIN[:1] for name in class_names_of(data_set, cfg)]
    if len(names) > head_of(cfg).NUM_CLASSES:
        return [], []  # of a recipe's data set, left there beside other data
    return names, known_category_ids(cfg.DATASETS.TRAIN, names)


def _require_detector(name: str) -> None:
    """Refuse published weights that are none of a detector, before they are downloaded."""
    others = ("semantic", "classification")
    published = [model for model in list_models() if model.weights and model.task not in others]
    detectors = f"Published detectors: {', '.join(model.name for model in published)}"
    if name in WEIGHTS and name not in MODELS:
        raise ValueError(
            f"{PREFIX}{name} holds a backbone's weights, which detect nothing by themselves: a "
            f"training starts from them (MODEL.WEIGHTS). {detectors}"
        )
    if name in MODELS and not MODELS[name].weights and find(name) is None:
        raise ValueError(
            f"no trained weights were published for {name}. Train it: "
            f"{MODELS[name].train_command}. {detectors}"
        )
