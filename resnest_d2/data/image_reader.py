"""The one reader of image files: RGB, 8 bits, upright.

Training, evaluation, prediction, the data check and all drawings use it, so a network gets the same
pixels everywhere. The rule for each kind of file:

- 8 bits a channel (RGB, grayscale, palette, CMYK, 1 bit): the pixels of Detectron2's
  ``read_image``.
- Transparency (RGBA, grayscale with alpha, a transparent colour): laid over white. Detectron2 takes
  the colour that is stored there.
- More bits (16-bit and 32-bit integers, floats): see :mod:`.intensity`. Detectron2 takes all above
  255 as white.
- Orientation (EXIF, TIFF): turned once. Detectron2 turns TIFF files twice.
- Several frames: the first one.

Only regular files in the formats of :data:`SUFFIXES` are read, by their content, not their name.
Pillow's limits hold: a header with more than twice ``PIL.Image.MAX_IMAGE_PIXELS`` (178,956,970
pixels unless you set it) is refused before a pixel is decoded. A file that is cut short is refused.
"""

import contextlib
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from detectron2.utils.file_io import PathManager

from .intensity import BY_TYPE, Intensity, ValueRange

SUFFIXES = (
    *(".avif", ".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff"),
    ".webp",
)
"""Endings of image files' names, in small or capital letters."""

# Not all that Pillow knows: for an EPS file it starts Ghostscript.
_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
_COLOURS = ("RGB", "RGBA")
_OTHER_BYTE = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageError(ValueError):
    """A file that is not an image, damaged, or too large.

    Args:
        reason: why it is not read, without a capital and a full stop.
    """

    def __init__(self, path: str | os.PathLike, reason: str):
        super().__init__(f"{os.fspath(path)} is not read: {reason}")
        self.path = path
        self.reason = reason

    def __reduce__(self):
        return type(self), (self.path, self.reason)


