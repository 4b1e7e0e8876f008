"""Imports Detectron2, or says how to get it. Imported before the rest of this package."""

import warnings

try:
    with warnings.catch_warnings():
        # Detectron2 uses torch.jit.script as a decorator, which PyTorch warns about.
        warnings.filterwarnings("ignore", message="`torch.jit.script`", category=FutureWarning)
        # `export.torchscript` also prepares Detectron2's ResNet and FPN for torch.jit.script.
        import detectron2.data
        import detectron2.export.torchscript  # noqa: F401
except Exception as error:  # also torchvision's RuntimeError, an old Detectron2's AttributeError
    if not isinstance(error, ModuleNotFoundError) or error.name != "detectron2":
        raise ImportError(
            f"resnest_d2 needs Detectron2, whose import fails: {type(error).__name__}: {error}\n"
            "For the cause and its remedy run: resnest-d2 doctor",
            name=getattr(error, "name", None),
        ) from error
    raise ModuleNotFoundError(
        "resnest_d2 needs Detectron2, which is not on the package index under its own name. "
        "Install PyTorch, then either the official source:\n"
        "    pip install --no-build-isolation "
        "'git+https://github.com/facebookresearch/detectron2.git'\n"
        "or, from a checkout of resnest-d2:\n"
        "    python tools/install_detectron2.py",
        name="detectron2",
    ) from None
