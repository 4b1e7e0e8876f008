"""Names of ResNeSt weights in seven formats.

===========  ========================================  ==========================  ==============
format       used by                                   backbone                    classifier
===========  ========================================  ==========================  ==============
official     the official classifiers (torch)          conv1.0, bn1, layer1.0      fc
timm         timm; the same names                      conv1.0, bn1, layer1.0      fc
resnest_d2   ours, and the original plugin's first     stem.conv1_1, res2.0        linear
detectron2   a Detectron2 model's, and the original    backbone.bottom_up.res2.0   … .linear
             plugin's second
mmdet        MMDetection's backbones                   stem.0, layer1.0            fc
mmcls        MMClassification's                        backbone.stem.0, …          head.fc
encoding     PyTorch-Encoding's segmentation models    pretrained.conv1.0, …       pretrained.fc
===========  ========================================  ==========================  ==============

A conversion renames tensors and does not change them; converting back gives the first names. Names
are parsed whole, not matched by their ends.

Deformable convolutions exist in our, Detectron2's and MMCV's names. MMCV computes the offsets by
one convolution over all channels, we by one for each deformable group: equal for one group, refused
for several.
"""

import itertools
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

import torch

from ..modeling.resnest import DEPTHS, VARIANTS

FORMATS = ("official", "timm", "resnest_d2", "detectron2", "mmdet", "mmcls", "encoding")

_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")

# Modules by our names -> their parameters.
_STEM = {
    name: parameters
    for i in (1, 2, 3)
    for name, parameters in ((f"stem.conv1_{i}", ("weight",)), (f"stem.conv1_{i}.norm", _NORM))
}
_BLOCK = {
    "conv1": ("weight",),
    "conv1.norm": _NORM,
    "conv2.conv": ("weight",),
    "conv2.bn0": _NORM,
    "conv2.fc1": ("weight", "bias"),
    "conv2.bn1": _NORM,
    "conv2.fc2": ("weight", "bias"),
    "conv2_offset": ("weight", "bias"),
    "conv3": ("weight",),
    "conv3.norm": _NORM,
    "shortcut": ("weight",),
    "shortcut.norm": _NORM,
}
_OFFICIAL_BLOCK = {
    "conv1.norm": "bn1",
    "conv3.norm": "bn3",
    "shortcut": "downsample.1",
    "shortcut.norm": "downsample.2",
}


@dataclass(frozen=True)
class _Dialect:
    """How a format names the modules of a ResNeSt.

    Attributes:
        stem, block: its names of our modules, where they differ; "" for a module that it lacks.
        stages: what is before a stage's number, such as ``layer``.
        first_stage: number of the first stage.
        head: its name of the linear layer.
        prefix: of all names but the head's.
        has_more: whether a file may also have other parts of a model.
        heads: tensors of a Detectron2 model's heads, and their names in this format.
    """

    stem: dict[str, str]
    block: dict[str, str]
    stages: str
    first_stage: int
    head: str
    prefix: str = ""
    has_more: bool = False
    heads: dict[str, str] = field(default_factory=dict)

    def names(self, blocks: int) -> dict[str, str]:
        """Our name -> this format's name, of all tensors where a stage has so many blocks."""
        modules = [("linear", self.head, ("weight", "bias"))]
        for module, parameters in _STEM.items():
            modules.append((module, self.prefix + self.stem.get(module, module), parameters))
        for stage, block in itertools.product(range(4), range(blocks)):
            theirs = f"{self.prefix}{self.stages}{stage + self.first_stage}.{block}."
            for module, parameters in _BLOCK.items():
                name = self.block.get(module, module)
                if name:
                    modules.append((f"res{stage + 2}.{block}.{module}", theirs + name, parameters))
        return {
            f"{our}.{p}": f"{their}.{p}" for our, their, parameters in modules for p in parameters
        }


def _numbered(prefix: str, last: str) -> dict[str, str]:
    return dict(zip(_STEM, (*(f"{prefix}.{i}" for i in (0, 1, 3, 4, 6)), last), strict=True))


