"""``resnest-d2 doctor``: what works in this Python and, beside what does not, the remedy.

It stands beside ``resnest_d2``, not in it, because importing that package imports Detectron2, which
is the very thing that fails in the environments to be diagnosed. So nothing here needs more than
the standard library: whatever may fail, crash or hang is tried in a child process
(:mod:`~resnest_d2_command.doctor.probes`), and the rest is read from files and from metadata.
"""

from .doctor.findings import Check
from .entry import command, diagnose

__all__ = ["Check", "command", "diagnose"]
