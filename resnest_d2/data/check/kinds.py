"""Kinds of problems of a COCO data set. The kind decides what a run does with ``on_bad_data``:

- a *warning* never stops a run. Most of these are mended on the way (:data:`MENDED`), because
  nothing is lost by it: a size of 96.0 is 96, a box is clipped to its image.
- an *error* stops a run (``refuse``, the default). With ``repair`` those of :data:`REPAIRABLE`
  kinds are mended where that can be done, with ``skip`` the entries of the others are left out too.
- what makes a file as a whole unusable (:data:`UNUSABLE`) stops a run in any case.

Nothing is imported here: ``data check --help`` shows this table without waiting for PyTorch.
"""

__all__ = [
    "BEHAVIOURS",
    "KINDS",
    "MENDED",
    "MERGED",
    "OF_KEYPOINTS",
    "OF_MASKS",
    "REPAIRABLE",
    "UNREADABLE_KEYPOINTS",
    "UNREADABLE_MASKS",
    "UNUSABLE",
    "WARNINGS",
]

BEHAVIOURS = ("refuse", "repair", "skip")
"""What ``on_bad_data`` may be; each does what the one before it does, and more."""

KINDS: dict[str, str] = {
    # The file as a whole.
    "not-json": "the file is no JSON text",
    "not-an-object": "the file must hold an object with images, annotations and categories",
    "missing-section": "the file lacks 'images' or 'categories'",
    "bad-section": "a section of the file is no list",
    "empty-section": "the file has no usable image or category",
    "different-category": "two files name another category under one id, or only one has it",
    "encoding": "the file has a byte order mark, or is UTF-16 or UTF-32: it is read as well",
    "no-annotations": "the file has no 'annotations': nothing to train on or to score, only images",
    "crowds": "objects with iscrowd 1 are neither trained nor scored; if they are single objects, "
    "'resnest-d2 data fix IN OUT --iscrowd 0' makes them so",
    # Entries and their ids.
    "bad-image": "an entry of 'images' is no object",
    "bad-annotation": "an entry of 'annotations' is no object",
    "bad-category": "an entry of 'categories' is no object",
    "image-lacks-key": "an image needs id, file_name, height and width",
    "annotation-lacks-key": "an annotation needs image_id and category_id",
    "category-lacks-key": "a category needs id and name",
    "bad-image-id": "an id must be a whole number below 2^63, or a text",
    "bad-category-id": "an id must be a whole number below 2^63, or a text",
    "converted-id": "the id is a text, a float or below 0: a number takes its place, and results "
    "carry the id of the file",
    "converted-reference": "image_id or category_id is of another type than the id: it is joined",
    "converted-number": "a whole number is written as another type, such as 96.0: it is converted",
    "renumbered-annotation": "the annotation's id is missing, 0, used before or no whole number: "
    "it gets one that is free",
    "merged-image": "an earlier image has the same file and size: the annotations of both belong "
    "to that one, whose id the results carry",
    "merged-annotation": "an earlier annotation is the same, and has the same id: they are one",
    "converted-name": "a category's name is a number: its text is taken",
    "changed-iscrowd": "iscrowd had another value than asked for",
    "merged-category": "an earlier category has the same id and name: they are one",
    "duplicate-image-id": "several images share one id: nobody knows whose the annotations are",
    "duplicate-category-id": "an earlier category has this id",
    "unknown-image": "the annotation's image_id is no image of the file",
    "unknown-category": "the annotation's category_id is no category of the file",
    # Categories.
    "bad-category-name": "a name must be a text, and not empty",
    "bad-keypoint-names": "a category's 'keypoints' must be a list of texts",
    "duplicate-category-name": "an earlier category has this name: only the ids tell them apart",
    "category-gap": "no category has these ids (the first and the last): legal, they are mapped",
    "empty-class": "no annotation is of this category",
    # Images.
    "bad-file-name": "file_name must be a text, and not empty",
    "bad-image-size": "height and width must be whole numbers from 1 to 2^31 - 1",
    "duplicate-file-name": "an earlier image has this file, and another size",
    "missing-image": "the image file does not exist",
    "misnamed-image": "the image file is found if its name is read in another way",
    "empty-image": "the image file has no bytes",
    "not-an-image": "the file is in no image format that is read",
    "truncated-image": "the image file ends before the picture does",
    "unreadable-image": "the image file cannot be read",
    "unusual-values": "images of more than 8 bits would be nearly black, white or of one shade",
    "size-mismatch": "height and width are not those of the picture as it is shown (after EXIF)",
    "same-picture": "a picture of the training data is in the validation data too",
    "same-set": "training and validation data are the same: the metrics tell what was memorised",
    # Boxes.
    "bad-box": "bbox must be four finite numbers: x, y, width, height",
    "degenerate-box": "the box has no width or no height",
    "box-outside": "the box reaches more than 2 pixels out of the image: it is clipped",
    "box-off-image": "the box lies outside of the image: nothing of it is left",
    "flat-object": "box and outline agree that the object has no extent: it is not trained on",
    "missing-area": "COCO's metrics need 'area': that of the mask or box is taken",
    "bad-area": "area must be a finite number of at least 0: that of the mask or box is taken",
    "missing-iscrowd": "COCO's metrics need 'iscrowd': a run takes 0",
    "bad-iscrowd": "iscrowd must be 0 or 1",
    "ignored-object": "Detectron2 has no 'ignore': repair makes it iscrowd 1, as COCO's metrics do",
    # Masks.
    "missing-mask": "other annotations of the file have a segmentation, this one does not",
    "bad-segmentation": "segmentation must be a list of polygons, or an object in RLE",
    "maskless-crowd": "a crowd has no mask that can be read: it is left out where masks are "
    "learned",
    "empty-mask": "the mask has no pixel: masks are not learned from the object",
    "flat-segmentation": "segmentation is one polygon without a list around it: it is wrapped",
    "stray-polygon": "one of several polygons is none (see the next kinds): it is left out, the "
    "object stays",
    "bad-polygon": "a polygon must be a list of finite numbers: x1, y1, x2, y2, …",
    "short-polygon": "a polygon must have at least 6 numbers, which is 3 points",
    "odd-polygon": "a polygon must have an even number of numbers",
    "polygon-off-image": "the polygons lie outside of the image: nothing of them is left",
    "polygon-outside": "a polygon reaches more than 2 pixels out of the image: it is clipped",
    "rle-size": "the size of an RLE must be the image's [height, width]",
    "bad-rle": "the counts of an RLE must be whole runs of pixels that fill its size",
    # Keypoints.
    "missing-keypoints": "the category has keypoints, the object has none: repair takes them as "
    "not labelled",
    "bad-keypoints": "keypoints must be a list of finite numbers: x1, y1, v1, …",
    "keypoints-length": "keypoints must be three values for each name of the category",
    "keypoint-visibility": "a keypoint's visibility must be 0, 1 or 2",
    "num-keypoints": "num_keypoints is not there, or not the number of keypoints with visibility "
    "1 or 2: they are counted",
}
"""What each kind means."""

