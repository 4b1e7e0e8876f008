"""Detectron2, or how to get it. Imported before everything else of this package."""

import warnings

try:
    with warnings.catch_warnings():
        # Detectron2 decorates functions with torch.jit.script, which PyTorch now advises against.
        warnings.filterwarnings("ignore", message="`torch.jit.script`", category=FutureWarning)
        # Not only a check: `export.torchscript` gives Detectron2's ResNet and FPN what
        # torch.jit.script needs of them, which importing Detectron2 alone does not. The other is
        # what the package imports: what it lacks is explained below too.
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
