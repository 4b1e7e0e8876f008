"""How weights fit a model, tensor by tensor: the table that loading logs, and what it refuses.

A tensor is matched, missing (the model has it, the file does not), unexpected (the reverse) or
misshapen. Detectron2 lists such names and continues. Here a backbone must match whole: one that
matches in part trains and detects badly, without an error.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from tabulate import tabulate

# Buffers that Detectron2 ignores; then the classifiers' heads, and a bias of the MSRA weights that
# no model has.
_IGNORED = re.compile(
    r"(.*\.)?(num_batches_tracked|anchor_generator\.cell_anchors\.\d+|pixel_mean|pixel_std)"
)
_EXTRA = re.compile(r"(.*\.)?((fc|fc1000|linear)\.(weight|bias)|stem\.conv1\.bias)")

_BACKBONE = ("stem", "res2", "res3", "res4", "res5", "backbone")
_PARTS = [  # in the order of the table
    *[(re.compile(rf"(backbone\.)?(bottom_up\.)?{part}\."), part) for part in _BACKBONE[:-1]],
    (re.compile(r"(backbone\.)?(bottom_up\.)?(linear|fc|fc1000)\."), "classifier"),
    (re.compile(r"backbone\.(fpn_|top_block\.)"), "FPN"),
    (re.compile(r"backbone\."), "backbone"),  # of another kind
    (re.compile(r"proposal_generator\."), "RPN"),
    (re.compile(r"roi_heads\.box_"), "box head"),
    (re.compile(r"roi_heads\.mask_"), "mask head"),
    (re.compile(r"roi_heads\.keypoint_"), "keypoint head"),
    (re.compile(r"sem_seg_head\."), "semantic head"),
    (re.compile(r"head\."), "RetinaNet head"),
]

# Layers whose outputs are classes (or keypoints), and the number of classes: from the number of
# outputs and of RetinaNet's anchors.
_PREDICTORS: list[tuple[re.Pattern, Callable[[int, int], int]]] = [
    (re.compile(r"roi_heads\.box_predictor\.(\d\.)?cls_score"), lambda n, anchors: n - 1),
    (re.compile(r"roi_heads\.box_predictor\.(\d\.)?bbox_pred"), lambda n, anchors: n // 4),
    (re.compile(r"head\.cls_score"), lambda n, anchors: n // anchors),
    (
        re.compile(
            r"(roi_heads\.mask_head|sem_seg_head(\.(fcn|classifier|aux_head))?)\.predictor"
            r"|roi_heads\.keypoint_head\.score_lowres|linear"
        ),
        lambda n, anchors: n,
    ),
]

_KINDS = ("matched", "missing", "unexpected", "misshapen")
_OFFSET = ".conv2_offset."
_SHOWN = 3  # names per part


@dataclass(frozen=True)
class Match:
    """What :func:`compare` found; names are the model's, those of ``unexpected`` the file's.

    Attributes:
        misshapen: name -> (shape in the file, shape in the model).
        own: name -> shape of every tensor of the model that counts.
    """

    matched: list[str]
    missing: list[str]
    unexpected: list[str]
    misshapen: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
    own: dict[str, tuple[int, ...]]

    def table(self) -> str:
        """Counts per part of the model, and below them a few names of what did not match."""
        kinds = {kind: _by_part(getattr(self, kind)) for kind in _KINDS}
        parts = in_order(part for parts in kinds.values() for part in parts)
        rows = [[part, *(len(kinds[kind].get(part, ())) for kind in _KINDS)] for part in parts]
        lines = [tabulate(rows, headers=["part", *_KINDS], tablefmt="pipe")]
        for kind in _KINDS[1:]:
            for part in parts:
                if part in kinds[kind]:
                    lines.append(f"{kind} in {part}: {self._names(kinds[kind][part])}")
        return "\n".join(lines)

    def backbone_problem(self, *, new_offsets: bool) -> str:
        """Why the backbone does not match whole, or "".

        The file may have a classifier, and stages that the model does not build.

        Args:
            new_offsets: accept a file without any ``conv2_offset``: offsets start at zero, which
                makes a deformable convolution a plain one.
        """
        built = {part_of(name) for name in self.own}.intersection(_BACKBONE)

        def of_backbone(names: Iterable[str]) -> list[str]:
            return [name for name in names if part_of(name) in built]

        missing = of_backbone(self.missing)
        if new_offsets and not any(_OFFSET in name for name in self.matched):
            missing = [name for name in missing if _OFFSET not in name]
        unexpected = [n for n in of_backbone(self.unexpected) if not _EXTRA.fullmatch(n)]
        problem = self._problem(missing, of_backbone(self.misshapen), unexpected)
        matched, all_own = len(of_backbone(self.matched)), len(of_backbone(self.own))
        return problem and f"{matched} of its {all_own} tensors match; {problem}"

    def whole_problem(self) -> str:
        """Why the model's tensors are not all matched, or ""."""
        problem = self._problem(self.missing, [*self.misshapen], [])
        return problem and f"{len(self.matched)} of the model's {len(self.own)} tensors; {problem}"

    def changed_predictors(self) -> tuple[dict[str, tuple[int, int]], str]:
        """Predictors of another class count, and the problem with other misshapen heads, or "".

        Returns:
            module -> (classes in the file, classes in the model); the problem.
        """
        anchors = self.own.get("head.bbox_pred.bias", (4,))[0] // 4
        counts, others = {}, []
        for name, (given, own) in self.misshapen.items():
            module = name.rpartition(".")[0]
            count = next((count for at, count in _PREDICTORS if at.fullmatch(module)), None)
            axis = 1 if name.endswith("score_lowres.weight") else 0  # a transposed convolution
            if part_of(name) in _BACKBONE:
                continue
            if module == "linear" and backbone_prefix(self.own) == "":
                count = None  # of a network alone, not of a classifier
            if count and given[:axis] + given[axis + 1 :] == own[:axis] + own[axis + 1 :]:
                counts[module] = (count(given[axis], anchors), count(own[axis], anchors))
            else:
                others.append(name)
        # Boxes and masks for each class, or one for all classes: another head, not class count.
        scores = {pair for module, pair in counts.items() if module.endswith("cls_score")}
        for module, pair in list(counts.items()):
            if module.startswith(("roi_heads.box_", "roi_heads.mask_")) and pair not in scores:
                del counts[module]
                others += [name for name in self.misshapen if name.startswith(f"{module}.")]
        return counts, self._problem([], others, [])

    def _problem(self, missing: list, misshapen: list, unexpected: list) -> str:
        groups = [
            ("missing", missing),
            ("of another shape", misshapen),
            ("not in the model", unexpected),
        ]
        return "; ".join(f"{what}: {self._names(names)}" for what, names in groups if names)

    def _names(self, names: list[str]) -> str:
        shown = names[:_SHOWN] + [f"… {len(names) - _SHOWN} more"] * (len(names) > _SHOWN)
        shapes = "{} ({} in the file, {} in the model)"
        return ", ".join(
            shapes.format(name, *self.misshapen[name]) if name in self.misshapen else name
            for name in shown
        )


