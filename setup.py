"""Packages resnest_d2, with the checkout's configs/ inside.

Detectron2 is not among the requirements: the index has no project of that name, and a user's own
build must stay. `tools/install_detectron2.py` installs it where it is missing.
"""

import runpy
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent

DOCS = ["myst-parser>=4,<6", "pydata-sphinx-theme>=0.16,<1", "sphinx>=8.1,<10"]

setup(
    name="resnest-d2",
    version=runpy.run_path(str(ROOT / "resnest_d2" / "version.py"))["__version__"],
    description="ResNeSt (Split-Attention Networks) as a drop-in Detectron2 backbone",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="resnest-d2 contributors",
    license="Apache-2.0",
    # The checkout keeps configs/ at its top, a wheel carries it as resnest_d2/configs.
    packages=[
        *find_packages(include=["resnest_d2*"]),
        "resnest_d2.configs",
    ],
    package_dir={"resnest_d2.configs": "configs"},
    py_modules=["resnest_d2_doctor"],  # an old name
    package_data={
        "resnest_d2.configs": ["*.yaml", "lazy/*.py", "lazy/common/*.py"],
        "resnest_d2.model_zoo": ["*.json"],
        "resnest_d2.report": ["templates/*"],
    },
    python_requires=">=3.10",
    install_requires=[
        "filelock",
        "fvcore",
        "gdown>=6.3",
        "hotcoco>=1.3",
        "iopath",
        "matplotlib",
        "numpy",
        "pillow>=10.1",
        "pycocotools>=2.0.2",
        "pyyaml",
        "requests",
        "safetensors>=0.4",
        "scipy",
        "shapely",  # Detectron2 crops polygons with it, and leaves it to the user to install
        "tabulate",
        "tensorboard",
        "torch>=2.3",
        "torchvision>=0.18",
        "tqdm",
    ],
    extras_require={
        "docs": DOCS,
        "explain": ["captum>=0.9"],
        "export": ["onnx>=1.17", "onnxruntime>=1.19"],
        "hub": ["huggingface_hub>=0.23"],  # timm's weights
        "report": ["jinja2"],
        "test": [
            *DOCS,
            "captum>=0.9",
            "grimp>=3.4",  # the import graph
            "ipykernel",  # with nbclient and nbformat: the notebook is run
            "jinja2",
            "nbclient",
            "nbformat",
            "onnx>=1.17",
            "onnxruntime>=1.19",
            "playwright",  # drives the system's Chromium; it downloads none
            "pytest>=8",
            "pytest-xdist>=3.6",
            "resnest==0.0.5",  # the official classification models, to compare with
            "ruff==0.17.6",
            "timm>=1.0",
            "twine>=6.1",
        ],
    },
    entry_points={"console_scripts": ["resnest-d2 = resnest_d2_command:main"]},
    classifiers=[
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