def _encoding_heads() -> dict[str, str]:
    """Tensors of ``ResNeStFCNHead`` and ``ResNeStDeepLabV3Head`` -> their published names."""
    branches = {f"aspp.b{i}": f"head.aspp.b{i}." for i in range(4)}
    branches |= {"aspp.b4.conv": "head.aspp.b4.gap.", "aspp.project": "head.aspp.project."}
    modules = []
    for ours, theirs in branches.items():
        first = 1 if ours == "aspp.b4.conv" else 0  # behind the pooling
        modules += [(ours, f"{theirs}{first}", ("weight",))]
        modules += [(f"{ours}.norm", f"{theirs}{first + 1}", _NORM)]
    for ours, theirs in (
        ("classifier", "head.block"),
        ("fcn", "head.conv5"),
        ("aux_head", "auxlayer.conv5"),
    ):
        modules += [
            (f"{ours}.conv", f"{theirs}.0", ("weight",)),
            (f"{ours}.conv.norm", f"{theirs}.1", _NORM),
            (f"{ours}.predictor", f"{theirs}.4", ("weight", "bias")),
        ]
    return {
        f"sem_seg_head.{our}.{p}": f"{their}.{p}"
        for our, their, parameters in modules
        for p in parameters
    }


_MM_BLOCK = {**_OFFICIAL_BLOCK, "conv2_offset": "conv2.conv.conv_offset"}
_OFFICIAL = _Dialect(
    _numbered("conv1", "bn1"), {**_OFFICIAL_BLOCK, "conv2_offset": ""}, "layer", 1, "fc"
)
_DIALECTS = {
    "official": _OFFICIAL,
    "timm": _OFFICIAL,
    "resnest_d2": _Dialect({}, {}, "res", 2, "linear", has_more=True),
    "detectron2": _Dialect(
        {}, {}, "res", 2, "backbone.bottom_up.linear", "backbone.bottom_up.", has_more=True
    ),
    "mmdet": _Dialect(_numbered("stem", "stem.7"), _MM_BLOCK, "layer", 1, "fc"),
    "mmcls": _Dialect(
        _numbered("stem", "stem.7"), _MM_BLOCK, "layer", 1, "head.fc", prefix="backbone."
    ),
    "encoding": _Dialect(
        _OFFICIAL.stem,
        _OFFICIAL.block,
        "layer",
        1,
        "pretrained.fc",
        "pretrained.",
        has_more=True,
        heads=_encoding_heads(),
    ),
}

# Detectron2 models without FPN; in an ImageClassifier the linear layer is not in the backbone.
_WITHOUT_FPN = _Dialect({}, {}, "res", 2, "backbone.linear", "backbone.", has_more=True)
_CLASSIFIER = _Dialect({}, {}, "res", 2, "linear", "backbone.", has_more=True)
_DETECTRON2_BACKBONE = re.compile(r"backbone\.(bottom_up\.)?(stem\.conv1|res2\.0\.)")
_MM_DETECTOR = re.compile(r"(neck|rpn_head|roi_head|bbox_head|mask_head|semantic_head)\.")
_ANY_BLOCK = re.compile(
    r"(?:backbone\.|pretrained\.)?(?:bottom_up\.)?(?:res([2-5])|layer([1-4]))[._](\d+)[._](?:conv1|branch2a)[._]"
)
_ATTENTION = "res2.0.conv2.conv.weight"
_EVERY_RESNEST = ("stem.conv1_1.weight", _ATTENTION)
_IN_BLOCK = re.compile(
    r"(?:backbone\.|pretrained\.)?(?:bottom_up\.)?(?:res[2-5]|layer[1-4])\.(\d{1,2})\."
)
_TOGETHER = (  # parts of a detector: with one of them, a file has the others
    ("backbone.fpn_lateral", "backbone.fpn_output"),
    ("proposal_generator.", "roi_heads.box_predictor.cls_", "roi_heads.box_predictor.bbox_"),
    ("head.cls_score.", "head.bbox_pred."),
)
_RESNETS = {(2, 2, 2, 2): 18, (3, 4, 6, 3): 50, (3, 4, 23, 3): 101, (3, 8, 36, 3): 152}


