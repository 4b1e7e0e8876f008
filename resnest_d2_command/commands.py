"""The names of the commands, and what each does."""

COMMANDS = {
    "train": "train a detector, or a model for segmentation or classification",
    "evaluate": "evaluate a checkpoint",
    "replay": "repeat the batch whose loss was not finite, and find the cause",
    "predict": "detect objects in images, or classify pixels or images, with a trained checkpoint",
    "explain": "draw the split attention for an image, and the saliency of a detection",
    "export": "write a checkpoint as one file that runs without Detectron2, and verify it",
    "data": "check, repair, split, count and show data sets",
    "zoo": "list the models, show one, or download weights",
    "convert": "rename weights between formats",
    "compare": "compare the metrics of runs, with confidence intervals and cost",
    "report": "write a page about runs: metrics, curves, mistakes, images",
    "study": "train groups of runs with several seeds, and compare the groups",
    "benchmark": "measure speed and memory of networks",
    "doctor": "check this environment, and show a remedy for each problem",
}


def describe(name: str) -> str:
    """What a command does, as a sentence."""
    return COMMANDS[name][0].upper() + COMMANDS[name][1:] + "."
