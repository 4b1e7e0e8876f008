"""One trained model, many images."""

import logging
import os
from collections.abc import Sequence

import numpy as np
import torch

from detectron2.config import CfgNode, get_cfg
from detectron2.data import transforms as T
from detectron2.modeling import GeneralizedRCNNWithTTA, build_model
from detectron2.structures import Instances

from .checkpoint import (
    RunCheckpointer,
    StoredWeights,
    parse_config,
    read_checkpoint,
    read_record,
)
from .config import add_resnest_config, flat_values
from .data import known_category_ids
from .data.pictures import read_picture
from .inference import optimize_for_inference
from .modeling.build import meta_model
from .modeling.checks import check_choice, error_text
from .text import printable
from .version import __version__

__all__ = ["Predictor", "check_network", "read_config"]

_WITHOUT_INSTANCES = ("SemanticSegmentor", "ProposalNetwork")
_MAX_NUMBER = 1_000_000

logger = logging.getLogger(__name__)

Image = np.ndarray | str | os.PathLike


class Predictor:
    """Detects objects with a checkpoint that training wrote.

    Config, class names, input format and statistics come from the checkpoint. Images are resized
    as in evaluation, and files are read by :func:`.data.pictures.read_picture`.

    Args:
        source: a checkpoint file, or a run's output folder (its last checkpoint that can be read).
        device: e.g. ``"cpu"`` or ``"cuda:1"``; by default a GPU if there is one.
        score_threshold: instances with lower scores are left out, 0-1; None for the config's.
        optimize: make the model faster first, see :func:`.inference.optimize_for_inference`; the
            first image then takes up to a minute longer.
        tta: detect in each image at all sizes of ``TEST.AUG``, mirrored too, and merge what is
            found, as ``TEST.AUG.ENABLED`` does in evaluation: better, and some 20 times slower.
            Threshold and NMS hold at each size, and NMS once more for all.

    Raises:
        FileNotFoundError: no such checkpoint.
        ValueError: not a checkpoint of ours, or one that lacks weights of the model; a
            threshold that no score can be; ``tta`` of a model that has keypoints or is no
            ``GeneralizedRCNN``; a model without instances.

    Attributes:
        checkpoint: the file.
        settings: the arguments that decide what is found.
        cfg: the config, frozen.
        class_names: by class number; "class 7" where the checkpoint has fewer names than classes.
        category_ids: by class number, those of the training data where they are known (of
            Detectron2's own data sets they are, such as COCO), else None.
        model: the detector, in evaluation mode.
    """

    def __init__(
        self,
        source: str | os.PathLike,
        *,
        device: str | None = None,
        score_threshold: float | None = 0.5,
        optimize: bool = False,
        tta: bool = False,
    ):
        if score_threshold is not None and not 0 <= score_threshold <= 1:
            raise ValueError(f"score_threshold must be from 0 to 1, got {score_threshold}")
        stored = read_checkpoint(source)
        record = read_record(stored)
        cfg = read_config(record, stored.path)
        check_choice("INPUT.FORMAT", cfg.INPUT.FORMAT, ("RGB", "BGR"))
        if cfg.MODEL.META_ARCHITECTURE in _WITHOUT_INSTANCES:
            raise ValueError(f"{stored.path} holds a {cfg.MODEL.META_ARCHITECTURE}: no detector")
        cfg.MODEL.WEIGHTS = ""
        cfg.MODEL.DEVICE = device or ("cuda" if torch.cuda.is_available() else "cpu")
        check_network(cfg, stored)
        retina = cfg.MODEL.META_ARCHITECTURE == "RetinaNet"
        head = cfg.MODEL.RETINANET if retina else cfg.MODEL.ROI_HEADS
        if score_threshold is None:
            score_threshold = head.SCORE_THRESH_TEST
        head.SCORE_THRESH_TEST = score_threshold
        cfg.TEST.AUG.ENABLED = tta
        if tta:
            _check_tta(cfg, stored.path)
        cfg.freeze()
        self.cfg = cfg
        self.checkpoint = stored.path
        self.settings = {"score_threshold": score_threshold, "optimize": optimize, "tta": tta}
        names: list[str] = record["class_names"]
        self.class_names = names + [f"class {i}" for i in range(len(names), head.NUM_CLASSES)]
        ids = record.get("category_ids") or known_category_ids(cfg.DATASETS.TRAIN, names)
        self.category_ids: list[int] | None = ids if len(ids) == len(self.class_names) else None
        self.model = build_model(cfg).eval()
        RunCheckpointer(self.model, whole=True).load_stored(stored)
        if optimize:
            self.model = optimize_for_inference(self.model)
        self._detect = GeneralizedRCNNWithTTA(cfg, self.model) if tta else self.model
        self._resize = T.ResizeShortestEdge([cfg.INPUT.MIN_SIZE_TEST] * 2, cfg.INPUT.MAX_SIZE_TEST)

    def __call__(self, image: Image) -> Instances:
        """Detect objects in one image.

        Args:
            image: RGB, uint8, (H, W, 3), or a file.

        Returns:
            ``Instances`` on the CPU, in the image's pixels: ``pred_boxes``, ``scores``,
            ``pred_classes``, and ``pred_masks`` (N, H, W) where the model has masks.
        """
        return self.batch([image])[0]

    def batch(self, images: Sequence[Image]) -> list[Instances]:
        """Detect objects in several images, of any sizes; each as if it were alone.

        Images that are padded to the same size share a forward pass. One pass for all would pad
        small images further, and a network's biases let padding change what is found.
        """
        inputs = [self.preprocess(image) for image in images]
        multiple = max(1, self.model.backbone.size_divisibility)
        groups: dict[tuple[int, ...], list[int]] = {}
        for i, item in enumerate(inputs):
            padded = tuple(-(-side // multiple) for side in item["image"].shape[1:])
            groups.setdefault(padded, []).append(i)
        found = {}
        with torch.inference_mode():
            for group in groups.values():
                outputs = self._detect([inputs[i] for i in group])
                for i, output in zip(group, outputs, strict=True):
                    found[i] = output["instances"].to("cpu")
        return [found[i] for i in range(len(inputs))]

    def preprocess(self, image: Image) -> dict:
        """The model's input for one image, equal to what evaluation feeds it.

        Returns:
            ``image``: float32 (3, h, w) in the model's channel order, resized; ``height`` and
            ``width`` of the original in pixels.
        """
        image = _read_rgb(image)
        height, width = image.shape[:2]
        if self.cfg.INPUT.FORMAT == "BGR":
            image = image[:, :, ::-1]
        resize = self._resize.get_transform(image)
        if not (resize.new_h and resize.new_w):  # so thin that its short side rounds to nothing
            resize.new_h, resize.new_w = max(1, resize.new_h), max(1, resize.new_w)
        image = resize.apply_image(image)
        tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        return {"image": tensor, "height": height, "width": width}

    def draw(self, image: Image, instances: Instances) -> np.ndarray:
        """The image with boxes, masks, class names and scores: RGB, uint8, (H, W, 3)."""
        from .visualize import draw_instances  # matplotlib's import takes its time

        return draw_instances(_read_rgb(image), instances, self.class_names)


def read_config(record: dict, path: os.PathLike) -> CfgNode:
    """The config of a checkpoint's record, not frozen; ``path`` is named where it does not fit.

    Raises:
        ValueError: it does not fit this version.
    """
    cfg = get_cfg()
    add_resnest_config(cfg)
    try:
        cfg.merge_from_other_cfg(parse_config(record["config"]))
    except Exception as error:  # yacs and yaml raise a dozen kinds
        version = printable(record.get("version", "?"), 20)
        raise ValueError(
            f"the config in {path}, written by resnest_d2 {version}, does not "
            f"fit version {__version__}: {printable(error_text(error), 300)}"
        ) from error
    return cfg


def check_network(cfg: CfgNode, stored: StoredWeights) -> None:
    """Refuse weights that do not fill the config's network, before that takes memory or time.

    Raises:
        ValueError: they do not, or the config is of no network.
    """
    for key, value in flat_values(cfg.MODEL, "MODEL.").items():
        if type(value) is int and abs(value) > _MAX_NUMBER:  # of layers, classes, proposals, …
            raise ValueError(f"the config in {stored.path} has {key} {value}: over {_MAX_NUMBER}")
    try:
        model = meta_model(cfg, max_parameters=2 * len(stored.tensors) + 100)
    except Exception as error:  # what a network is asked for may be any wrong value
        raise ValueError(
            f"the config in {stored.path} builds no model: {printable(error_text(error), 300)}"
        ) from error
    RunCheckpointer(model, whole=True).check_stored(stored)


def _check_tta(cfg: CfgNode, path: os.PathLike) -> None:
    from .engine.tasks import check_test_augmentation  # importing us need not import all of engine

    try:
        check_test_augmentation(cfg)
    except ValueError as error:
        raise ValueError(f"no test-time augmentation for {path}: {error}") from error


def _read_rgb(image: Image) -> np.ndarray:
    if isinstance(image, (str, os.PathLike)):
        picture = read_picture(image)
        if picture.note:
            logger.warning(printable(f"{os.fspath(image)}: {picture.note}"))
        image = picture.pixels
    if not isinstance(image, np.ndarray):
        raise ValueError(f"an image is a file or a numpy array, got {type(image).__name__}")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise ValueError(
            "an image is RGB, uint8, of shape (height, width, 3), got "
            f"{image.dtype} of shape {image.shape}"
        )
    return image
