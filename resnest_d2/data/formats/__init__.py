"""Data sets of each file format, registered with Detectron2. Their checks are in :mod:`..check`."""
