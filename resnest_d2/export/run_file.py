"""Runs an exported file on images, in a process of its own that has neither Detectron2 nor us.

``python run_file.py FORMAT FILE IMAGES.npz OUTPUTS.npz``: the images ``0``, ``1``, … are RGB
(3, H, W), 0-255, float32; the outputs ``0/boxes``, …, masks packed into bits along their last axis.
ONNX files need numpy and onnxruntime, the others numpy, torch and torchvision.
"""

import json
import sys

METADATA = "metadata.json"


def open_file(file: str, format: str):
    """A function from an image (3, H, W) to arrays by name, and the metadata."""
    if format == "onnx":
        return _open_onnx(file)
    import torch
    import torchvision  # noqa: F401  (its operators)

    metadata = {METADATA: ""}
    if format == "torch-export":
        network = torch.export.load(file, extra_files=metadata).module()
    else:
        network = torch.jit.load(file, map_location="cpu", _extra_files=metadata)
    described = json.loads(metadata[METADATA])

    def run(image):
        with torch.no_grad():
            outputs = network(torch.from_numpy(image))
        return dict(zip(described["outputs"], (x.numpy() for x in outputs), strict=True))

    return run, described


def _open_onnx(file: str):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    described = json.loads(session.get_modelmeta().custom_metadata_map[METADATA])

    def run(image):
        return dict(zip(described["outputs"], session.run(None, {"image": image}), strict=True))

    return run, described


def _main(format: str, file: str, images: str, outputs: str) -> None:
    import numpy as np

    run, _ = open_file(file, format)
    found = {}
    with np.load(images) as stored:
        for name in stored.files:
            for key, value in run(stored[name]).items():
                packed = np.packbits(value, axis=-1) if value.dtype == bool else value
                found[f"{name}/{key}"] = packed
    np.savez(outputs, **found)


if __name__ == "__main__":
    del sys.path[0]  # this folder
    for absent in ("detectron2", "resnest_d2"):
        sys.modules[absent] = None  # importing them fails
    _main(*sys.argv[1:])
