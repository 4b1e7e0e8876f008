"""The ``resnest-d2`` command: its entry point, the arguments of all commands, and ``doctor``.

Nothing here imports more than the standard library, so that ``--help`` is fast and ``doctor`` runs
where PyTorch or Detectron2 cannot be imported. What the commands do is in ``resnest_d2.cli``.
"""

from .entry import main

__all__ = ["main"]
