"""Detects objects with an exported file: numpy and onnxruntime are all it needs.

    python onnx_detect.py model.onnx image.jpg

Where Pillow is installed, the image may be a JPEG, a PNG or any other file that Pillow reads;
without Pillow it is a binary PPM file (P6), which every image program writes. Best in the size that
the file's metadata names under "resize".
"""

import json
import sys

import numpy as np
import onnxruntime

try:
    from PIL import Image, ImageOps
except ImportError:
    Image = None


def read_image(path):
    """RGB, uint8, (H, W, 3), upright."""
    if Image is None:
        return read_ppm(path)
    with Image.open(path) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def read_ppm(path):
    data = open(path, "rb").read()
    if not data.startswith(b"P6"):
        sys.exit(f"{path} is no binary PPM file: other formats need Pillow (pip install pillow)")
    _, width, height, _ = data.split(maxsplit=4)[:4]
    pixels = int(width) * int(height) * 3
    return np.frombuffer(data[-pixels:], np.uint8).reshape(int(height), int(width), 3)


session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
metadata = json.loads(session.get_modelmeta().custom_metadata_map["metadata.json"])
image = read_image(sys.argv[2]).transpose(2, 0, 1).astype(np.float32)  # (3, H, W), 0-255
outputs = session.run(None, {"image": image})
boxes, scores, classes = outputs[:3]  # and masks (N, H, W) as the fourth, where the model has them
for box, score, label in zip(boxes.round(1), scores, classes, strict=True):
    print(f"{metadata['class_names'][label]} {score:.3f} {box.tolist()}")
