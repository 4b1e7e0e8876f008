"""The ``resnest-d2`` command: its entry point, the arguments of all commands, and ``doctor``.

It stands beside ``resnest_d2``, not in it: importing that package imports PyTorch and Detectron2,
for which ``--help`` must not wait, and whose import is what fails in the environments that
``doctor`` is for. So nothing here needs more than the standard library. What a command does is in
``resnest_d2.cli``.
"""

from .entry import main

__all__ = ["main"]
