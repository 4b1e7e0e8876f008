"""Config keys and packaged configs: the only file of the project that creates config keys.

:data:`KEYS` is the table of all keys, :func:`add_resnest_config` adds them to a Detectron2 config,
and :func:`get_config` returns a complete config by name.

The YAML files of the original plugin load unchanged, and their names work too. Unlike that plugin,
no default of Detectron2 changes. The plugin set ``MODEL.RESNETS.STRIDE_IN_1X1`` to False for every
model, so seven of its eight ResNet baselines ran on weights that were trained with the stride in
the 1x1 convolution. Here the default stays True, the ResNeSt recipes set False, and
:func:`get_config` sets it for ResNeSt files that do not set it.
"""

import ast
import difflib
import logging
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig

import detectron2
from detectron2.config import CfgNode, LazyConfig, get_cfg

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Key:
    """A config key of this project.

    Attributes:
        name: with dots, as in YAML and on the command line.
        default: as in ``cfg``.
        meaning: Markdown.
        allowed: values; empty where the default's type says it.
        unit: of the value; empty where it has none.
    """

    name: str
    default: Any
    meaning: str
    allowed: str = ""
    unit: str = ""


_TABLE = """
# Network
MODEL.RESNETS.RADIX = 2 | at least 0
    Number of splits of each split attention. All released detectors have 2. 1 is a sigmoid gate
    on one branch, 0 a plain convolution without attention.
MODEL.RESNETS.DEEP_STEM = True
    Three 3×3 convolutions instead of one 7×7.
MODEL.RESNETS.STEM_WIDTH = 0 | at least 0 | channels
    Width of the first two convolutions of the deep stem; the third has twice as many channels. 0
    is the published width of the depth: 32 for 14, 26 and 50, 64 for the deeper ones.
MODEL.RESNETS.AVD = True
    Strided blocks downsample by a 3×3 average pool beside the split attention, not by the
    convolution. Needs `MODEL.RESNETS.STRIDE_IN_1X1 False`; Detectron2's default is True.
MODEL.RESNETS.AVD_FIRST = False
    The pool of `AVD` comes before the split attention (the "fast" variants), not after.
MODEL.RESNETS.AVG_DOWN = True
    A strided shortcut is an average pool and a 1×1 convolution (ResNet-D).
MODEL.RESNETS.BOTTLENECK_WIDTH = 64 | at least 1
    Scales the width of the groups: stage k = 0…3 has groups of `int(WIDTH_PER_GROUP * 2**k *
    BOTTLENECK_WIDTH / 64)` channels, at least 1. 64 leaves `WIDTH_PER_GROUP` as it is; the
    "…x40d" variants have 40.
MODEL.RESNETS.RES4_DILATION = 1 | 1, 2 or 4
    Above 1, res4 keeps the resolution of res3 and dilates its convolutions, as in Detectron2's
    DeepLab project. Detectron2 itself has `RES5_DILATION` only.
MODEL.RESNETS.DILATION_STYLE = "plugin" | "plugin" or "classifier"
    The first block of a stage whose dilation is above 1. `"plugin"`: as the stage's other blocks,
    as in the original Detectron2 plugin. `"classifier"`: with an average pool and the previous
    stage's dilation, as in the official classifiers and the published segmentation models.

# Semantic segmentation
MODEL.SEM_SEG_HEAD.AUX_LOSS_WEIGHT = 0.2 | at least 0
    Weight of the auxiliary head of `ResNeStFCNHead` and `ResNeStDeepLabV3Head`. It takes the first
    feature map of `MODEL.SEM_SEG_HEAD.IN_FEATURES`, the head the second one. 0: no auxiliary head.
MODEL.SEM_SEG_HEAD.LOSS_TYPE = "hard_pixel_mining" | "cross_entropy" or "hard_pixel_mining"
    The mean loss of all pixels, or of the fifth with the highest loss. This key and the following
    ones are those of Detectron2's DeepLab project, with its defaults.
MODEL.SEM_SEG_HEAD.ASPP_CHANNELS = 256 | at least 1 | channels
    Channels of each branch of ASPP, and of its output.
MODEL.SEM_SEG_HEAD.ASPP_DILATIONS = [6, 12, 18] | three numbers
    Dilations of the 3×3 convolutions of ASPP.
MODEL.SEM_SEG_HEAD.ASPP_DROPOUT = 0.1 | at least 0 and less than 1
    Dropout after ASPP.
MODEL.SEM_SEG_HEAD.PROJECT_CHANNELS = [48] | at least 1 | channels
    `DeepLabV3PlusHead`: channels that each earlier feature map is reduced to.
MODEL.SEM_SEG_HEAD.USE_DEPTHWISE_SEPARABLE_CONV = False
    Depthwise separable convolutions in `DeepLabV3Head` and `DeepLabV3PlusHead`.
RESNEST.SEGMENT.SCALES = () | above 0
    Evaluate and predict semantic segmentation at several scales, in windows: at each scale the long
    side is `BASE_SIZE` times the scale, windows overlap by a third, and the exponentials of the
    logits are averaged over windows and summed over scales. (): once, at `INPUT.MIN_SIZE_TEST`.
RESNEST.SEGMENT.BASE_SIZE = 520 | at least 1 | pixels
    Long side of the image at scale 1.
RESNEST.SEGMENT.WINDOW = 480 | at least 2 | pixels
    Side of the square windows.
RESNEST.SEGMENT.FLIP = True
    Add the logits of each window's mirror image.

# Classification
RESNEST.CLASSIFIER.NUM_CLASSES = 1000 | at least 1
    Number of classes of an `ImageClassifier`. Folders of your own images set it.
RESNEST.CLASSIFIER.DROPOUT = 0.0 | at least 0 and less than 1
    Dropout before the last layer.
RESNEST.CLASSIFIER.ZERO_INIT_RESIDUAL = False
    Start with zero in the last norm of each block, so that each block begins as its shortcut.
RESNEST.CLASSIFIER.LABEL_SMOOTHING = 0.0 | from 0 to 1
    Share of each target that is spread over all classes.
RESNEST.CLASSIFIER.MIXUP = 0.0 | at least 0
    Mix the images of a batch in pairs: the parameter alpha of mixup. 0: off.
RESNEST.CLASSIFIER.CUTMIX = 0.0 | at least 0
    Paste a part of one image into another: the parameter alpha of CutMix. 0: off. With `MIXUP`
    too, each batch uses one of the two, at random.
RESNEST.CLASSIFIER.TRAIN_SIZE = 224 | at least 1 | pixels
    Side of the square training images.
RESNEST.CLASSIFIER.CROP_AREA = (0.08, 1.0) | above 0, at most 1, rising
    Lowest and highest share of the image in a random crop, which is resized to `TRAIN_SIZE`. Its
    ratio of width to height is 3/4 to 4/3.
RESNEST.CLASSIFIER.POLICY = "" | "", "randaugment", "autoaugment" or "trivialaugment"
    Random operations on each training image before the crop, by torchvision.
RESNEST.CLASSIFIER.RANDAUGMENT = (2, 12) | at least 0, and from 0 to 30
    Number of operations of `"randaugment"`, and their magnitude.
RESNEST.CLASSIFIER.COLOR_JITTER = 0.0 | at least 0
    Brightness, contrast and saturation are multiplied by 1 ± this value.
RESNEST.CLASSIFIER.LIGHTING = 0.0 | at least 0
    Standard deviation of the noise along the principal components of ImageNet's colours.
RESNEST.CLASSIFIER.ERASING = 0.0 | from 0 to 1
    Probability that a rectangle is filled with `MODEL.PIXEL_MEAN`.
RESNEST.CLASSIFIER.TEST_SIZE = 224 | at least 1 | pixels
    Side of the square images in evaluation and prediction.
RESNEST.CLASSIFIER.TEST_MARGIN = 32 | at least 0 | pixels
    The centre crop in evaluation and prediction has `TEST_SIZE` / (`TEST_SIZE` + `TEST_MARGIN`) of
    the image's short side. 0: all of it.

# Weights
RESNEST.ALLOW_FROZEN_RANDOM = False
    Train although `MODEL.BACKBONE.FREEZE_AT` freezes layers for which no weights are loaded. By
    default this is an error, because these layers would stay random.
RESNEST.ALLOW_PARTIAL_BACKBONE = False
    Load weights that fill only a part of the backbone; the rest stays random. By default this is
    an error.
RESNEST.ALLOW_STATISTICS_MISMATCH = False
    Use weights with another input format, mean or standard deviation than they were trained with.
    By default this is an error where those values are known.
RESNEST.FREEZE = () | patterns that each match a parameter
    Parameters that are not trained, as patterns of names such as `"backbone.*"`; `*` stands for
    any text. Batch norms whose weight and bias are both frozen keep their statistics too.

# Schedule
RESNEST.AUTO_SCALE = True
    Where `SOLVER.IMS_PER_BATCH` is given and `SOLVER.BASE_LR` is not, the learning rate and the
    schedule are scaled from the batch size of the recipe to the given one. False leaves every
    value as it is, as Detectron2 does.
RESNEST.EPOCHS.MAX = 0.0 | at least 0 | epochs of the training data; fractions are allowed
    Length of the training, instead of `SOLVER.MAX_ITER`. Where it is set alone, the steps, the
    warm-up and `RESNEST.FREEZE_NORM.ITER` keep their share of the schedule. 0 keeps the value in
    iterations.
RESNEST.EPOCHS.STEPS = () | rising numbers | epochs
    When the learning rate drops, instead of `SOLVER.STEPS`. () keeps the value in iterations.
RESNEST.EPOCHS.WARMUP = 0.0 | at least 0 | epochs
    Length of the warm-up, instead of `SOLVER.WARMUP_ITERS`. 0 keeps the value in iterations.
RESNEST.EPOCHS.EVAL_PERIOD = 0.0 | at least 0 | epochs
    Time between evaluations, instead of `TEST.EVAL_PERIOD`. 0 keeps the value in iterations.
RESNEST.EPOCHS.CHECKPOINT_PERIOD = 0.0 | at least 0 | epochs
    Time between checkpoints, instead of `SOLVER.CHECKPOINT_PERIOD`. 0 keeps the value in
    iterations.

SOLVER.POLY_LR_POWER = 0.9 | above 0
    Power of `SOLVER.LR_SCHEDULER_NAME WarmupPolyLR`: the learning rate is multiplied by (1 -
    iteration / `SOLVER.MAX_ITER`) to this power. A key of Detectron2's DeepLab project.
SOLVER.POLY_LR_CONSTANT_ENDING = 0.0 | at least 0
    The lowest factor of that schedule. A key of Detectron2's DeepLab project.

# Training step
SOLVER.BACKBONE_MULTIPLIER = 1.0 | at least 0
    Factor of the backbone's learning rate; that of the other layers is `SOLVER.BASE_LR`. The name
    is that of Mask2Former.
SOLVER.OPTIMIZER = "SGD" | "SGD" or "AdamW"
    The optimizer. The name is that of Mask2Former and D2Go; a key that such a project has added
    before keeps its value. Lower and upper case mean the same.
MODEL_EMA.ENABLED = False
    An exponential moving average of the weights is evaluated and saved as `model`; the weights
    that are trained are saved as `raw_model`. The name is that of D2Go.
MODEL_EMA.DECAY = 0.999 | at least 0 and less than 1
    The share of the average that each step keeps.
RESNEST.AMP_DTYPE = "" | "", "bfloat16", "float16" or "auto"
    Mixed precision: `""` is float32. `"bfloat16"` is autocast on CPU or GPU. `"float16"` is
    autocast with a scaled loss, on a GPU. `"auto"` is bfloat16 where the device gains by it,
    otherwise float32. Detectron2's `SOLVER.AMP.ENABLED True` means `"float16"`: it is an error on
    a CPU, and an error beside `"bfloat16"`. (D2Go has `SOLVER.AMP.PRECISION` for this, which
    stock Detectron2 would ignore and train in float16.)
RESNEST.ACCUMULATE = 1 | a divisor of the images per process | micro-batches
    Gradient accumulation: micro-batches per step. Each process takes `SOLVER.IMS_PER_BATCH` /
    processes / `ACCUMULATE` images at a time, and the step uses the mean of the gradients.
RESNEST.ACTIVATION_CHECKPOINTING = () | "res2" … "res5"
    Stages of the backbone that keep only the inputs of their blocks and compute the rest again in
    the backward pass.
RESNEST.RECOMPUTE_NORM = False
    The blocks of the backbone keep the outputs of their convolutions, and compute the norms,
    ReLUs, split attention and pools between them again in the backward pass. No convolution runs
    twice. With `COMPILE_BACKBONE` the compiler decides what is kept.
RESNEST.COMPILE_BACKBONE = False
    Train the backbone and its FPN compiled by `torch.compile`. The first step takes minutes, and
    so does the first step with another image size. Where sizes vary, a resumed run is equal up to
    rounding. Stages in `ACTIVATION_CHECKPOINTING` are not compiled.
RESNEST.CHANNELS_LAST = False
    Train with PyTorch's memory format `channels_last`.
RESNEST.FREEZE_NORM.ITER = 0 | at least 0 | iterations
    At this iteration the statistics of every batch norm are computed once more, and are fixed
    from then on. 0: never.
RESNEST.FREEZE_NORM.NUM_BATCHES = 50 | at least 1 | batches
    Training batches from which these statistics are computed.
SOLVER.CLIP_GRADIENTS.CLIP_TYPE = "value" | "value", "norm" or "full_model"
    A key of Detectron2, with one more value: `"full_model"` clips the norm of all gradients
    together, as in Mask2Former.

# Training data
RESNEST.JITTER.SIZE = 0 | at least 0 | pixels
    Large-scale jitter, instead of `INPUT.MIN_SIZE_TRAIN`: each training image is resized to fit
    into a square of this side times a random scale, then cropped to the square. 0: off.
    Mask2Former's names are `INPUT.IMAGE_SIZE`, `MIN_SCALE` and `MAX_SCALE`; they are not used
    here, because they are set there even where the jitter is off.
RESNEST.JITTER.SCALE = (0.1, 2.0) | above 0
    Lowest and highest scale.
RESNEST.JITTER.CROP = 0 | at least 0 | pixels
    Side of the square that the image is cropped to. 0: `RESNEST.JITTER.SIZE`.
RESNEST.KEYPOINT_FLIP_PAIRS = () | (("a", "b"), …)
    Pairs of keypoint names that a horizontal flip exchanges, for your own COCO files. Where it is
    empty, names that differ in left and right are pairs.

# Image values
RESNEST.INTENSITY.RULE = "type" | "type", "none", "percentile" or "range"
    For images of more than 8 bits per channel: which values are black and white. `"type"`: 0 and
    65535 for integers, 0 and 1 for floats. `"none"`: 0 and 255, as Detectron2 reads them.
    `"percentile"`: two percentiles of each image. `"range"`: two fixed values. The rule is stored
    in the checkpoint; evaluation, prediction and export use it too.
RESNEST.INTENSITY.RANGE = () | two rising numbers, or ()
    With `"range"` the values of black and white, such as (0, 4095) for 12 bits; with
    `"percentile"` the two percentages, () for (0.5, 99.5). Otherwise ().

# Evaluation and checkpoints
RESNEST.EVALUATOR = "hotcoco" | "hotcoco" or "pycocotools"
    The library that computes COCO's metrics. The numbers are the same; pycocotools is the slow
    reference.
RESNEST.BEST.METRIC = ""
    The checkpoint with the best value of this metric is kept as `model_best.pth`. Names are those
    in `metrics.json`, such as `"segm/AP"`; with several data sets `"DATASET/segm/AP"`. `""`: off.
RESNEST.BEST.MODE = "max" | "max" or "min"
    Which values are better.
RESNEST.BEST.PATIENCE = 0 | at least 0 | evaluations
    Early stopping: training ends after this many evaluations in a row without a better value. 0:
    never.
RESNEST.KEEP_CHECKPOINTS = 5 | at least 0 | checkpoints
    How many periodic checkpoints of a run are kept, the newest ones. 0: all. `model_best.pth` and
    `model_final.pth` always stay.
"""
"""Per key: name, default, allowed values, unit; below it the meaning in Markdown."""