MERGED = frozenset({"merged-image", "merged-annotation", "merged-category"})
"""Kinds of entries that go into an earlier one."""

MENDED = MERGED | frozenset(
    "encoding no-annotations converted-id converted-reference converted-number converted-name "
    "renumbered-annotation missing-area bad-area missing-iscrowd changed-iscrowd num-keypoints "
    "flat-segmentation stray-polygon maskless-crowd box-outside polygon-outside".split()
)
"""Kinds of warnings that a run mends on the way, without losing an object."""

WARNINGS = MENDED | frozenset(
    "crowds duplicate-category-name category-gap empty-class same-set flat-object empty-mask "
    "unusual-values".split()
)
"""Kinds that neither stop a run nor are left out of it."""

REPAIRABLE = frozenset(
    "misnamed-image bad-box degenerate-box ignored-object missing-keypoints".split()
)
"""Kinds of errors that ``repair`` mends where it can: a box needs a mask to be taken from."""

UNUSABLE = frozenset(
    "not-json not-an-object missing-section bad-section empty-section different-category".split()
)
"""Kinds of errors that leaving out entries does not mend."""

UNREADABLE_MASKS = frozenset(
    "bad-segmentation bad-polygon short-polygon odd-polygon polygon-off-image rle-size "
    "bad-rle".split()
)
"""Kinds of masks that Detectron2 cannot load, or for which it leaves out their object."""

OF_MASKS = UNREADABLE_MASKS | {"missing-mask", "maskless-crowd", "empty-mask"}
"""Kinds that matter only where masks are learned."""

UNREADABLE_KEYPOINTS = frozenset("bad-keypoints keypoints-length keypoint-visibility".split())
"""Kinds of keypoints that no model can learn from."""

OF_KEYPOINTS = UNREADABLE_KEYPOINTS | {"missing-keypoints", "bad-keypoint-names"}
"""Kinds that matter only where keypoints are learned."""
