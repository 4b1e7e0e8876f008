"""Metrics as a Markdown table."""

import math

from tabulate import tabulate

__all__ = ["ap_table"]

_COLUMNS = ("AP", "AP50", "AP75", "APs", "APm", "APl")


def ap_table(results: dict[str, dict[str, float]]) -> str:
    """COCO metrics by task, 0-100, as Markdown; "–" where a number does not exist.

    Args:
        results: ``{"bbox": {"AP": …}, "segm": {…}}`` as evaluation returns it. Small, medium and
            large are COCO's: below 32 x 32, up to 96 x 96, above, in pixels.
    """

    def text(value) -> str:
        return "–" if value is None or math.isnan(value) else f"{value:.1f}"

    names = {"bbox": "boxes", "segm": "masks", "keypoints": "keypoints"}
    rows = [
        [names.get(task, task), *(text(metrics.get(column)) for column in _COLUMNS)]
        for task, metrics in results.items()
    ]
    headers = ["", "AP", "AP50", "AP75", "AP small", "AP medium", "AP large"]
    return tabulate(
        rows,
        headers,
        tablefmt="github",
        colalign=("left", *["right"] * 6),
        disable_numparse=True,  # the text is final
    )