def _read_table() -> dict[str, tuple[Key, ...]]:
    groups = {}
    for group in re.split(r"^# ", _TABLE, flags=re.MULTILINE)[1:]:
        title, _, rows = group.partition("\n")
        groups[title] = tuple(
            Key(
                name,
                ast.literal_eval(default),
                " ".join(meaning.split()),
                *(part.strip() for part in rest.split("|")[1:]),
            )
            for name, default, rest, meaning in re.findall(
                r"^([A-Z]\S+) = ([^|\n]+)(.*)\n((?:    .*\n)+)", rows, re.MULTILINE
            )
        )
    return groups


KEYS = _read_table()
"""All keys that :func:`add_resnest_config` adds, by group; the key reference is made from them.

``SOLVER.CLIP_GRADIENTS.CLIP_TYPE`` is Detectron2's own: this project allows one more value.
"""

_OLD_KEYS = {
    "RESNEST.OPTIMIZER": ("", "SOLVER.OPTIMIZER"),
    "RESNEST.EMA.DECAY": (-1.0, "MODEL_EMA.ENABLED and MODEL_EMA.DECAY"),
}
"""Keys that were renamed: the value that means "unset", and the present name.

They stay in the config, so that Detectron2's own ``merge_from_file`` accepts them.
:func:`read_config` and :func:`merge_opts` move given values to the present keys.
"""

