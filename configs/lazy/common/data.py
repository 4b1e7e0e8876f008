"""COCO for models with masks and for models with boxes alone, and its metrics.

For files of your own, register them in a config file that starts from one of ours:
``dataloader.train.dataset.names = register_coco("train.json", "train/")``, likewise
``dataloader.test.dataset.names``, and ``model.roi_heads.num_classes``.
"""

from detectron2.config import LazyCall as L

from resnest_d2.checkpoint.statistics import DETECTOR
from resnest_d2.config import load_stock_lazy_config
from resnest_d2.evaluation.coco_evaluator import CocoEvaluator


def _coco(*tasks: str):
    dataloader = load_stock_lazy_config("common/data/coco.py").dataloader
    dataloader.train.mapper.image_format = DETECTOR.format  # the test mapper refers to it
    dataloader.evaluator = L(CocoEvaluator)(
        dataset_name="${..test.dataset.names}",
        tasks=tasks,
        output_dir="${train.output_dir}/inference",
        implementation="hotcoco",
    )
    return dataloader


masks = _coco("bbox", "segm")

boxes = _coco("bbox")
boxes.train.mapper.use_instance_mask = False
boxes.train.mapper.augmentations[0].update(short_edge_length=(640, 800), sample_style="range")
