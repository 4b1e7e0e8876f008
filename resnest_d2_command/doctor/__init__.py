"""``resnest-d2 doctor``: checks the environment and shows a remedy for each problem.

Only the standard library is imported here, because importing ``resnest_d2`` or Detectron2 may be
what fails. Whatever may fail, crash or hang runs in a child process (:mod:`.probes`); everything
else is read from files and metadata.
"""