_ORIGINALS = {
    "COCO-Detection": {
        "faster_cascade_rcnn_ResNeSt_101_FPN_syncbn_range-scale_1x": "cascade_rcnn_resnest101_fpn",
        "faster_cascade_rcnn_ResNeSt_200_FPN_syncbn_range-scale_1x": "cascade_rcnn_resnest200_fpn",
        "faster_cascade_rcnn_ResNeSt_50_FPN_syncbn_range-scale-1x": "cascade_rcnn_resnest50_fpn",
        "faster_cascade_rcnn_R_101_FPN_syncbn_range-scale_1x": "cascade_rcnn_resnet101_fpn",
        "faster_cascade_rcnn_R_50_FPN_syncbn_range-scale_1x": "cascade_rcnn_resnet50_fpn",
        "faster_rcnn_ResNeSt_101_FPN_syncbn_range-scale_1x": "faster_rcnn_resnest101_fpn",
        "faster_rcnn_ResNeSt_50_FPN_dcn_syncbn_range-scale_1x": "faster_rcnn_resnest50_dcn_fpn",
        "faster_rcnn_ResNeSt_50_FPN_syncbn_range-scale_1x": "faster_rcnn_resnest50_fpn",
        "faster_rcnn_R_101_FPN_syncbn_range-scale_1x": "faster_rcnn_resnet101_fpn",
        "faster_rcnn_R_50_FPN_syncbn_range-scale_1x": "faster_rcnn_resnet50_fpn",
    },
    "COCO-InstanceSegmentation": {
        "mask_cascade_rcnn_ResNeSt_101_FPN_syncBN_1x": "cascade_mask_rcnn_resnest101_fpn",
        "mask_cascade_rcnn_ResNeSt_200_FPN_dcn_syncBN_all_tricks_3x": (
            "cascade_mask_rcnn_resnest200_dcn_fpn_3x"
        ),
        "mask_cascade_rcnn_ResNeSt_200_FPN_syncBN_all_tricks_3x": (
            "cascade_mask_rcnn_resnest200_fpn_3x"
        ),
        "mask_cascade_rcnn_ResNeSt_50_FPN_syncBN_1x": "cascade_mask_rcnn_resnest50_fpn",
        "mask_cascade_rcnn_R_101_FPN_syncbn_1x": "cascade_mask_rcnn_resnet101_fpn",
        "mask_cascade_rcnn_R_50_FPN_syncbn_1x": "cascade_mask_rcnn_resnet50_fpn",
        "mask_rcnn_ResNeSt_101_FPN_syncBN_1x": "mask_rcnn_resnest101_fpn",
        "mask_rcnn_ResNeSt_50_FPN_syncBN_1x": "mask_rcnn_resnest50_fpn",
        "mask_rcnn_R_101_FPN_syncbn_1x": "mask_rcnn_resnet101_fpn",
        "mask_rcnn_R_50_FPN_syncbn_1x": "mask_rcnn_resnet50_fpn",
    },
    "COCO-PanopticSegmentation": {
        "panoptic_ResNeSt_200_FPN_syncBN_tricks_3x": "panoptic_fpn_resnest200_3x",
    },
}
ALIASES = {
    f"{folder}/{file}.yaml": name
    for folder, files in _ORIGINALS.items()
    for file, name in files.items()
}
"""The original plugin's files, relative to its ``configs``: the names of the same recipes here."""

