"""Config keys and packaged configs: the only file of the project that creates config keys.

:func:`add_resnest_config` makes a Detectron2 config know ResNeSt, :func:`get_config` gives a
complete one by name, the original plugin's file names included. Its YAML files load as they are,
too; what differs from that plugin is that no default of Detectron2 changes. It set
``MODEL.RESNETS.STRIDE_IN_1X1`` to False for everybody, and so ran seven of its eight ResNet
baselines on weights trained with the stride elsewhere. Here the key keeps Detectron2's True, the
ResNeSt recipes state False, and :func:`get_config` fills it in for ResNeSt files that rely on the
old behaviour.
"""

import difflib
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig

import detectron2
from detectron2.config import CfgNode, LazyConfig, get_cfg

__all__ = [
    "ALIASES",
    "add_resnest_config",
    "check_pairs",
    "flat_values",
    "get_config",
    "get_config_file",
    "get_lazy_config",
    "get_value",
    "list_configs",
    "load_stock_lazy_config",
    "merge_opts",
    "read_config",
    "set_value",
]

logger = logging.getLogger(__name__)

ALIASES = {
    "COCO-Detection/faster_cascade_rcnn_ResNeSt_101_FPN_syncbn_range-scale_1x.yaml": (
        "cascade_rcnn_resnest101_fpn"
    ),
    "COCO-Detection/faster_cascade_rcnn_ResNeSt_200_FPN_syncbn_range-scale_1x.yaml": (
        "cascade_rcnn_resnest200_fpn"
    ),
    "COCO-Detection/faster_cascade_rcnn_ResNeSt_50_FPN_syncbn_range-scale-1x.yaml": (
        "cascade_rcnn_resnest50_fpn"
    ),
    "COCO-Detection/faster_cascade_rcnn_R_101_FPN_syncbn_range-scale_1x.yaml": (
        "cascade_rcnn_resnet101_fpn"
    ),
    "COCO-Detection/faster_cascade_rcnn_R_50_FPN_syncbn_range-scale_1x.yaml": (
        "cascade_rcnn_resnet50_fpn"
    ),
    "COCO-Detection/faster_rcnn_ResNeSt_101_FPN_syncbn_range-scale_1x.yaml": (
        "faster_rcnn_resnest101_fpn"
    ),
    "COCO-Detection/faster_rcnn_ResNeSt_50_FPN_dcn_syncbn_range-scale_1x.yaml": (
        "faster_rcnn_resnest50_dcn_fpn"
    ),
    "COCO-Detection/faster_rcnn_ResNeSt_50_FPN_syncbn_range-scale_1x.yaml": (
        "faster_rcnn_resnest50_fpn"
    ),
    "COCO-Detection/faster_rcnn_R_101_FPN_syncbn_range-scale_1x.yaml": "faster_rcnn_resnet101_fpn",
    "COCO-Detection/faster_rcnn_R_50_FPN_syncbn_range-scale_1x.yaml": "faster_rcnn_resnet50_fpn",
    "COCO-InstanceSegmentation/mask_cascade_rcnn_ResNeSt_101_FPN_syncBN_1x.yaml": (
        "cascade_mask_rcnn_resnest101_fpn"
    ),
    "COCO-InstanceSegmentation/mask_cascade_rcnn_ResNeSt_200_FPN_dcn_syncBN_all_tricks_3x.yaml": (
        "cascade_mask_rcnn_resnest200_dcn_fpn_3x"
    ),
    "COCO-InstanceSegmentation/mask_cascade_rcnn_ResNeSt_200_FPN_syncBN_all_tricks_3x.yaml": (
        "cascade_mask_rcnn_resnest200_fpn_3x"
    ),
    "COCO-InstanceSegmentation/mask_cascade_rcnn_ResNeSt_50_FPN_syncBN_1x.yaml": (
        "cascade_mask_rcnn_resnest50_fpn"
    ),
    "COCO-InstanceSegmentation/mask_cascade_rcnn_R_101_FPN_syncbn_1x.yaml": (
        "cascade_mask_rcnn_resnet101_fpn"
    ),
    "COCO-InstanceSegmentation/mask_cascade_rcnn_R_50_FPN_syncbn_1x.yaml": (
        "cascade_mask_rcnn_resnet50_fpn"
    ),
    "COCO-InstanceSegmentation/mask_rcnn_ResNeSt_101_FPN_syncBN_1x.yaml": (
        "mask_rcnn_resnest101_fpn"
    ),
    "COCO-InstanceSegmentation/mask_rcnn_ResNeSt_50_FPN_syncBN_1x.yaml": "mask_rcnn_resnest50_fpn",
    "COCO-InstanceSegmentation/mask_rcnn_R_101_FPN_syncbn_1x.yaml": "mask_rcnn_resnet101_fpn",
    "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_syncbn_1x.yaml": "mask_rcnn_resnet50_fpn",
    "COCO-PanopticSegmentation/panoptic_ResNeSt_200_FPN_syncBN_tricks_3x.yaml": (
        "panoptic_fpn_resnest200_3x"
    ),
}
"""The original plugin's files, relative to its ``configs``: the names of the same recipes here."""

