"""What annotations say: boxes, areas, flags, masks and keypoints."""

from pycocotools import mask as mask_util

from ...progress import progress_bar
from .kinds import UNREADABLE_MASKS
from .normalise import is_finite_list
from .problems import Problem, shown
from .rle import check_counts, check_texts
from .structure import Structure, entry_id, image_size

__all__ = ["TOLERANCE", "check_objects", "polygon_problem"]

TOLERANCE = 2.0
"""Pixels by which boxes and polygons may leave the image; rounding in real data costs up to one."""

_NO_MASK = UNREADABLE_MASKS | {"missing-mask"}
_EMPTY = 1e-5  # pixels: sides up to this are none to Detectron2


def check_objects(json_file: str, structure: Structure) -> list[Problem]:
    """The problems of a file's annotations, all of them, whatever else is wrong with one."""
    checker = _Checker(json_file, structure)
    annotations = structure.data["annotations"]
    for index, annotation in enumerate(progress_bar(annotations, desc="checking annotations")):
        if isinstance(annotation, dict):
            checker.check(index, annotation)
    checker.finish()
    return checker.problems


class _Checker:
    def __init__(self, json_file: str, structure: Structure):
        self.json_file = json_file
        self.problems: list[Problem] = []
        self._categories = structure.categories
        self._sizes = {}  # (width, height) by image id
        for number, image in structure.images.items():
            if size := image_size(image):
                self._sizes[number] = size
        self._texts: list[tuple[int, dict, str, int]] = []  # compressed masks, with their pixels
        self._without_mask: list[tuple[int, dict]] = []
        self._masks = False

    def add(self, kind: str, index: int, annotation: dict, value: object) -> None:
        if kind in _NO_MASK and annotation["iscrowd"] == 1:
            kind = "maskless-crowd"
        name = entry_id("annotations", index, annotation)
        place = ("annotations", index)
        self.problems.append(Problem(self.json_file, name, kind, shown(value), place))

    def check(self, index: int, annotation: dict) -> None:
        image_id = annotation.get("image_id")
        size = self._sizes.get(image_id) if type(image_id) is int else None
        self._check_box(index, annotation, size)
        self._check_values(index, annotation)
        self._check_mask(index, annotation, size)
        self._check_keypoints(index, annotation)

    def finish(self) -> None:
        """Look at what needs all annotations."""
        messages = check_texts([t[2] for t in self._texts], [t[3] for t in self._texts])
        for (index, annotation, _, _), message in zip(self._texts, messages, strict=True):
            if message:
                self.add("bad-rle", index, annotation, message)
            elif not mask_util.area(annotation["segmentation"]):
                self.add("empty-mask", index, annotation, annotation["segmentation"])
        if self._masks:
            for index, annotation in self._without_mask:
                value = annotation.get("segmentation")
                self.add("missing-mask", index, annotation, value)

    def _check_box(self, index: int, annotation: dict, size: tuple[int, int] | None) -> None:
        box = annotation.get("bbox")
        if not is_finite_list(box) or len(box) != 4:
            return self.add("bad-box", index, annotation, box)
        x, y, width, height = box
        if width <= _EMPTY or height <= _EMPTY:
            flat = min(width, height) >= 0 and _is_flat(annotation.get("segmentation"))
            self.add("flat-object" if flat else "degenerate-box", index, annotation, box)
        elif kind := size and _leaves((x, x + width), (y, y + height), size):
            kind = "box-outside" if kind == "outside" else "box-off-image"
            self.add(kind, index, annotation, {"bbox": box, "image": list(size)})

    def _check_values(self, index: int, annotation: dict) -> None:
        if annotation["iscrowd"] not in (0, 1):
            self.add("bad-iscrowd", index, annotation, annotation["iscrowd"])
        if annotation.get("ignore", 0) != 0:
            self.add("ignored-object", index, annotation, annotation["ignore"])

    def _check_mask(self, index: int, annotation: dict, size: tuple[int, int] | None) -> None:
        segmentation = annotation.get("segmentation")
        if not segmentation:
            self._without_mask.append((index, annotation))
            return
        self._masks = True
        if isinstance(segmentation, dict):
            self._check_rle(index, annotation, size)
        elif isinstance(segmentation, list):
            kinds = {}  # value by kind: one problem of a kind for all polygons of an object
            for polygon in segmentation:
                kind, value = polygon_problem(polygon, size)
                kinds.setdefault(kind, value)
            if kinds.keys() & {None, "polygon-outside"}:  # something of the object is left
                kinds = {
                    kind if kind == "polygon-outside" else "stray-polygon": value
                    for kind, value in kinds.items()
                    if kind
                }
            for kind, value in kinds.items():
                self.add(kind, index, annotation, value)
            if not kinds and _is_flat(segmentation) and not _is_flat_box(annotation.get("bbox")):
                self.add("empty-mask", index, annotation, segmentation)
        else:
            self.add("bad-segmentation", index, annotation, segmentation)

    def _check_rle(self, index: int, annotation: dict, size: tuple[int, int] | None) -> None:
        segmentation = annotation["segmentation"]
        shape, counts = segmentation.get("size"), segmentation.get("counts")
        whole = isinstance(shape, list) and len(shape) == 2 and set(map(type, shape)) == {int}
        if not whole or min(shape) < 1 or (size and (shape[1], shape[0]) != size):
            image = [size[1], size[0]] if size else None
            self.add("rle-size", index, annotation, {"size": shape, "image": image})
            if not whole or min(shape) < 1:
                return
        pixels = shape[0] * shape[1]
        if isinstance(counts, str):
            self._texts.append((index, annotation, counts, pixels))
            return
        what = f"counts is a {type(counts).__name__}"
        message = check_counts(counts, pixels) if isinstance(counts, list) else what
        if message:
            self.add("bad-rle", index, annotation, message)
        elif not sum(counts[1::2]):
            self.add("empty-mask", index, annotation, segmentation)

    def _check_keypoints(self, index: int, annotation: dict) -> None:
        keypoints = annotation.get("keypoints")
        number = annotation.get("category_id")
        category = self._categories.get(number) if type(number) is int else None
        names = (category or {}).get("keypoints")
        if not keypoints:
            if names:
                self.add("missing-keypoints", index, annotation, keypoints)
            return
        if not is_finite_list(keypoints):
            return self.add("bad-keypoints", index, annotation, keypoints)
        if len(keypoints) % 3 or (names and len(keypoints) != 3 * len(names)):
            expected = 3 * len(names) if names else "a multiple of 3"
            value = {"values": len(keypoints), "expected": expected}
            return self.add("keypoints-length", index, annotation, value)
        if wrong := [v for v in keypoints[2::3] if v not in (0, 1, 2)]:
            self.add("keypoint-visibility", index, annotation, wrong)


