"""Data sets of each file format, checked and registered with Detectron2."""