def has_image_name(name: str) -> bool:
    """Whether a file with this name, without its folder, is taken for an image: not if hidden."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


@dataclass(frozen=True)
class DecodedImage:
    """An image: RGB, uint8, (H, W, 3); ``note`` says what of its file is left out, if anything."""

    pixels: np.ndarray
    note: str = ""


def read_image(path: str | os.PathLike, intensity: Intensity = BY_TYPE) -> DecodedImage:
    """Read a file.

    Args:
        intensity: the rule for images of more than 8 bits.

    Raises:
        FileNotFoundError: the file does not exist.
        ImageError: it cannot be read.
    """
    image, note = load_image(path, intensity)
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for top in range(0, image.height, 1024):  # at once it would take another copy
        part = image.crop((0, top, image.width, min(top + 1024, image.height)))
        pixels[top : top + 1024] = part
    return DecodedImage(pixels, note)


def load_image(
    path: str | os.PathLike, intensity: Intensity = BY_TYPE, mode: str = "RGB"
) -> tuple[Image.Image, str]:
    """What :func:`read_image` reads, as Pillow's image, and its note.

    Args:
        mode: ``"RGB"``, or ``"RGBA"`` for a network that takes transparency as a channel.
    """
    with open_image(path) as image:
        notes = []
        # The second image in a phone's MPO file is a small copy, or for the other eye.
        if image.format != "MPO" and getattr(image, "is_animated", False):
            notes.append("the first of its frames")
        shown = image
        # Of colours Pillow reads the upper bytes, which is what the rules "type" and "none" want.
        if has_many_bits(image) and not (
            image.mode in _COLOURS and intensity.rule in ("type", "none")
        ):
            values = _values(image, path)
            if misfit := intensity.misfit(_range(values)):
                notes.append(misfit)
            shown = Image.fromarray(intensity.apply(values)).convert("RGB")
            if image.mode == "RGBA":
                shown.putalpha(image.getchannel("A"))
        image.load()
        if shown.has_transparency_data and mode == "RGB":
            shown = shown.convert("RGBA")
            shown = Image.alpha_composite(Image.new("RGBA", shown.size, "white"), shown)
        shown = shown if shown.mode == mode else shown.convert(mode)
        shown = _upright(shown, orientation(image))
        return shown, ", ".join(notes)


def read_labels(path: str | os.PathLike) -> np.ndarray:
    """The numbers in a label map, (H, W): its grey values, or the indices of its palette.

    Errors are those of :func:`read_image`.

    Raises:
        ImageError: also where its colour channels differ.
    """
    with open_image(path) as image:
        image.load()
        labels = np.asarray(_upright(image, orientation(image)))
        if labels.ndim == 3:
            colours = labels[..., : labels.shape[2] - ("A" in image.mode)]
            if (colours != colours[..., :1]).any():
                raise ImageError(path, "its channels differ: colours are no class numbers")
            labels = colours[..., 0]
        if labels.dtype.kind == "f" and (labels % 1 != 0).any():
            raise ImageError(path, "its numbers are not whole: classes have whole numbers")
        return labels


def read_mask(path: str | os.PathLike) -> np.ndarray:
    """The classes in a semantic mask, uint8 (H, W): those above 255 are 255, palettes are ignored.

    Errors are those of :func:`read_image`.
    """
    with open_image(path) as image:
        image.load()
        shown = image if image.mode in ("1", "P") or has_many_bits(image) else image.convert("L")
        return np.asarray(_upright(shown, orientation(image))).clip(0, 255).astype(np.uint8)


def count_pixels(path: str | os.PathLike) -> int:
    """Number of pixels by the header. Errors are those of :func:`read_image`."""
    with open_image(path) as image:
        return image.width * image.height


def value_ranges(paths: Iterable[str | os.PathLike]) -> list[ValueRange]:
    """The values in those files that have more than 8 bits, by kind of number.

    Of the others only the header is read. Files that cannot be read are left out.
    """
    found: dict[str, ValueRange] = {}
    for path in paths:
        with contextlib.suppress(FileNotFoundError, ImageError), open_image(path) as image:
            if has_many_bits(image):
                new = _range(_values(image, path))
                old = found.get(new.kind, ValueRange(new.kind, new.low, new.high, images=0))
                low, high = min(old.low, new.low), max(old.high, new.high)
                found[new.kind] = ValueRange(new.kind, low, high, old.images + 1)
    return list(found.values())


@contextlib.contextmanager
def open_image(path: str | os.PathLike) -> Iterator[Image.Image]:
    """The file with its header read. Whatever fails in the block is raised as a ImageError.

    The path may also be one of Detectron2's ``PathManager``.
    """
    try:
        if "://" not in os.fspath(path) or os.path.exists(path):
            status = os.stat(path)
            if not stat.S_ISREG(status.st_mode):  # to open a pipe would wait for a writer
                raise ImageError(path, "it is a folder or a device, not a file")
            if not status.st_size:
                raise ImageError(path, "it has 0 bytes")
        Image.init()
        formats = [name for name in _FORMATS if name in Image.OPEN]
        with (
            PathManager.open(os.fspath(path), "rb") as file,
            Image.open(file, formats=formats) as image,
        ):
            yield image
    except (FileNotFoundError, ImageError):
        raise
    except Exception as error:  # Pillow's readers raise many kinds for broken files
        raise ImageError(path, _reason(path, error)) from error


def has_many_bits(image: Image.Image) -> bool:
    """Whether an image, not loaded yet, has more than 8 bits a channel."""
    return image.mode[0] in "IF" or any(";16" in str(args) for *_, args in image.tile)


def orientation(image: Image.Image) -> int | None:
    """The EXIF orientation of an image; None for a loaded TIFF file, which is upright."""
    try:
        # Not PNG's own method, which decodes the image.
        return Image.Image.getexif(image).get(ExifTags.Base.Orientation)
    except Exception:  # EXIF data that cannot be read are ignored, as Detectron2 does
        return None


def _reason(path: str | os.PathLike, error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        with PathManager.open(os.fspath(path), "rb") as file:
            head = file.read(12)
        return f"it is damaged or in none of the formats {', '.join(_FORMATS)} (it begins {head!r})"
    if isinstance(error, Image.DecompressionBombError):
        return str(error)
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"{type(error).__name__}: {error}"


def _upright(image: Image.Image, turned: int | None) -> Image.Image:
    return image.transpose(_UPRIGHT[turned]) if turned in _UPRIGHT else image


def _values(image: Image.Image, path: str | os.PathLike) -> np.ndarray:
    """The values of an image that has many bits: (H, W), of colours (H, W, 3)."""
    if image.mode not in _COLOURS:
        return np.asarray(image)
    with open_image(path) as other:  # Pillow takes the lower bytes for the upper ones
        other.tile = [
            tuple.__new__(type(tile), (*tile[:3], _other_byte(tile[3]))) for tile in other.tile
        ]
        lower = np.asarray(other)[..., :3]
    return np.asarray(image)[..., :3].astype(np.uint16) << 8 | lower


def _other_byte(args: str | tuple) -> str | tuple:
    if isinstance(args, str):
        return args[:-1] + _OTHER_BYTE[args[-1]]
    return _other_byte(args[0]), *args[1:]


def _range(values: np.ndarray) -> ValueRange:
    kind = "float" if values.dtype.kind == "f" else f"{8 * values.dtype.itemsize}-bit"
    finite = values[np.isfinite(values)] if kind == "float" else values
    low, high = (finite.min(), finite.max()) if finite.size else (0, 0)
    return ValueRange(kind, float(low), float(high))