def recognise(names: Iterable[str]) -> str:
    """The format of these names.

    ``"official"`` for timm's, which are the same. ``"detectron2"`` for any detector of Detectron2
    with a ResNet or ResNeSt.

    Raises:
        ValueError: names of another network, of an MMDetection detector, or of two formats.
    """
    names = list(names)
    written = {
        format: dialect.names(_most_blocks(names))
        for format, dialect in _DIALECTS.items()
        if format != "timm"
    }
    fits = [
        format
        for format, known in written.items()
        if {known[name] for name in _EVERY_RESNEST} <= set(names)
    ]
    if not fits and any(map(_DETECTRON2_BACKBONE.match, names)):
        fits = ["detectron2"]
    if not fits:
        raise ValueError(_unknown(names))
    if len(fits) > 1:
        raise ValueError(f"its names mix those of {' and '.join(fits)} weights: {_some(names)}")
    (format,) = fits
    _, foreign = _by_our_names(dict.fromkeys(names), format)
    if _DIALECTS[format].has_more:
        others = {name for other in written if other != format for name in written[other].values()}
        foreign = others.intersection(foreign)
    if not foreign:
        return format
    heads = sorted({match[1] for match in map(_MM_DETECTOR.match, foreign) if match})
    if format == "mmcls" and heads:
        raise ValueError(
            f"it is an MMDetection detector (it has {', '.join(heads)}). Detectron2's heads differ "
            "from MMDetection's and cannot take its weights. Only its backbone can be converted: "
            "give a file with the backbone.* tensors alone"
        )
    raise ValueError(f"its names are those of {format} weights, but for {_some(foreign)}")


def _unknown(names: list[str]) -> str:
    blocks = _blocks(names)
    if not blocks:
        return f"its names are no ResNeSt's: {_some(names)}"
    return (
        f"it is a {_resnet(blocks)}'s, without split attention: no ResNeSt. It has {_some(names)}"
    )


def _some(names: Iterable[str]) -> str:
    names = sorted(names)
    return ", ".join(names[:4]) + (f", … ({len(names)} names)" if len(names) > 4 else "")


def _dialect(format: str, names: Iterable[str]) -> _Dialect:
    """The dialect of a format for one model: Detectron2's depends on where the backbone is.

    Args:
        names: of all tensors of the model, or of those that are not the backbone's.
    """
    names = list(names)
    bare = any(name.startswith("backbone.res2.") for name in names)
    segments = any(name.startswith("sem_seg_head.") for name in names)
    if segments and not any(name.startswith("backbone.") for name in names):
        bare = True  # a semantic head on the backbone itself: there is no FPN
    if format == "detectron2" and bare:
        return _CLASSIFIER if "linear.weight" in names else _WITHOUT_FPN
    return _DIALECTS[format]


def convert(
    tensors: Mapping[str, torch.Tensor], source: str, target: str
) -> dict[str, torch.Tensor]:
    """The same tensors under the names of another format.

    Other parts of a model (FPN, heads) keep their names; only ``detectron2`` and ``resnest_d2``
    have them, and ``encoding`` has heads for semantic segmentation. What a file lacks, e.g. the
    ``num_batches_tracked`` that MMDetection drops, the result lacks.

    Args:
        tensors: by the names of ``source``.
        source, target: of :data:`FORMATS`.

    Raises:
        ValueError: an unknown format, names that are not of ``source``, or tensors that do not
            exist in ``target``.
    """
    for argument, format in (("source", source), ("target", target)):
        if format not in FORMATS:
            raise ValueError(f"{argument} must be one of {', '.join(FORMATS)}, got {format!r}")
    seen = recognise(tensors)
    if _DIALECTS[seen] is not _DIALECTS[source]:
        raise ValueError(f"its names are those of {seen} weights, not of {source}")
    ours, more = _by_our_names(tensors, source)
    if _ATTENTION not in ours:
        raise ValueError(_unknown(list(tensors)))
    reader, writer = _dialect(source, tensors), _dialect(target, more)
    written = writer.names(_most_blocks(tensors))
    for name, value in ours.items():
        if not (value.is_floating_point() or name.endswith(".num_batches_tracked")):
            raise ValueError(f"its {name} is of the type {value.dtype}: weights are floating-point")
    surplus = more.keys() - writer.heads.keys() if writer.heads else more.keys()
    if surplus and (writer.heads or not writer.has_more):
        what = "a backbone's" + " and a head's for semantic segmentation" * bool(writer.heads)
        raise ValueError(f"{target} weights are {what}, and it is a model with {_some(surplus)}")
    if reader.block != writer.block:
        _check_offsets(ours, target, packed=reader.block is _MM_BLOCK)
    converted = {written[name]: value for name, value in ours.items()}
    clash = converted.keys() & more.keys()
    if clash:
        raise ValueError(f"its names occur twice: {_some(clash)}")
    return {**converted, **{writer.heads.get(name, name): value for name, value in more.items()}}


