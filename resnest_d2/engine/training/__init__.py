"""The training loop: trainer, step, optimiser, hooks, metrics and log files.

Values are checked before, in ``prepare``; data and models are built by their own packages.
"""
