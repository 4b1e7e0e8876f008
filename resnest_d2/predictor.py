"""One trained model, many images."""

import os
from collections.abc import Sequence

import numpy as np
import torch

from detectron2.config import CfgNode, get_cfg
from detectron2.data import transforms as T
from detectron2.data.detection_utils import read_image
from detectron2.modeling import build_model
from detectron2.structures import Instances

from .checkpoint import find_checkpoint, read_checkpoint, read_record
from .config import add_resnest_config
from .visualize import draw_instances

__all__ = ["Predictor"]

Image = np.ndarray | str | os.PathLike


class Predictor:
    """Detects objects with a checkpoint that training wrote.

    Config, class names, input format and statistics come from the checkpoint. Images are resized
    as in evaluation.

    Args:
        source: a checkpoint file, or a run's output folder (its last checkpoint).
        device: e.g. ``"cpu"`` or ``"cuda:1"``; by default a GPU if there is one.
        score_threshold: instances with lower scores are left out, 0-1.

    Raises:
        FileNotFoundError: no such checkpoint.
        ValueError: not a checkpoint of ours, or one that lacks weights of the model.

    Attributes:
        cfg: the config, frozen.
        class_names: by class number.
        model: the detector, in evaluation mode.
    """

    def __init__(
        self,
        source: str | os.PathLike,
        *,
        device: str | None = None,
        score_threshold: float = 0.5,
    ):
        path = find_checkpoint(source)
        checkpoint = read_checkpoint(path)
        record = read_record(checkpoint, path)
        cfg = get_cfg()
        add_resnest_config(cfg)
        cfg.merge_from_other_cfg(CfgNode.load_cfg(record["config"]))
        cfg.MODEL.WEIGHTS = ""
        cfg.MODEL.DEVICE = device or ("cuda" if torch.cuda.is_available() else "cpu")
        cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = score_threshold
        cfg.MODEL.RETINANET.SCORE_THRESH_TEST = score_threshold
        cfg.freeze()
        self.cfg = cfg
        self.class_names: list[str] = record["class_names"]
        self.model = build_model(cfg).eval()
        self._load(checkpoint["model"], path)
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
        """Detect objects in several images, of any sizes, in one forward pass."""
        inputs = [self.preprocess(image) for image in images]
        with torch.inference_mode():
            return [output["instances"].to("cpu") for output in self.model(inputs)]

    def preprocess(self, image: Image) -> dict:
        """The model's input for one image, equal to what evaluation feeds it.

        Returns:
            ``image``: float32 (3, h, w) in the model's channel order, resized; ``height`` and
            ``width`` of the original in pixels.
        """
        if isinstance(image, (str, os.PathLike)):
            image = read_image(os.fspath(image), format="RGB")
        if not isinstance(image, np.ndarray):
            raise ValueError(f"an image is a file or a numpy array, got {type(image).__name__}")
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(
                "an image is RGB, uint8, of shape (height, width, 3), got "
                f"{image.dtype} of shape {image.shape}"
            )
        height, width = image.shape[:2]
        if self.cfg.INPUT.FORMAT == "BGR":
            image = image[:, :, ::-1]
        image = self._resize.get_transform(image).apply_image(image)
        tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        return {"image": tensor, "height": height, "width": width}

    def draw(self, image: Image, instances: Instances) -> np.ndarray:
        """The image with boxes, masks, class names and scores: RGB, uint8, (H, W, 3)."""
        if isinstance(image, (str, os.PathLike)):
            image = read_image(os.fspath(image), format="RGB")
        return draw_instances(image, instances, self.class_names)

    def _load(self, weights: dict[str, torch.Tensor], path: os.PathLike) -> None:
        own = self.model.state_dict()
        lacking = [
            name
            for name, value in own.items()
            if getattr(weights.get(name), "shape", None) != value.shape
        ]
        if lacking:
            raise ValueError(
                f"{path} has {len(own) - len(lacking)} of the {len(own)} tensors of its model; "
                f"missing or of another shape: {', '.join(lacking[:5])}"
                f"{', …' if len(lacking) > 5 else ''}. Random heads would detect nothing"
            )
        self.model.load_state_dict(weights, strict=False)
