"""Detects objects with an exported file: numpy and onnxruntime are all it needs.

    python onnx_detect.py model.onnx picture.ppm

The picture is a binary PPM file (P6), which every image program writes; best in the size that the
file's metadata names under "resize".
"""

import json
import sys

import numpy as np
import onnxruntime


def read_ppm(path):
    """RGB, uint8, (H, W, 3)."""
    data = open(path, "rb").read()
    kind, width, height, _ = data.split(maxsplit=4)[:4]
    assert kind == b"P6", f"{path} is no binary PPM file"
    pixels = int(width) * int(height) * 3
    return np.frombuffer(data[-pixels:], np.uint8).reshape(int(height), int(width), 3)


session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
metadata = json.loads(session.get_modelmeta().custom_metadata_map["metadata.json"])
image = read_ppm(sys.argv[2]).transpose(2, 0, 1).astype(np.float32)  # (3, H, W), 0-255
outputs = session.run(None, {"image": image})
boxes, scores, classes = outputs[:3]  # and masks (N, H, W) as the fourth, where the model has them
for box, score, label in zip(boxes.round(1), scores, classes, strict=True):
    print(f"{metadata['class_names'][label]} {score:.3f} {box.tolist()}")