def missing_parts(names: Collection[str], format: str) -> list[str]:
    """Names that a file lacks, judged by its other names.

    The blocks of a network have the same tensors, and so have its norms. A classifier and
    ``num_batches_tracked`` may be missing.

    Args:
        names: of ``format``, those of a ResNeSt among them.

    Returns:
        Names of ``format``, sorted; for other parts of a detector the beginnings of names.
    """
    ours, more = _by_our_names(dict.fromkeys(names), format)
    blocks: dict[tuple[int, int], set[str]] = {}
    for match in filter(None, map(re.compile(r"res(\d)\.(\d+)\.(.+)").fullmatch, ours)):
        blocks.setdefault((int(match[1]), int(match[2])), set()).add(match[3])
    norm = {name.rpartition(".")[2] for name in ours if re.search(r"\.(norm|bn[01])\.\w+$", name)}
    everywhere = set().union(*blocks.values())
    first = {name for name in everywhere if name.startswith("shortcut")}
    offsets = {name for name in everywhere if name.startswith("conv2_offset")}
    wanted = {f"{m}.{p}" for m, own in _STEM.items() for p in (norm if own is _NORM else own)}
    for stage in range(2, max(stage for stage, _ in blocks) + 1):
        here = {block: found for (at, block), found in blocks.items() if at == stage}
        deformable = any(found & offsets for found in here.values())
        for block in range(max(here, default=0) + 1):
            parts = everywhere - first - offsets
            parts |= (offsets if deformable else set()) | (first if block == 0 else set())
            wanted |= {f"res{stage}.{block}.{name}" for name in parts}
    written = _dialect(format, names).names(_most_blocks(names))
    lacking = {written[name] for name in wanted - ours.keys()}
    modules = {re.sub(r"\.\d(?=\.(cls_score|bbox_pred)\.)", "", name) for name in more}  # cascades
    for together in _TOGETHER:
        found = {part for part in together if any(name.startswith(part) for name in modules)}
        lacking |= set(together) - found if found else set()
    for name in more:
        module, _, parameter = name.rpartition(".")
        other = {"weight": "bias", "bias": "weight"}.get(parameter)
        if other and f"{module}.{other}" not in more and f"{module}.norm.weight" not in more:
            lacking.add(f"{module}.{other}")
    return sorted(lacking)


def _by_our_names(tensors: Mapping, source: str) -> tuple[dict, dict]:
    """A ResNeSt's tensors by our names, and the others by a Detectron2 model's."""
    dialect = _dialect(source, tensors)
    written = dialect.names(_most_blocks(tensors))
    read = {theirs: ours for ours, theirs in written.items()}
    heads = {theirs: ours for ours, theirs in dialect.heads.items()}
    ours = {read[name]: value for name, value in tensors.items() if name in read}
    more = {heads.get(name, name): tensors[name] for name in tensors if name not in read}
    return ours, more


def _check_offsets(ours: Mapping[str, torch.Tensor], target: str, *, packed: bool) -> None:
    """Refuse offset convolutions that the target cannot compute with the same tensors."""
    for name, weight in ours.items():
        if not name.endswith("conv2_offset.weight"):
            continue
        if target in ("official", "timm"):
            raise ValueError(
                f"{target} classifiers have no deformable convolutions, and it has {name}"
            )
        groups = _offset_groups(ours, name, packed=packed)
        if groups != 1:
            raise ValueError(
                f"its {name} of shape {tuple(weight.shape)} has {groups or 'several'} deformable "
                "groups. MMCV computes their offsets by one convolution over all channels, "
                "Detectron2's ResNeSt by one for each group: only a single group converts"
            )