def _leaves(x: tuple[float, float], y: tuple[float, float], size: tuple[int, int]) -> str:
    """How an extent leaves an image: ``"off"`` wholly, ``"outside"`` in part, or ``""``."""
    width, height = size
    if min(x[1], width) - max(x[0], 0) <= _EMPTY or min(y[1], height) - max(y[0], 0) <= _EMPTY:
        return "off"
    outside = max(-x[0], -y[0], x[1] - width, y[1] - height) > TOLERANCE
    return "outside" if outside else ""


def polygon_problem(polygon: object, size: tuple[int, int] | None) -> tuple[str | None, object]:
    """A polygon's worst problem: its kind and what was found.

    Args:
        size: width and height of the image, in pixels, where they are known.
    """
    if not is_finite_list(polygon):
        return "bad-polygon", polygon
    if len(polygon) < 6:
        return "short-polygon", polygon
    if len(polygon) % 2:
        return "odd-polygon", f"{len(polygon)} numbers"
    x, y = polygon[::2], polygon[1::2]
    x, y = (min(x), max(x)), (min(y), max(y))
    if size and min(x[1] - x[0], y[1] - y[0]) > _EMPTY and (kind := _leaves(x, y, size)):
        kind = "polygon-outside" if kind == "outside" else "polygon-off-image"
        return kind, {"x": list(x), "y": list(y), "image": list(size)}
    return None, None


def _is_flat_box(box: object) -> bool:
    return is_finite_list(box) and len(box) == 4 and min(box[2:]) <= _EMPTY


def _is_flat(segmentation: object) -> bool:
    """Whether polygons have no width or no height, as of the flat objects that COCO holds."""
    if not isinstance(segmentation, list) or not segmentation:
        return False
    if not all(is_finite_list(polygon) and len(polygon) >= 6 for polygon in segmentation):
        return False
    x, y = ([v for polygon in segmentation for v in polygon[axis::2]] for axis in (0, 1))
    return min(max(x) - min(x), max(y) - min(y)) <= _EMPTY
