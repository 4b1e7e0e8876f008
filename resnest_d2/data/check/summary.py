"""What a COCO-format file holds, for the choice of a config and for registering it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .normalise import given_ids, id_key


@dataclass(frozen=True)
class CocoSummary:
    """What a COCO-format file holds.

    Attributes:
        class_names: ordered by category id, hence by Detectron2's contiguous class number.
        category_ids: ascending, one for each class name.
        given_ids: the same as they are in the file, which may be texts.
        num_annotations: crowds included.
        num_crowds: annotations with ``iscrowd`` 1, which are neither trained nor scored.
        has_masks: whether an object that is not a crowd has a segmentation.
        has_rle: whether such a segmentation is run-length encoded, which Detectron2 trains only
            with ``INPUT.MASK_FORMAT: bitmask``.
        keypoint_names: names of the keypoints, where all categories that have some agree.
        num_keypoints: how many the objects have, where all that have some agree and no category
            names its keypoints; else 0.
        without_keypoints: number of annotations without ``keypoints``, which a keypoint head needs.
    """

    json_file: str
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    given_ids: tuple[int | float | str, ...]
    num_images: int
    num_annotations: int
    num_crowds: int
    has_masks: bool
    has_rle: bool
    has_keypoints: bool
    keypoint_names: tuple[str, ...] = ()
    num_keypoints: int = 0
    without_keypoints: int = 0
    image_ids: frozenset[int] = frozenset()

    @property
    def num_objects(self) -> int:
        """Annotations that are trained and scored."""
        return self.num_annotations - self.num_crowds

    @property
    def metadata(self) -> dict[str, Any]:
        """Detectron2's metadata of the classes; on loading it sets the same values again."""
        return {
            "thing_classes": list(self.class_names),
            "thing_dataset_id_to_contiguous_id": {c: i for i, c in enumerate(self.category_ids)},
        }

    @property
    def given_categories(self) -> dict[int | float | str, str]:
        """Class names by the ids of the file."""
        return dict(zip(map(id_key, self.given_ids), self.class_names, strict=True))


def summarise(
    json_file: str,
    images: Collection[int],
    categories: Mapping[int, dict],
    annotations: Sequence[dict],
) -> CocoSummary:
    """The summary of normalised entries: ids of images, categories by ascending id."""
    objects = [annotation for annotation in annotations if annotation["iscrowd"] != 1]
    segmentations = [a["segmentation"] for a in objects if a.get("segmentation")]
    counts = {len(a["keypoints"]) for a in annotations if isinstance(a.get("keypoints"), list)}
    counts.discard(0)
    names = {tuple(c["keypoints"]) for c in categories.values() if c.get("keypoints")}
    given = given_ids(categories)
    return CocoSummary(
        json_file=json_file,
        class_names=tuple(category["name"] for category in categories.values()),
        category_ids=tuple(categories),
        given_ids=tuple(given.get(number, number) for number in categories),
        num_images=len(images),
        num_annotations=len(annotations),
        num_crowds=len(annotations) - len(objects),
        has_masks=bool(segmentations),
        has_rle=any(isinstance(segmentation, dict) for segmentation in segmentations),
        has_keypoints=any(annotation.get("keypoints") for annotation in annotations),
        num_keypoints=counts.pop() // 3 if len(counts) == 1 and not names else 0,
        keypoint_names=names.pop() if len(names) == 1 else (),
        without_keypoints=sum(not annotation.get("keypoints") for annotation in annotations),
        image_ids=frozenset(images),
    )