_STRIDE = "MODEL.RESNETS.STRIDE_IN_1X1"
_SUFFIXES = (".yaml", ".yml")


def add_resnest_config(cfg: CfgNode) -> None:
    """Add the keys of this project to a Detectron2 config, in place.

    Keys that are there already keep their values, so that calling it twice does nothing, and no
    existing default changes. Besides Detectron2's own ``DEPTH``, ``NUM_GROUPS``, ``NORM`` …
    (14, 26, 101, 200 and 269 become depths too), the builders of this project read under
    ``MODEL.RESNETS``:

    - ``RADIX``: splits of each split attention, at least 0. 2 in every released detector; 1 is a
      sigmoid gate on one branch, 0 a plain convolution.
    - ``DEEP_STEM``: three 3x3 convolutions instead of one 7x7.
    - ``STEM_WIDTH``: channels of the deep stem's first two convolutions; the third has twice as
      many. 0 means the depth's published width: 32 for 14, 26, 50 and 64 for the deeper ones.
    - ``AVD``: stride by a 3x3 average pool beside the split attention, not by a convolution. It
      excludes ``STRIDE_IN_1X1: True``, Detectron2's default: set that to False.
    - ``AVD_FIRST``: that pool comes before the split attention (the "fast" variants), not after.
    - ``AVG_DOWN``: average-pool before the 1x1 convolution of a strided shortcut.
    - ``BOTTLENECK_WIDTH``: 64 leaves ``WIDTH_PER_GROUP`` as it is. Stage k = 0…3 has groups of
      ``int(WIDTH_PER_GROUP * 2**k * BOTTLENECK_WIDTH / 64)`` channels, at least 1.
    - ``RES4_DILATION``: 1, 2 or 4; above 1, res4 keeps the resolution of res3. Detectron2 has the
      same key for res5 only.

    and under ``RESNEST``, for the weights:

    - ``ALLOW_FROZEN_RANDOM``: train although ``MODEL.BACKBONE.FREEZE_AT`` freezes layers that no
      weights were loaded for. Refused otherwise: they would stay random.
    - ``ALLOW_PARTIAL_BACKBONE``: load weights that fill the backbone in part; what they lack stays
      random. Refused otherwise.
    - ``ALLOW_STATISTICS_MISMATCH``: use weights with an input format, mean or std other than
      theirs. Refused otherwise, where theirs are known.
    - ``FREEZE``: patterns of parameter names such as ``"backbone.*"``, in which ``*`` stands for
      any text; these parameters stay as they were loaded, and so do the statistics of the batch
      norms among them.

    for the schedule:

    - ``AUTO_SCALE``: where ``SOLVER.IMS_PER_BATCH`` is given without a ``SOLVER.BASE_LR``, learning
      rate and schedule are scaled from the batch that the recipe's rate is for; see
      :mod:`.engine.schedule`. False leaves every value as it is given, as Detectron2 does.
    - ``EPOCHS.MAX``, ``EPOCHS.STEPS``, ``EPOCHS.WARMUP``, ``EPOCHS.EVAL_PERIOD``,
      ``EPOCHS.CHECKPOINT_PERIOD``: the schedule in epochs of the training data, fractions allowed,
      in place of ``SOLVER.MAX_ITER``, ``SOLVER.STEPS``, ``SOLVER.WARMUP_ITERS``,
      ``TEST.EVAL_PERIOD``, ``SOLVER.CHECKPOINT_PERIOD``. 0 and () leave a key in iterations; with
      ``EPOCHS.MAX`` alone the recipe's steps, warm-up and ``FREEZE_NORM.ITER`` keep their share of
      the schedule.

    for the step:

    - ``OPTIMIZER``: ``"SGD"`` or ``"AdamW"``.
    - ``AMP_DTYPE``: ``""`` (float32), ``"bfloat16"``: autocast in the training step, on CPU or GPU,
      ``"float16"``: with a scaled loss, on a GPU, or ``"auto"``: bfloat16 where the device gains by
      it (:func:`.hardware.has_fast_bfloat16`), else float32.
    - ``ACCUMULATE``: micro-batches of a step. Each process takes ``SOLVER.IMS_PER_BATCH`` /
      processes / ``ACCUMULATE`` images at a time, and steps with the mean of the gradients.
    - ``ACTIVATION_CHECKPOINTING``: stages of the backbone (``"res2"`` …) that keep only the inputs
      of their blocks and compute the rest again in the backward pass.
    - ``RECOMPUTE_NORM``: the backbone's blocks keep what their convolutions give, and compute the
      norms, ReLUs, split attention and pools between them again in the backward pass. No
      convolution runs twice. With ``COMPILE_BACKBONE`` the compiler decides what is kept.
    - ``COMPILE_BACKBONE``: train the backbone, with its FPN, compiled by ``torch.compile``. The
      first step takes minutes, and so does the first one of another image size; where sizes vary,
      a resumed run is equal up to rounding. Stages of ``ACTIVATION_CHECKPOINTING`` run as they are.
    - ``CHANNELS_LAST``: memory format of the model in training.
    - ``EMA.DECAY``: above 0, an exponential moving average of the weights, of which a step keeps
      this share, is what is evaluated and saved as ``model``. 0.999 is common.
      The weights that are trained are saved as ``raw_model``.
    - ``SOLVER.CLIP_GRADIENTS.CLIP_TYPE``, Detectron2's, may also be ``"full_model"``: the norm of
      all gradients together.
    - ``FREEZE_NORM.ITER``: from this iteration on, the statistics of every batch norm are
      recomputed once and then fixed. 0 means never.
    - ``FREEZE_NORM.NUM_BATCHES``: training batches for that recomputation, at least 1.
    - ``JITTER.SIZE``: large-scale jitter in place of ``INPUT.MIN_SIZE_TRAIN``: each training image
      is resized to fit into a square of this side times a random scale, pixels, then cropped to
      the square. 0 means off.
    - ``JITTER.SCALE``: lowest and highest scale.
    - ``KEYPOINT_FLIP_PAIRS``: pairs of names of keypoints that a horizontal flip exchanges, in own
      COCO files. Empty: those whose names differ in ``left`` and ``right`` (or ``l`` and ``r``).

    for images of more than 8 bits a channel, in training, evaluation and prediction:

    - ``INTENSITY.RULE``: which values are black and white. ``"type"``: integers 0 and 65535, floats
      0 and 1. ``"none"``: 0 and 255, as Detectron2 reads. ``"percentile"``: two percentiles of each
      image. ``"range"``: two values.
    - ``INTENSITY.RANGE``: the two values, such as (0, 4095) for 12 bits; the two percentages,
      () for (0.5, 99.5).

    for evaluation and checkpoints:

    - ``EVALUATOR``: what computes COCO's numbers: ``"hotcoco"``, or ``"pycocotools"``, the slow
      reference.
    - ``BEST.METRIC``: e.g. ``"segm/AP"``: the checkpoint with the best value of an evaluation is
      kept as ``model_best.pth``. ``""`` means off.
      Names are those of ``metrics.json``: ``"DATASET/segm/AP"`` with several data sets.
    - ``BEST.MODE``: ``"max"`` or ``"min"``: which values are better.
    - ``BEST.PATIENCE``: training ends after this many evaluations in a row without a better value.
      0 means never.
    - ``KEEP_CHECKPOINTS``: how many periodic checkpoints of a run are kept, the last ones; 0 means
      all. ``model_best.pth`` and ``model_final.pth`` always stay.
    """
    resnets = cfg.MODEL.RESNETS
    _add(resnets, "RADIX", 2)  # R of the paper
    _add(resnets, "DEEP_STEM", True)
    _add(resnets, "STEM_WIDTH", 0)  # 0: the depth's published width
    _add(resnets, "AVD", True)  # "average down" in the official code
    _add(resnets, "AVD_FIRST", False)  # True in the "fast" variants only
    _add(resnets, "AVG_DOWN", True)  # ResNet-D's shortcut
    _add(resnets, "BOTTLENECK_WIDTH", 64)  # 40 in the "…x40d" variants
    _add(resnets, "RES4_DILATION", 1)  # DeepLab's projects use the same name and default

    _add(cfg, "RESNEST", CfgNode())
    ours = cfg.RESNEST
    _add(ours, "ALLOW_FROZEN_RANDOM", False)  # True: you mean it
    _add(ours, "ALLOW_PARTIAL_BACKBONE", False)
    _add(ours, "ALLOW_STATISTICS_MISMATCH", False)
    _add(ours, "FREEZE", ())

    _add(ours, "AUTO_SCALE", True)
    _add(ours, "EPOCHS", CfgNode())
    _add(ours.EPOCHS, "MAX", 0.0)  # 0: by iterations
    _add(ours.EPOCHS, "STEPS", ())
    _add(ours.EPOCHS, "WARMUP", 0.0)
    _add(ours.EPOCHS, "EVAL_PERIOD", 0.0)
    _add(ours.EPOCHS, "CHECKPOINT_PERIOD", 0.0)

    _add(ours, "OPTIMIZER", "SGD")  # or "AdamW"
    _add(ours, "AMP_DTYPE", "")  # or "bfloat16", "float16", "auto"
    _add(ours, "ACCUMULATE", 1)
    _add(ours, "ACTIVATION_CHECKPOINTING", ())
    _add(ours, "RECOMPUTE_NORM", False)
    _add(ours, "COMPILE_BACKBONE", False)
    _add(ours, "CHANNELS_LAST", False)
    _add(ours, "EMA", CfgNode())
    _add(ours.EMA, "DECAY", 0.0)  # 0: off
    _add(ours, "FREEZE_NORM", CfgNode())
    _add(ours.FREEZE_NORM, "ITER", 0)  # 0: never
    _add(ours.FREEZE_NORM, "NUM_BATCHES", 50)
    _add(ours, "JITTER", CfgNode())
    _add(ours.JITTER, "SIZE", 0)  # 0: off
    _add(ours.JITTER, "SCALE", (0.1, 2.0))
    _add(ours, "KEYPOINT_FLIP_PAIRS", ())

    _add(ours, "INTENSITY", CfgNode())
    _add(ours.INTENSITY, "RULE", "type")  # or "none", "percentile", "range"
    _add(ours.INTENSITY, "RANGE", ())

    _add(ours, "EVALUATOR", "hotcoco")  # or "pycocotools"
    _add(ours, "BEST", CfgNode())
    _add(ours.BEST, "METRIC", "")  # "": off
    _add(ours.BEST, "MODE", "max")
    _add(ours.BEST, "PATIENCE", 0)  # 0: never stop early
    _add(ours, "KEEP_CHECKPOINTS", 5)


