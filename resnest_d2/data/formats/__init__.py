"""Data sets of each file format, registered with Detectron2.

A module for a format has a function that checks the files, registers a data set and returns its
name (``register_coco``, ``register_coco_panoptic``), and :mod:`resnest_d2.data` exports it. The
checks of COCO's format are in :mod:`..check`.
"""
