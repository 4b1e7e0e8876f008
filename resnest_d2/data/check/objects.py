"""The values of annotations: boxes, areas, flags, masks and keypoints."""

from pycocotools import mask as mask_util

from ...progress import progress_bar
from .kinds import UNREADABLE
from .normalise import is_finite_list
from .rle import check_counts, check_text
from .structure import Structure, image_size

TOLERANCE = 2.0
"""Pixels by which boxes and polygons may leave the image; rounding in real data costs up to one."""

_NO_MASK = UNREADABLE["segmentation"] | {"missing-mask"}
_LARGEST = 1e9  # of a coordinate, pixels: pycocotools computes in 32 bits
_EMPTY = 1e-5  # pixels: Detectron2 takes sides up to this for empty


def check_objects(structure: Structure) -> None:
    """Add all problems of a file's annotations."""
    checker = _Checker(structure)
    for annotation in progress_bar(structure.data["annotations"], desc="checking annotations"):
        checker.check(annotation)
    checker.finish()


class _Checker:
    """Checks one annotation after the other; ``index``, ``annotation``, ``size`` are the current.

    ``size`` is the (width, height) of the annotation's image in pixels, where it is known.
    """

    def __init__(self, structure: Structure):
        self._structure = structure
        self._sizes = {number: image_size(image) for number, image in structure.images.items()}
        self._without_mask: list[int] = []
        self._masks = False
        self.index = -1

    def add(self, kind: str, value: object) -> None:
        if kind in _NO_MASK and self.annotation["iscrowd"] == 1:
            kind = "maskless-crowd"
        self._structure.add(kind, "annotations", self.index, value)

    def check(self, annotation: object) -> None:
        self.index, self.annotation = self.index + 1, annotation
        if not isinstance(annotation, dict):
            return
        image_id = annotation.get("image_id")
        self.size = self._sizes.get(image_id) if type(image_id) is int else None
        self._check_box(annotation.get("bbox"))
        if annotation["iscrowd"] not in (0, 1):
            self.add("bad-iscrowd", annotation["iscrowd"])
        if annotation.get("ignore", 0) != 0:
            self.add("ignored-object", annotation["ignore"])
        self._check_mask(annotation.get("segmentation"))
        self._check_keypoints(annotation.get("keypoints"))

    def finish(self) -> None:
        """Find missing masks, which only matter where other annotations have one."""
        for index in self._without_mask if self._masks else ():
            self.index, self.annotation = index, self._structure.data["annotations"][index]
            self.add("missing-mask", self.annotation.get("segmentation"))

    def _check_box(self, box: object) -> None:
        if not is_finite_list(box) or len(box) != 4:
            return self.add("bad-box", box)
        x, y, width, height = box
        if width <= _EMPTY or height <= _EMPTY:
            flat = min(width, height) >= 0 and _is_flat(self.annotation.get("segmentation"))
            self.add("flat-object" if flat else "degenerate-box", box)
        elif kind := _leaves("box", (x, x + width), (y, y + height), self.size):
            self.add(kind, {"bbox": box, "image": list(self.size)})

    def _check_mask(self, segmentation: object) -> None:
        if not segmentation:
            self._without_mask.append(self.index)
            return
        self._masks = True
        if isinstance(segmentation, dict):
            self._check_rle(segmentation)
        elif isinstance(segmentation, list):
            kinds = {}  # value by kind: one problem of a kind for all polygons of an object
            for polygon in segmentation:
                kind, value = polygon_problem(polygon, self.size)
                kinds.setdefault(kind, value)
            if kinds.keys() & {None, "polygon-outside"}:  # something of the object is left
                kinds = {
                    kind if kind == "polygon-outside" else "stray-polygon": value
                    for kind, value in kinds.items()
                    if kind
                }
            for kind, value in kinds.items():
                self.add(kind, value)
            box = self.annotation.get("bbox")
            flat_box = is_finite_list(box) and len(box) == 4 and min(box[2:]) <= _EMPTY
            if not kinds and _is_flat(segmentation) and not flat_box:
                self.add("empty-mask", segmentation)
        else:
            self.add("bad-segmentation", segmentation)

    def _check_rle(self, segmentation: dict) -> None:
        shape, counts = segmentation.get("size"), segmentation.get("counts")
        whole = isinstance(shape, list) and len(shape) == 2 and set(map(type, shape)) == {int}
        whole = whole and min(shape) >= 1
        if not whole or (self.size and tuple(shape[::-1]) != self.size):
            image = list(self.size[::-1]) if self.size else None
            self.add("rle-size", {"size": shape, "image": image})
        if not whole:
            return
        if isinstance(counts, (list, str)):
            check = check_counts if isinstance(counts, list) else check_text
            message = check(counts, shape[0] * shape[1])
        else:
            message = f"counts is a {type(counts).__name__}"
        if message:
            self.add("bad-rle", message)
        elif not (sum(counts[1::2]) if isinstance(counts, list) else mask_util.area(segmentation)):
            self.add("empty-mask", segmentation)

    def _check_keypoints(self, keypoints: object) -> None:
        number = self.annotation.get("category_id")
        category = self._structure.categories.get(number) if type(number) is int else None
        names = (category or {}).get("keypoints")
        if not keypoints:
            if names:
                self.add("missing-keypoints", keypoints)
        elif not is_finite_list(keypoints):
            self.add("bad-keypoints", keypoints)
        elif len(keypoints) % 3 or (names and len(keypoints) != 3 * len(names)):
            expected = 3 * len(names) if names else "a multiple of 3"
            self.add("keypoints-length", {"values": len(keypoints), "expected": expected})
        elif wrong := [v for v in keypoints[2::3] if v not in (0, 1, 2)]:
            self.add("keypoint-visibility", wrong)


def _leaves(
    what: str, x: tuple[float, float], y: tuple[float, float], size: tuple[int, int] | None
) -> str | None:
    """The kind of problem of a ``box`` or ``polygon`` with this extent in an image of this size."""
    if size is None:
        return None
    width, height = size
    if min(x[1], width) - max(x[0], 0) <= _EMPTY or min(y[1], height) - max(y[0], 0) <= _EMPTY:
        return f"{what}-off-image"
    outside = max(-x[0], -y[0], x[1] - width, y[1] - height) > TOLERANCE
    return f"{what}-outside" if outside else None


def polygon_problem(polygon: object, size: tuple[int, int] | None) -> tuple[str | None, object]:
    """A polygon's worst problem: its kind and what was found. ``size`` is that of its image."""
    if not is_finite_list(polygon) or any(abs(value) > _LARGEST for value in polygon):
        return "bad-polygon", polygon
    if len(polygon) < 6:
        return "short-polygon", polygon
    if len(polygon) % 2:
        return "odd-polygon", f"{len(polygon)} numbers"
    x, y = ((min(values), max(values)) for values in (polygon[::2], polygon[1::2]))
    flat = min(x[1] - x[0], y[1] - y[0]) <= _EMPTY
    if not flat and (kind := _leaves("polygon", x, y, size)):
        return kind, {"x": list(x), "y": list(y), "image": list(size)}
    return None, None


def _is_flat(segmentation: object) -> bool:
    """Whether polygons have no width or no height, as some objects of COCO."""
    if not isinstance(segmentation, list) or not segmentation:
        return False
    if not all(is_finite_list(polygon) and len(polygon) >= 6 for polygon in segmentation):
        return False
    x, y = ([v for polygon in segmentation for v in polygon[axis::2]] for axis in (0, 1))
    return min(max(x) - min(x), max(y) - min(y)) <= _EMPTY
