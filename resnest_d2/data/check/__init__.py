"""What is wrong with a COCO data set, and what of it is mended, repaired or left out.

Nothing here registers a data set or reads images for training.
"""