def compare(own: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor]) -> Match:
    """Match a file's tensors with a model's by name and shape.

    What Detectron2 ignores is ignored: ``num_batches_tracked``, which ``FrozenBN`` does not have,
    and the anchors and pixel statistics of old checkpoints.
    """
    own_shapes, given_shapes = (
        {name: tuple(value.shape) for name, value in side.items() if not _IGNORED.fullmatch(name)}
        for side in (own, given)
    )
    both = [name for name in own_shapes if name in given_shapes]
    return Match(
        matched=[name for name in both if own_shapes[name] == given_shapes[name]],
        missing=[name for name in own_shapes if name not in given_shapes],
        unexpected=[name for name in given_shapes if name not in own_shapes],
        misshapen={
            name: (given_shapes[name], own_shapes[name])
            for name in both
            if own_shapes[name] != given_shapes[name]
        },
        own=own_shapes,
    )


def part_of(name: str) -> str:
    """The part of a detector that a tensor belongs to; its first word where that is unknown."""
    return next((part for at, part in _PARTS if at.match(name)), name.partition(".")[0])


def in_order(parts: Iterable[str]) -> list[str]:
    """Each part once, from the stem to the heads."""
    order = [part for _, part in _PARTS]
    found = dict.fromkeys(parts)
    return sorted(found, key=lambda part: order.index(part) if part in order else len(order))


def backbone_prefix(names: Iterable[str]) -> str:
    """The prefix of ``stem.`` and ``res2.`` in a model's names: with FPN, without, or none."""
    names = list(names)
    prefixes = ("backbone.bottom_up.", "backbone.")
    return next((p for p in prefixes if any(name.startswith(p) for name in names)), "")


def _by_part(names: Iterable[str]) -> dict[str, list[str]]:
    parts = {}
    for name in names:
        parts.setdefault(part_of(name), []).append(name)
    return parts