_STRIDE = "MODEL.RESNETS.STRIDE_IN_1X1"
_SUFFIXES = (".yaml", ".yml")


def add_resnest_config(cfg: CfgNode) -> None:
    """Add the keys of this project to a Detectron2 config, in place.

    Keys that exist already keep their values: calling it twice changes nothing, and no default of
    Detectron2 changes. :data:`KEYS` explains all keys. ``MODEL.RESNETS.DEPTH`` may also be 14, 26,
    200 or 269.
    """
    defaults = [(key.name, key.default) for keys in KEYS.values() for key in keys]
    for name, default in [*defaults, *((old, value) for old, (value, _) in _OLD_KEYS.items())]:
        *nodes, last = name.split(".")
        node = cfg
        for part in nodes:
            if part not in node:
                node[part] = CfgNode()
            node = node[part]
        if last not in node:
            node[last] = default


def present_keys(values: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys and values, with those of old keys under the present names.

    Raises:
        ValueError: the value of an old key is invalid.
    """
    present = {key: value for key, value in values.items() if key not in _OLD_KEYS}
    for old in _given_old_keys(values):
        value = values[old]
        if old == "RESNEST.OPTIMIZER":
            present["SOLVER.OPTIMIZER"] = value
            continue
        try:
            decay = float(value)
        except (TypeError, ValueError):
            raise ValueError(f"{old} must be a number, got {value!r}") from None
        present["MODEL_EMA.ENABLED"] = decay != 0
        if decay:
            present["MODEL_EMA.DECAY"] = decay
    return present


def move_old_keys(cfg: CfgNode, layers: Sequence[Mapping[str, Any]] | None = None) -> None:
    """Move values from old keys to the present ones, in place, with a DeprecationWarning.

    Args:
        layers: what ``cfg`` was merged from, the last one wins; by default the values of ``cfg``.
    """
    if layers is None:
        layers = [{old: get_value(cfg, old) for old in _OLD_KEYS}]
    old_keys = {old for layer in layers for old in _given_old_keys(layer)}
    if not old_keys:
        return
    targets = ("SOLVER.OPTIMIZER", "MODEL_EMA.ENABLED", "MODEL_EMA.DECAY")
    for layer in map(present_keys, layers):
        merge_opts(cfg, [word for key in targets if key in layer for word in (key, layer[key])])
    for old in sorted(old_keys):
        unset, present = _OLD_KEYS[old]
        set_value(cfg, old, unset)
        warnings.warn(f"{old} is now {present}", DeprecationWarning, stacklevel=3)


def _given_old_keys(values: Mapping[str, Any]) -> list[str]:
    return [old for old, (unset, _) in _OLD_KEYS.items() if values.get(old, unset) != unset]


def get_config(name: str | os.PathLike, opts: Sequence[Any] = ()) -> CfgNode:
    """A complete config: Detectron2's defaults, this project's keys, a YAML file and ``opts``.

    Where the backbone is a ResNeSt (``MODEL.BACKBONE.NAME`` starts with ``build_resnest``) and
    neither the files nor ``opts`` set ``MODEL.RESNETS.STRIDE_IN_1X1``, it becomes False, and a
    log line says so. Files for the original plugin do not set it, because that plugin changed
    the default.

    Python tags in a YAML file (``!!python/object/apply:…``) are refused, not executed.

    Args:
        name: a packaged config, with or without ``.yaml`` (see :func:`list_configs`), or the path
            of a YAML file. A file name without a folder that is also a packaged name means the
            packaged one; write ``./NAME.yaml`` for the file. Names of the original plugin's files
            (:data:`ALIASES`), with or without folder and suffix, mean the recipe of the same
            values, where no such file exists.
        opts: ``[KEY, VALUE, KEY, VALUE, …]`` as for Detectron2's ``merge_from_list``.

    Returns:
        A new config, not frozen.

    Raises:
        KeyError: no such packaged config, or the files or ``opts`` have an unknown key.
        FileNotFoundError: no such file.
        ValueError: not a readable config, ``opts`` is not in pairs, or a value has a wrong type.
    """
    return read_config(name, opts)[0]


def read_config(
    config: str | os.PathLike | CfgNode, opts: Sequence[Any] = ()
) -> tuple[CfgNode, list[dict[str, Any]]]:
    """A config as :func:`get_config` returns it, and where each value was given.

    Args:
        config: a name, a path, or a config, all of whose values count as given.

    Returns:
        The config, and its layers; a later layer overrides an earlier one. A layer has the dotted
        keys and values that one source gives: each YAML file, a base before the file that names
        it, and finally ``opts``.
    """
    if isinstance(config, CfgNode):
        cfg, layers = config.clone(), [flat_values(config)]
        cfg.defrost()
        add_resnest_config(cfg)
    else:
        path = get_config_file(config)
        cfg = get_cfg()
        add_resnest_config(cfg)
        layers = _merge_file(cfg, path)
    move_old_keys(cfg, layers)
    merge_opts(cfg, opts)
    layers.append(_layer(opts))
    layers = [present_keys(layer) for layer in layers]
    for name in ("SGD", "AdamW"):
        if cfg.SOLVER.OPTIMIZER.lower() == name.lower():
            cfg.SOLVER.OPTIMIZER = name  # "ADAMW" of Mask2Former, "sgd" of D2Go
    if isinstance(config, CfgNode):
        return cfg, layers
    is_given = any(_STRIDE in layer for layer in layers)
    if cfg.MODEL.BACKBONE.NAME.startswith("build_resnest") and not is_given:
        cfg.MODEL.RESNETS.STRIDE_IN_1X1 = False
        logger.info(f"{_STRIDE} is now False, as {cfg.MODEL.BACKBONE.NAME} needs: {path} is silent")
    return cfg, layers


def _layer(opts: Sequence[Any]) -> dict[str, Any]:
    pairs = zip(opts[0::2], opts[1::2], strict=True)
    return {key: value for pair in pairs for key, value in flat_values([pair]).items()}


def get_config_file(name: str | os.PathLike) -> Path:
    """The file that :func:`get_config` reads; it raises the same errors."""
    return _find(name, _config_dir(), _SUFFIXES, ALIASES)


def list_configs() -> list[str]:
    """Names of the packaged configs, sorted, without the ``Base-…`` files."""
    return _names(_config_dir(), ".yaml")


def get_lazy_config(name: str | os.PathLike) -> DictConfig:
    """A LazyConfig, Detectron2's config in Python.

    It is a program, unlike a YAML file: loading it runs it.

    Args:
        name: a packaged one (``mask_rcnn_resnest50_fpn``, and ``faster_``, ``cascade_``,
            ``cascade_mask_`` likewise), with or without ``.py``, or the path of a ``.py`` file.

    Returns:
        ``model``, ``dataloader``, ``optimizer``, ``lr_multiplier`` and ``train``.

    Raises:
        KeyError: no such packaged config.
        FileNotFoundError: no such file.
        ValueError: not a ``.py`` file.
    """
    path = _find(name, _config_dir() / "lazy", (".py",), {})
    if path.suffix != ".py":
        raise ValueError(f"a LazyConfig is a .py file, got {path}")
    return LazyConfig.load(str(path))


def load_stock_lazy_config(name: str) -> DictConfig:
    """A LazyConfig of Detectron2 itself, such as ``common/train.py``.

    ``detectron2.model_zoo`` finds it with ``pkg_resources``, which new versions of setuptools lack.
    """
    folder = Path(detectron2.__file__).parent / "model_zoo" / "configs"
    return LazyConfig.load(str(folder / name))


def _names(folder: Path, suffix: str) -> list[str]:
    return sorted(p.stem for p in folder.glob(f"*{suffix}") if not p.stem.startswith("Base-"))


def _find(
    name: str | os.PathLike,
    folder: Path,
    suffixes: Sequence[str],
    aliases: Mapping[str, str],
) -> Path:
    """A packaged file by name, otherwise the file with that path, otherwise an alias."""
    name = os.fspath(name)
    path = Path(name).expanduser()
    stem = path.stem if path.suffix in suffixes else path.name
    bare = os.path.basename(name) == name
    names = _names(folder, suffixes[0])
    if bare and stem in names:
        return folder / f"{stem}{suffixes[0]}"
    if path.is_file():
        return path
    for original, ours in aliases.items():
        known = Path(original).with_suffix("")
        if path.with_name(stem) in (known, Path(known.name)):
            return folder / f"{ours}{suffixes[0]}"
    if bare:
        raise KeyError(
            f"there is no config {name!r}, packaged or in this folder.{_nearest(stem, names)} "
            f"Available: {', '.join(names)}"
        )
    raise FileNotFoundError(
        f"there is no config file {name}. Packaged configs are named without a folder."
        f"{_nearest(stem, names)}"
    )


def _config_dir() -> Path:
    # Inside the package in a wheel, beside it in a checkout and an editable install.
    package = Path(__file__).resolve().parent
    candidates = (package / "configs", package.parent / "configs")
    for folder in candidates:
        if (folder / "Base-RCNN-FPN.yaml").is_file():
            return folder
    raise FileNotFoundError(
        f"this installation of resnest_d2 has no configs: looked for Base-RCNN-FPN.yaml in "
        f"{' and '.join(map(str, candidates))}"
    )


def _merge_file(cfg: CfgNode, path: Path) -> list[dict[str, Any]]:
    """Merge a YAML file and its bases; return what each of them gives, by dotted key."""
    layers = []

    class Reader(CfgNode):
        @classmethod
        def load_yaml_with_base(cls, filename, allow_unsafe=False):
            merged = super().load_yaml_with_base(filename, allow_unsafe)  # calls this for bases
            with cls._open_cfg(filename) as file:
                layers.append(flat_values(yaml.safe_load(file).items()))
            return merged

    try:
        values = Reader.load_yaml_with_base(str(path))
        given = list(_dotted_keys(values))
        # yacs refuses 12 where the default is 0.0.
        whole = [key for key, value in flat_values(values).items() if _is_whole(cfg, key, value)]
        for key in whole:
            set_value(cfg, key, 0)
        # Detectron2 reads the file again, and upgrades configs of VERSION 1.
        cfg.merge_from_file(str(path), allow_unsafe=False)
        for key in whole:
            set_value(cfg, key, float(get_value(cfg, key)))
    except KeyError as error:
        known = set(_dotted_keys(cfg))
        unknown = [key for key in given if key not in known]
        if not unknown:
            raise
        raise KeyError(_unknown_keys(unknown, known, str(path))) from error
    except (
        yaml.YAMLError,
        AssertionError,
        AttributeError,
        TypeError,
        ValueError,
        RecursionError,
    ) as error:
        raise ValueError(
            f"{path} and its _BASE_ files must be YAML mappings of config keys, without Python "
            f"tags: {error}"
        ) from error
    return layers


def check_pairs(opts: Sequence[Any]) -> None:
    """Raise a ValueError unless ``opts`` is a list KEY VALUE KEY VALUE …"""
    if isinstance(opts, (str, Mapping)) or len(opts) % 2:
        raise ValueError(f"opts must be a list of pairs, KEY VALUE KEY VALUE …, got {opts!r}")


def merge_opts(cfg: CfgNode, opts: Sequence[Any]) -> None:
    """``cfg.merge_from_list(opts)``, which also accepts 12 for 12.0, and old keys.

    Raises:
        KeyError: an unknown key.
        ValueError: not in pairs, or a value of a wrong type.
    """
    check_pairs(opts)
    known = set(_dotted_keys(cfg)) if opts else set()
    unknown = [str(key) for key in opts[0::2] if key not in known]
    if unknown:
        raise KeyError(_unknown_keys(unknown, known, "opts"))
    given = list(zip(opts[0::2], opts[1::2], strict=True))
    for old in _given_old_keys(dict(given)):
        warnings.warn(f"{old} is now {_OLD_KEYS[old][1]}", DeprecationWarning, stacklevel=2)
    pairs = [pair for key, value in given for pair in present_keys({key: value}).items()]
    cfg.merge_from_list(
        [
            word
            for key, value in pairs
            for word in (key, float(value) if _is_whole(cfg, key, value) else value)
        ]
    )


def _is_whole(cfg: CfgNode, key: str, value: Any) -> bool:
    """Whether a whole number is given for a key that holds a float."""
    try:
        return isinstance(get_value(cfg, key), float) and bool(
            re.fullmatch(r"[+-]?\d+", str(value))
        )
    except (KeyError, TypeError):
        return False  # refused later, with a better message


def get_value(cfg: CfgNode, key: str) -> Any:
    """The value of a dotted key."""
    for name in key.split("."):
        cfg = cfg[name]
    return cfg


def set_value(cfg: CfgNode, key: str, value: Any) -> None:
    """Set the value of a dotted key."""
    *nodes, last = key.split(".")
    for name in nodes:
        cfg = cfg[name]
    cfg[last] = value


def _dotted_keys(node: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """``MODEL``, ``MODEL.RESNETS``, ``MODEL.RESNETS.DEPTH``, … of a nested mapping."""
    for key, value in node.items():
        yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _dotted_keys(value, f"{prefix}{key}.")


def flat_values(
    items: Mapping[str, Any] | Iterable[tuple[str, Any]], prefix: str = ""
) -> dict[str, Any]:
    """A nested mapping's values by dotted key."""
    flat = {}
    for key, value in dict(items).items():
        if isinstance(value, Mapping):
            flat.update(flat_values(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _unknown_keys(unknown: Iterable[str], known: Iterable[str], source: str) -> str:
    known = sorted(known)
    return f"unknown config key in {source}: " + "; ".join(
        f"{key}.{_nearest(key, known)}" for key in unknown
    )


def _nearest(word: str, known: list[str]) -> str:
    """A sentence with the three entries most similar to ``word``, or nothing."""
    last = word.rpartition(".")[2]
    # A key in the wrong node comes first: MODEL.RADIX → MODEL.RESNETS.RADIX.
    nearest = [key for key in known if "." in key and key.rpartition(".")[2] == last]
    nearest += [key for key in difflib.get_close_matches(word, known) if key not in nearest]
    return f" Nearest: {', '.join(nearest[:3])}." if nearest else ""
