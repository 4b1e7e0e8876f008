"""Picture files of many kinds, read as a detector takes them: RGB, 8 bits, upright.

Of ordinary files the pixels are those of Detectron2's ``read_image``, with which training and
evaluation read. What differs is what that function spoils:

- what is transparent shows white, not the colour that happens to be stored there;
- grayscale of 16 or 32 bits is scaled to 8; there, all above 255 becomes white;
- a TIFF file with an orientation is turned once; there, Pillow and Detectron2 both turn it.

Pillow decodes, hence its limits hold: a header that claims more than twice
``PIL.Image.MAX_IMAGE_PIXELS``, 178,956,970 pixels unless you set it, is refused before a pixel is
decoded, and so is a file that is cut short.
"""

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

__all__ = ["SUFFIXES", "Picture", "PictureError", "count_pixels", "read_picture"]

SUFFIXES = (
    *(".avif", ".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff"),
    ".webp",
)
"""Names of pictures end so, in small or capital letters."""

# Not all that Pillow knows: for an EPS file it starts Ghostscript.
_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class PictureError(ValueError):
    """A file that is no picture, or a damaged one, or one too large.

    Args:
        path: the file.
        reason: why it is not read, without a capital and a full stop.
    """

    def __init__(self, path: str | os.PathLike, reason: str):
        super().__init__(f"{os.fspath(path)} is not read: {reason}")
        self.path = path
        self.reason = reason

    def __reduce__(self):
        return type(self), (self.path, self.reason)


@dataclass(frozen=True)
class Picture:
    """What a file shows.

    Attributes:
        pixels: RGB, uint8, (H, W, 3).
        note: what of the file is not in them, such as later frames; empty for most.
    """

    pixels: np.ndarray
    note: str = ""


def read_picture(path: str | os.PathLike) -> Picture:
    """Read a file.

    Raises:
        FileNotFoundError: there is none.
        PictureError: it cannot be read.
    """
    with _opened(path) as image:
        notes = []
        # The second picture in a phone's MPO file is the same in small, or for the other eye.
        if image.format != "MPO" and getattr(image, "is_animated", False):
            notes.append("the first of its frames")
        image.load()
        shown, note = _to_rgb(image)
        method = _UPRIGHT.get(_orientation(image))
        if method is not None:
            shown = shown.transpose(method)
        return Picture(np.asarray(shown), ", ".join([*notes, *filter(None, [note])]))


def count_pixels(path: str | os.PathLike) -> int:
    """Pixels of a picture by its header; nothing is decoded. Errors as of :func:`read_picture`."""
    with _opened(path) as image:
        return image.width * image.height


@contextlib.contextmanager
def _opened(path: str | os.PathLike) -> Iterator[Image.Image]:
    """The file with its header read. Whatever fails in the block is a PictureError."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # to open a pipe would wait for a writer
            raise PictureError(path, "it is a folder or a device, not a file")
        if not status.st_size:
            raise PictureError(path, "it has 0 bytes")
        Image.init()
        with Image.open(path, formats=[f for f in _FORMATS if f in Image.OPEN]) as image:
            yield image
    except (FileNotFoundError, PictureError):
        raise
    except Exception as error:  # Pillow's readers raise many kinds for broken files
        raise PictureError(path, _reason(path, error)) from error


def _reason(path: str | os.PathLike, error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        with open(path, "rb") as file:
            head = file.read(12)
        return f"it is damaged or no picture of a known format (it begins {head!r})"
    if isinstance(error, Image.DecompressionBombError):
        return str(error)
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"{type(error).__name__}: {error}"


def _to_rgb(image: Image.Image) -> tuple[Image.Image, str]:
    """A loaded image as RGB, and a note on what that took."""
    note = ""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        values = np.asarray(image).astype(np.uint32)  # 0-65535
        image = Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
    elif image.mode in ("I", "F"):  # no value is agreed to be white
        values = np.asarray(image, dtype=np.float64)
        finite = values[np.isfinite(values)]
        low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
        share = np.nan_to_num((values - low) / (high - low or 1.0)).clip(0, 1)
        image = Image.fromarray(np.rint(255 * share).astype(np.uint8))
        note = f"its values from {low:g} to {high:g} as black to white"
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB"), note


def _orientation(image: Image.Image) -> int | None:
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # as Detectron2 does, leave EXIF data alone that cannot be read
        return None
