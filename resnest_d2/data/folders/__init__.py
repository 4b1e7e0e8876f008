"""Data sets that are folders: images with label maps, images in folders of classes.

For each, what is wrong with it, and its registration with Detectron2. Data sets with a JSON file
are in ``formats/``.
"""
