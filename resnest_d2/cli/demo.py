"""The demo: trains a small Mask R-CNN on the sample set, on the CPU, and draws its predictions."""

import shutil
from pathlib import Path

from ..data import sample_set
from ..draw.instances import save_comparisons
from ..draw.loss_curves import plot_losses
from ..engine import RunRequest, run
from ..evaluation import ap_table
from ..predict.predictor import Predictor

CONFIG = "sample_mask_rcnn_resnest14_fpn"


def run_demo(output_dir: str | Path = "output/demo", *, opts: tuple[str, ...] = ()) -> dict:
    """Train, evaluate and draw on the embedded sample set.

    Writes into ``output_dir``: ``results.md`` and ``results.json`` (AP), ``losses.png``,
    ``predictions/*.png`` (ground truth beside prediction on held-out images), and the run in
    ``run/`` (checkpoint, config, log). The run of an earlier demo is replaced.

    Args:
        opts: KEY VALUE pairs that override the sample config.

    Returns:
        ``{"bbox": {"AP": …}, "segm": {…}}``, AP on 0-100.
    """
    folder = Path(output_dir)
    run_dir, drawings = folder / "run", folder / "predictions"
    for old in (run_dir, drawings):
        shutil.rmtree(old, ignore_errors=True)
    data = sample_set()
    results = run(
        RunRequest(
            config=CONFIG,
            opts=(*opts, "OUTPUT_DIR", str(run_dir)),
            train=(data["train"],),
            val=(data["val"],),
            output_json=str(folder / "results.json"),
        )
    )
    table = ap_table(results)
    (folder / "results.md").write_text(table + "\n")
    plot_losses(run_dir / "metrics.json", folder / "losses.png")
    save_comparisons(Predictor(run_dir), data["val"], drawings, count=12)
    print(
        f"""
{table}

Your demo is in {folder}: results.md (the table above), losses.png, and predictions/ with
the ground truth beside the model's predictions on held-out images.

Next:
  detect the five shapes in your own images with this model:
    resnest-d2 predict IMAGE.png --checkpoint {run_dir} --out predictions
  train on your own COCO-format data:
    resnest-d2 train --config-file mask_rcnn_resnest50_fpn --train-json FILE --train-images DIR \\
        --val-json FILE --val-images DIR MODEL.WEIGHTS '' MODEL.BACKBONE.FREEZE_AT 0
  train on COCO: README.md, "COCO"
"""
    )
    return results
