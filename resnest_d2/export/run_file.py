"""Opens an exported file; as a script, runs it on images without Detectron2 and this package.

``python run_file.py FORMAT FILE IMAGES.npz OUTPUTS.npz``: images ``0``, ``1``, … are RGB (3, H, W),
0-255, float32; outputs are ``0/boxes``, …, with masks packed into bits along the last axis. ONNX
files need numpy and onnxruntime, the others numpy, torch and torchvision.
"""

import json
import sys

METADATA = "metadata.json"


def open_file(file: str, format: str):
    """A function from an image (3, H, W) to arrays by name, and the metadata."""
    if format == "onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        metadata = session.get_modelmeta().custom_metadata_map

        def outputs(image):
            return session.run(None, {"image": image})
    else:
        import torch
        import torchvision  # noqa: F401  (registers operators)

        metadata = {METADATA: ""}
        if format == "torch-export":
            network = torch.export.load(file, extra_files=metadata).module()
        else:
            network = torch.jit.load(file, map_location="cpu", _extra_files=metadata)

        def outputs(image):
            with torch.no_grad():
                return [x.numpy() for x in network(torch.from_numpy(image))]

    described = json.loads(metadata[METADATA])
    return lambda image: dict(zip(described["outputs"], outputs(image), strict=True)), described


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
