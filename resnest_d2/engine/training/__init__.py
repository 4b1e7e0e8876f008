"""The training loop: trainer, step, optimiser, hooks, what is written beside the checkpoints."""
