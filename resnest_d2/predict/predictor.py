"""Detection, semantic segmentation and classification with a trained model."""

import logging
import os
from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import PIL.Image
import torch

from detectron2.config import CfgNode
from detectron2.data import transforms as T
from detectron2.modeling import build_model
from detectron2.structures import Instances

from ..checkpoint import RunCheckpointer
from ..data.batches.class_images import CentreCrop, check_classifier
from ..data.image_reader import read_image
from ..data.intensity import Intensity
from ..errors import check_choice
from ..inference import optimize_for_inference
from ..model_zoo.trained import find_trained_model, head_of
from ..modeling.box_masks import AugmentedRCNN, unpasted_masks
from ..modeling.windows import WindowedSegmentor, use_scales
from ..text import printable

__all__ = ["Predictor"]

logger = logging.getLogger(__name__)

Image = np.ndarray | str | os.PathLike


class Predictor:
    """Detects objects, or classifies pixels or images, with a trained model.

    Config, class names, input format and statistics come from the checkpoint, the catalog or
    ``config``; see :mod:`resnest_d2.model_zoo.trained`. Images are read and resized as in
    evaluation.

    Args:
        source: a checkpoint file; a run's output folder (its last readable checkpoint); or
            ``resnest://NAME``, a published detector, downloaded if needed.
        config: a packaged config's name, a YAML file or a config. Only a checkpoint of stock
            Detectron2's trainer needs it: the one that it was trained with.
        device: e.g. ``"cpu"`` or ``"cuda:1"``; by default a GPU if there is one.
        score_threshold: instances with lower scores are left out, 0-1; None for the config's.
            Semantic segmentation and classification have no threshold.
        optimize: make the model faster first, see :func:`.inference.optimize_for_inference`; the
            first image then takes up to a minute longer.
        tta: test-time augmentation: detect at all sizes of ``TEST.AUG``, mirrored too, and merge
            the results, as ``TEST.AUG.ENABLED`` does in evaluation. Some 20 times slower.
            Threshold and NMS apply at each size, and NMS again to the merged results.

    Raises:
        FileNotFoundError: no such checkpoint.
        ValueError: no checkpoint, one without config or with missing weights; an invalid
            threshold; ``tta`` with keypoints or a model that is no ``GeneralizedRCNN``; a network
            of proposals alone.

    Attributes:
        checkpoint: the file.
        settings: the arguments that change results.
        cfg: the config, frozen.
        intensity: the rule for images of more than 8 bits, as in training.
        class_names: by class number; "class 7" where the name is unknown.
        category_ids: those of the training data by class number, None where unknown.
        segments, classifies: whether it classifies pixels, or images.
        model: the network, in evaluation mode.
    """

    def __init__(
        self,
        source: str | os.PathLike,
        *,
        config: str | os.PathLike | CfgNode | None = None,
        device: str | None = None,
        score_threshold: float | None = 0.5,
        optimize: bool = False,
        tta: bool = False,
    ):
        if score_threshold is not None and not 0 <= score_threshold <= 1:
            raise ValueError(f"score_threshold must be from 0 to 1, got {score_threshold}")
        trained = find_trained_model(source, config)
        cfg = trained.cfg
        check_choice("INPUT.FORMAT", cfg.INPUT.FORMAT, ("RGB", "BGR"))
        if cfg.MODEL.META_ARCHITECTURE == "ProposalNetwork":
            raise ValueError(f"{trained.weights} holds a ProposalNetwork: no detector")
        cfg.MODEL.WEIGHTS = ""
        cfg.MODEL.DEVICE = device or ("cuda" if torch.cuda.is_available() else "cpu")
        head = head_of(cfg)
        self.segments = cfg.MODEL.META_ARCHITECTURE == "SemanticSegmentor"
        self.classifies = cfg.MODEL.META_ARCHITECTURE == "ImageClassifier"
        if self.segments:
            score_threshold = None
            use_scales(cfg)
        elif self.classifies:
            score_threshold = None
            check_classifier(cfg)
        else:
            if score_threshold is None:
                score_threshold = head.SCORE_THRESH_TEST
            head.SCORE_THRESH_TEST = score_threshold
        cfg.TEST.AUG.ENABLED = tta
        if tta:
            from ..engine.prepare.tasks import check_test_augmentation  # not without need: slow

            try:
                check_test_augmentation(cfg)
            except ValueError as error:
                raise ValueError(
                    f"no test-time augmentation for {trained.weights}: {error}"
                ) from error
        cfg.freeze()
        stored = trained.read()
        self.cfg = cfg
        self.intensity = Intensity.from_config(cfg)
        self.checkpoint = stored.path
        self.settings = {"score_threshold": score_threshold, "optimize": optimize, "tta": tta}
        names, ids = trained.class_names, trained.category_ids
        self.class_names = names + [f"class {i}" for i in range(len(names), head.NUM_CLASSES)]
        self.category_ids: list[int] | None = ids if len(ids) == len(self.class_names) else None
        self.model = build_model(cfg).eval()
        RunCheckpointer.from_config(cfg, self.model, whole=True).load_stored(stored)
        if optimize:
            self.model = optimize_for_inference(self.model)
        self._forward = AugmentedRCNN(cfg, self.model) if tta else self.model
        if self.segments:
            self._forward = WindowedSegmentor.from_config(cfg, self.model)
        if self.classifies:
            self._centre_crop = CentreCrop(cfg)
        self._resize = T.ResizeShortestEdge([cfg.INPUT.MIN_SIZE_TEST] * 2, cfg.INPUT.MAX_SIZE_TEST)

    def __call__(self, image: Image) -> Instances | torch.Tensor:
        """Detect objects in one image, or classify its pixels, or the image.

        Args:
            image: RGB, uint8, (H, W, 3), or a file.

        Returns:
            ``Instances`` on the CPU, in pixels of the image: ``pred_boxes``, ``scores``,
            ``pred_classes``, and ``pred_masks`` (N, H, W) where the model has masks. Of a model for
            semantic segmentation the class number of each pixel, int64 (H, W); of a classifier the
            probability of each class, float32 (classes,).
        """
        return self.batch([image])[0]

    def batch(
        self, images: Sequence[Image], *, paste_masks: bool = True
    ) -> list[Instances] | list[torch.Tensor]:
        """Predict several images of any sizes, with the results of one by one.

        Only images that are padded to the same size share a forward pass, because more padding
        would change the results.

        Args:
            paste_masks: False leaves ``pred_masks`` as Detectron2's ``ROIMasks`` where the model
                can: 100 pasted masks of 8000 x 6000 pixels take 4.8 GB.
        """
        inputs = [self.preprocess(image) for image in images]
        multiple = max(1, self.model.backbone.size_divisibility)
        groups: dict[tuple[int, ...], list[int]] = {}
        for i, item in enumerate(inputs):
            padded = tuple(-(-side // multiple) for side in item["image"].shape[1:])
            groups.setdefault(padded, []).append(i)
        found = {}
        unpasted = nullcontext() if paste_masks else unpasted_masks(self._forward)
        with torch.inference_mode(), unpasted:
            for group in groups.values():
                outputs = self._forward([inputs[i] for i in group])
                for i, output in zip(group, outputs, strict=True):
                    if self.segments:
                        found[i] = output["sem_seg"].argmax(dim=0).cpu()
                    elif self.classifies:
                        found[i] = output["probabilities"].cpu()
                    else:
                        found[i] = output["instances"].to("cpu")
        return [found[i] for i in range(len(inputs))]

    def preprocess(self, image: Image) -> dict:
        """The model's input for one image, equal to that in evaluation.

        Returns:
            ``image``: float32 (3, h, w) in the model's channel order, resized, of a classifier
            cropped too; ``height`` and ``width`` of the original in pixels.
        """
        image = self._read(image)
        height, width = image.shape[:2]
        if self.classifies:
            tensor = self._centre_crop(PIL.Image.fromarray(image))
            return {"image": tensor, "height": height, "width": width}
        if self.cfg.INPUT.FORMAT == "BGR":
            image = image[:, :, ::-1]
        resize = self._resize.get_transform(image)
        if isinstance(resize, T.ResizeTransform):  # none where MIN_SIZE_TEST is 0
            # the short side of a very thin image would become 0
            resize.new_h, resize.new_w = max(1, resize.new_h), max(1, resize.new_w)
        image = resize.apply_image(image)
        tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        return {"image": tensor, "height": height, "width": width}

    def draw(self, image: Image, instances: Instances) -> np.ndarray:
        """The image with boxes, masks, class names and scores: RGB, uint8, (H, W, 3)."""
        from ..draw.instances import draw_instances  # matplotlib's import takes its time

        return draw_instances(self._read(image), instances, self.class_names)

    def _read(self, image: Image) -> np.ndarray:
        if isinstance(image, (str, os.PathLike)):
            decoded = read_image(image, self.intensity)
            if decoded.note:
                logger.warning(printable(f"{os.fspath(image)}: {decoded.note}"))
            image = decoded.pixels
        if not isinstance(image, np.ndarray):
            raise ValueError(f"an image is a file or a numpy array, got {type(image).__name__}")
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise ValueError(
                "an image is RGB, uint8, of shape (height, width, 3), got "
                f"{image.dtype} of shape {image.shape}"
            )
        return image
