"""Checks of COCO data sets, and the repair of what they find.

Nothing here registers a data set or reads images for training.
"""