def get_config(name: str | os.PathLike, opts: Sequence[Any] = ()) -> CfgNode:
    """A complete config: Detectron2's defaults, this project's keys, one YAML chain, ``opts``.

    Where the backbone is a ResNeSt (``MODEL.BACKBONE.NAME`` starts with ``build_resnest``) and
    neither the files nor ``opts`` state ``MODEL.RESNETS.STRIDE_IN_1X1``, it becomes False, and a
    log line says so. ResNeSt files written for the original plugin are silent about it, because
    that plugin changed the default.

    Python tags in a YAML file (``!!python/object/apply:…``) are refused, not executed.

    Args:
        name: a packaged config, with or without ``.yaml`` (see :func:`list_configs`), or the path
            of a YAML file, whose ``_BASE_`` is relative to itself. A bare file name that is also
            a packaged name means the packaged one; write ``./NAME.yaml`` for the file. Where there
            is no such file, a name of :data:`ALIASES` means our recipe of the same values, with or
            without folder and suffix.
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
    """A config as :func:`get_config` gives it, and which values were stated where.

    Args:
        config: a name or a path; or a config, of which all values count as stated.

    Returns:
        The config, and its layers, of which a later one wins: dotted keys and values as they are
        written, once for each file of the YAML chain, a base before the file that names it, and at
        last for ``opts``.
    """
    if isinstance(config, CfgNode):
        cfg, layers = config.clone(), [flat_values(config)]
        cfg.defrost()
        add_resnest_config(cfg)  # what it lacks
        merge_opts(cfg, opts)
        return cfg, [*layers, _layer(opts)]
    path = get_config_file(config)
    cfg = get_cfg()
    add_resnest_config(cfg)
    layers = _merge_file(cfg, path)
    merge_opts(cfg, opts)
    layers.append(_layer(opts))
    is_stated = any(_STRIDE in layer for layer in layers)
    if cfg.MODEL.BACKBONE.NAME.startswith("build_resnest") and not is_stated:
        cfg.MODEL.RESNETS.STRIDE_IN_1X1 = False
        logger.info(f"{_STRIDE} is now False, as {cfg.MODEL.BACKBONE.NAME} needs: {path} is silent")
    return cfg, layers


def _layer(opts: Sequence[Any]) -> dict[str, Any]:
    pairs = zip(opts[0::2], opts[1::2], strict=True)
    return {key: value for pair in pairs for key, value in flat_values([pair]).items()}


def get_config_file(name: str | os.PathLike) -> Path:
    """The file that :func:`get_config` reads for a packaged name or a path. Same errors."""
    return _find(name, _config_dir(), _SUFFIXES, ALIASES)


def list_configs() -> list[str]:
    """Names of the packaged configs, sorted; the ``Base-…`` files that they share are left out."""
    return _names(_config_dir(), ".yaml")


def get_lazy_config(name: str | os.PathLike) -> DictConfig:
    """A LazyConfig: Detectron2's configs in Python, whose values are calls of classes.

    Loading one runs it: it is a program, unlike a YAML file.

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
    """A LazyConfig of Detectron2's own, ``common/train.py``, say.

    ``detectron2.model_zoo`` finds the same file with ``pkg_resources``, which new setuptools lack.
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
    """A packaged file of ``folder`` by name, else the file of that path, else by an alias."""
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


def _add(node: CfgNode, key: str, value: Any) -> None:
    if key not in node:
        node[key] = value


def _merge_file(cfg: CfgNode, path: Path) -> list[dict[str, Any]]:
    """Merge a YAML file and its bases; return what each of them states, by dotted key."""
    layers = []

    class Reader(CfgNode):
        @classmethod
        def load_yaml_with_base(cls, filename, allow_unsafe=False):
            merged = super().load_yaml_with_base(filename, allow_unsafe)  # comes back for each base
            with cls._open_cfg(filename) as file:
                layers.append(flat_values(yaml.safe_load(file)))
            return merged

    try:
        values = Reader.load_yaml_with_base(str(path))
        stated = list(_dotted_keys(values))
        # yacs takes no 12 where the default is 0.0.
        whole = [key for key, value in flat_values(values).items() if _is_whole(cfg, key, value)]
        for key in whole:
            set_value(cfg, key, 0)
        # Detectron2 reads the file again, and upgrades configs of VERSION 1.
        cfg.merge_from_file(str(path), allow_unsafe=False)
        for key in whole:
            set_value(cfg, key, float(get_value(cfg, key)))
    except KeyError as error:
        known = set(_dotted_keys(cfg))
        unknown = [key for key in stated if key not in known]
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
    """``cfg.merge_from_list(opts)``, for which 12 may stand for 12.0.

    Raises:
        KeyError: an unknown key.
        ValueError: not in pairs, or a value of a wrong type.
    """
    check_pairs(opts)
    known = set(_dotted_keys(cfg)) if opts else set()
    unknown = [str(key) for key in opts[0::2] if key not in known]
    if unknown:
        raise KeyError(_unknown_keys(unknown, known, "opts"))
    cfg.merge_from_list(
        [
            word
            for key, value in zip(opts[0::2], opts[1::2], strict=True)
            for word in (key, float(value) if _is_whole(cfg, key, value) else value)
        ]
    )


def _is_whole(cfg: CfgNode, key: str, value: Any) -> bool:
    """Whether a whole number is stated for a key that holds a float."""
    try:
        return isinstance(get_value(cfg, key), float) and bool(
            re.fullmatch(r"[+-]?\d+", str(value))
        )
    except (KeyError, TypeError):
        return False  # it is refused with a better message


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
    """The three entries most like ``word`` as a sentence, or nothing."""
    last = word.rpartition(".")[2]
    # A key in the wrong node comes first: MODEL.RADIX → MODEL.RESNETS.RADIX.
    nearest = [key for key in known if "." in key and key.rpartition(".")[2] == last]
    nearest += [key for key in difflib.get_close_matches(word, known) if key not in nearest]
    return f" Nearest: {', '.join(nearest[:3])}." if nearest else ""