def _offset_groups(ours: Mapping[str, torch.Tensor], name: str, *, packed: bool = False) -> int:
    """Deformable groups of an offset convolution; 0 where its shape does not say.

    Ours is grouped by them. MMCV's (``packed``) is not: 18 outputs (v1) or 27 (v2) mean one group.
    """
    conv3 = ours.get(name.replace("conv2_offset", "conv3"))
    if conv3 is None or conv3.dim() != 4 or ours[name].dim() != 4:
        return 0
    channels = conv3.shape[1]
    outputs, inputs = ours[name].shape[:2]
    if packed:
        return int(inputs == channels and outputs in (18, 27))
    groups = channels // max(inputs, 1)
    return groups if outputs in (18 * groups, 27 * groups) else 0


def describe(tensors: Mapping[str, torch.Tensor], format: str) -> str:
    """The network that tensors belong to, from their names and shapes.

    For example ``resnest50 (radix 2, cardinality 1), 1000 classes, deformable res3-res5 (v2, 2
    groups)``. ``or`` is between published networks with tensors of the same shapes.

    Args:
        tensors: by the names of ``format``.
        format: one of :data:`FORMATS`, or "" for names of another network.
    """
    blocks = _blocks(tensors)
    ours, _ = _by_our_names(tensors, format) if format else ({}, {})
    if not blocks:
        return "no ResNet or ResNeSt"
    if _ATTENTION not in ours:
        return f"{_resnet(blocks)} (no split attention)"
    try:
        return _describe_resnest(ours, blocks, packed=_DIALECTS[format].block is _MM_BLOCK)
    except (IndexError, KeyError, ZeroDivisionError):
        return f"a damaged ResNeSt of {blocks} blocks"


def _describe_resnest(ours: Mapping[str, torch.Tensor], blocks: tuple, *, packed: bool) -> str:
    width = ours["res2.0.conv3.weight"].shape[1]
    radix = ours[_ATTENTION].shape[0] // width
    groups = width // ours["res2.0.conv2.fc1.weight"].shape[1]
    stem_width = ours["stem.conv1_1.weight"].shape[0]
    depths = [d for d, published in DEPTHS.items() if published == (blocks, stem_width)]
    names = [
        name
        for name, arguments in VARIANTS.items()
        if [arguments["depth"]] == depths
        and arguments.get("radix", 2) == radix
        and arguments.get("num_groups", 1) == groups
        and arguments.get("bottleneck_width", 64) * groups == width
    ]
    name = " or ".join(names) or (
        f"ResNeSt of {blocks} blocks, stem width {stem_width}, bottleneck width {width}"
    )
    text = f"{name} (radix {radix}, cardinality {groups})"
    if "linear.weight" in ours:
        text += f", {ours['linear.weight'].shape[0]} classes"
    offsets = sorted(name for name in ours if name.endswith(".0.conv2_offset.weight"))
    if offsets:
        stages = [name.partition(".")[0] for name in offsets]
        span = "-".join(dict.fromkeys((stages[0], stages[-1])))
        deform_groups = _offset_groups(ours, offsets[0], packed=packed)
        version = f"v{ours[offsets[0]].shape[0] // (9 * (deform_groups or 1)) - 1}"
        known = f"{deform_groups} group{'s' if deform_groups > 1 else ''}"
        text += f", deformable {span} ({version}, {known})" if deform_groups else ", deformable"
    return text


def _most_blocks(names: Collection[str]) -> int:
    """The most blocks of a stage, but not more than there are names."""
    last = max((int(match[1]) for match in map(_IN_BLOCK.match, names) if match), default=0)
    return min(last + 1, max(len(names), 1))


def _blocks(names: Iterable[str]) -> tuple[int, ...]:
    """Number of blocks of each stage, of any ResNet-like names; empty for others."""
    counts: dict[int, int] = {}
    for match in map(_ANY_BLOCK.match, names):
        if match:
            stage = int(match[1] or int(match[2]) + 1)
            counts[stage] = max(counts.get(stage, 0), int(match[3]) + 1)
    return tuple(counts[stage] for stage in sorted(counts))


def _resnet(blocks: tuple[int, ...]) -> str:
    depth = _RESNETS.get(blocks)
    return f"ResNet-{depth}" if depth else f"ResNet of {blocks} blocks"
