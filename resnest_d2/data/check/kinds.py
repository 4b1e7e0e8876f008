"""Kinds of problems of a COCO data set, and what is done about each: one table.

Nothing of the package is imported here: ``data check --help`` shows this table without waiting for
PyTorch.
"""

import re

BEHAVIOURS = ("refuse", "repair", "skip")
"""Values of ``on_bad_data``; each does what the one before it does, and more."""

# Each line: action, kind, meaning. The actions "note" and "mend" are those of warnings:
# - note: nothing is changed.
# - mend: a run mends it, because nothing is lost by it: a size of 96.0 is 96.
# - repair: on_bad_data="repair" mends it where it can (a box needs a mask to be taken from).
# - skip: on_bad_data="skip" leaves out the entry, as it does with what cannot be repaired.
# - stop: the file as a whole is unusable, whatever on_bad_data is.
# Kinds of an action with "/masks" or "/keypoints" matter only where these are learned; those with
# "/labels" are of label maps for semantic segmentation, with "/classes" of folders of classes.
_TABLE = """
stop not-json: the file is not JSON
stop not-an-object: the file must hold an object with images, annotations and categories
stop missing-section: the file lacks 'images' or 'categories'
stop bad-section: a section of the file is not a list
stop empty-section: the file has no usable image or category
stop different-category: two files have different names for a category id, or one lacks the id
mend encoding: the file has a byte order mark, or is UTF-16 or UTF-32: it is still read
mend no-annotations: the file has no 'annotations': nothing to train on or to score, only images
note crowds: objects with iscrowd 1 are neither trained nor scored; if they are single objects,
  'resnest-d2 data fix IN OUT --iscrowd 0' makes them so

skip bad-image: an entry of 'images' is not an object
skip bad-annotation: an entry of 'annotations' is not an object
skip bad-category: an entry of 'categories' is not an object
skip image-lacks-key: an image needs id, file_name, height and width
skip annotation-lacks-key: an annotation needs image_id and category_id
skip category-lacks-key: a category needs id and name
skip bad-image-id: an id must be a whole number below 2^63, or a text
skip bad-category-id: an id must be a whole number below 2^63, or a text
mend converted-id: the id is a text, a float or below 0: it is replaced by a number, and results
  have the id of the file
mend converted-reference: image_id or category_id differs in type from the id: it is converted
mend converted-number: a whole number is written as another type, such as 96.0: it is converted
mend renumbered-annotation: the annotation's id is missing, 0, used before or not a whole number: it
  gets a free one
mend merged-image: an earlier image has the same file and size: it gets the annotations of both, and
  results have its id
mend merged-annotation: an earlier annotation is equal, with the same id: only that one is kept
mend converted-name: a category's name is a number: it is taken as a text
mend changed-iscrowd: iscrowd had another value than asked for
mend merged-category: an earlier category has the same id and name: only that one is kept
skip duplicate-image-id: several images have this id: annotations could belong to any of them
skip duplicate-category-id: an earlier category has this id
skip unknown-image: the annotation's image_id is no image of the file
skip unknown-category: the annotation's category_id is no category of the file

skip bad-category-name: a name must be a text, and not empty
skip/keypoints bad-keypoint-names: a category's 'keypoints' must be a list of texts
note duplicate-category-name: an earlier category has this name, under another id
note category-gap: no category has these ids (the first and the last): valid, they are mapped
note empty-class: no annotation is of this category

skip bad-file-name: file_name must be a text, and not empty
skip bad-image-size: height and width must be whole numbers from 1 to 2^31 - 1
skip duplicate-file-name: an earlier image has this file, and another size
skip missing-image: the image file does not exist
repair misnamed-image: the image file exists under a slightly different name
skip empty-image: the image file has no bytes
skip not-an-image: the file is in no image format that is read
skip truncated-image: the image file is cut short
skip unreadable-image: the image file cannot be read
note unusual-values: images of more than 8 bits would be nearly black, white or of one shade
skip size-mismatch: height and width are not those of the image as it is shown (after EXIF)
skip same-picture: an image of the training data is in the validation data too
note same-set: training and validation data are the same: the metrics measure what was memorised

repair bad-box: bbox must be four finite numbers: x, y, width, height
repair degenerate-box: the box has no width or no height
mend box-outside: the box reaches more than 2 pixels out of the image: it is clipped
skip box-off-image: the box lies outside of the image: nothing of it is left
note flat-object: both box and outline have no width or no height: the object is not trained on
mend missing-area: COCO's metrics need 'area': that of the mask or box is taken
mend bad-area: area must be a finite number of at least 0: that of the mask or box is taken
mend missing-iscrowd: COCO's metrics need 'iscrowd': a run takes 0
skip bad-iscrowd: iscrowd must be 0 or 1
repair ignored-object: Detectron2 has no 'ignore': repair makes it iscrowd 1, as COCO's metrics do

skip/masks missing-mask: other annotations of the file have a segmentation, this one does not
skip/masks bad-segmentation: segmentation must be a list of polygons, or an object in RLE
mend/masks maskless-crowd: a crowd has no readable mask: it is left out where masks are learned
note/masks empty-mask: the mask has no pixel: no mask is learned from the object
mend flat-segmentation: segmentation is one polygon without a list around it: it is wrapped
mend stray-polygon: one of several polygons is invalid (see the next kinds): it is left out, the
  object stays
skip/masks bad-polygon: a polygon must be a list of finite numbers: x1, y1, x2, y2, …
skip/masks short-polygon: a polygon must have at least 6 numbers, which is 3 points
skip/masks odd-polygon: a polygon must have an even number of numbers
skip/masks polygon-off-image: the polygons lie outside of the image: nothing of them is left
mend polygon-outside: a polygon reaches more than 2 pixels out of the image: it is clipped
skip/masks rle-size: the size of an RLE must be the image's [height, width]
skip/masks bad-rle: the counts of an RLE must be whole numbers that add up to its size

skip/labels missing-label: the image has no label map of its name
note/labels surplus-label: the label map has no image of its name
skip/labels unreadable-label: the label map cannot be read
skip/labels label-colours: the label map has colours: class numbers are values of one channel
skip/labels label-size: the label map has another size than its image
skip/labels label-value: the label map has values that are no class; pixels without a class must
  have the value of MODEL.SEM_SEG_HEAD.IGNORE_VALUE (255)
note/labels ignored-label: all pixels of the label map are ignored: nothing is learned from it
note/labels empty-label-class: no pixel has this class

skip/classes empty-class-folder: the folder of a class has no image
skip/classes new-class: the folder is of no class of the training data
note/classes missing-class: no folder of this class: nothing is evaluated of it
note/classes stray-image: the image lies beside the folders of the classes: it is not used

repair/keypoints missing-keypoints: the category has keypoints, the object has none: repair takes
  them as not labelled
skip/keypoints bad-keypoints: keypoints must be a list of finite numbers: x1, y1, v1, …
skip/keypoints keypoints-length: keypoints must be three values for each name of the category
skip/keypoints keypoint-visibility: a keypoint's visibility must be 0, 1 or 2
mend num-keypoints: num_keypoints is missing, or not the number of keypoints with visibility 1 or 2:
  they are counted
"""

KINDS: dict[str, str] = {}
"""The meaning of each kind."""
_actions: dict[str, set[str]] = {}  # kinds by action, and by what must be learned
for _line in re.sub(r"\n  ", " ", _TABLE).split("\n"):
    if _line:
        _action, _kind, KINDS[_kind.rstrip(":")] = _line.split(" ", 2)
        for _part in _action.split("/"):
            _actions.setdefault(_part, set()).add(_kind.rstrip(":"))

MENDED, REPAIRABLE, UNUSABLE = _actions["mend"], _actions["repair"], _actions["stop"]
WARNINGS = _actions["note"] | MENDED
OF_MASKS, OF_KEYPOINTS = _actions["masks"], _actions["keypoints"]
OF_LABELS, OF_CLASS_FOLDERS = _actions["labels"], _actions["classes"]
MERGED = {kind for kind in KINDS if kind.startswith("merged-")}
"""Kinds of entries that are taken together with an earlier one."""

UNREADABLE = {
    "segmentation": OF_MASKS & _actions["skip"] - {"missing-mask"},
    "keypoints": OF_KEYPOINTS & _actions["skip"] - {"bad-keypoint-names"},
}
"""Kinds of values, by their key, that a model which does not learn them can go without."""
