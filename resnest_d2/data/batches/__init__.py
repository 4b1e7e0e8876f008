"""From a data set's records to batches: mappers, augmentations, loaders, and their random numbers.

Reading an image file is one room below, in :mod:`..image_reader`.
"""
