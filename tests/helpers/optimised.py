"""AP of a trained run as it is and optimised for inference."""

import os
from pathlib import Path

import torch

from resnest_d2 import Predictor, optimize_for_inference
from resnest_d2.data import register_coco
from resnest_d2.engine import Trainer

ALLOWED = {torch.float32: 0.01, torch.bfloat16: 0.3}  # AP


def check_optimised_ap(
    run: Path, json_file: str | os.PathLike, images: str | os.PathLike, output_dir: Path
) -> None:
    """The optimised model's AP is the eager one's, within what its dtype allows."""
    predictor = Predictor(run, score_threshold=None, device="cpu")
    cfg = predictor.cfg.clone()
    cfg.defrost()
    cfg.DATASETS.TEST = (register_coco(json_file, images),)
    cfg.OUTPUT_DIR = str(output_dir)

    def evaluate(model: torch.nn.Module) -> dict[str, float]:
        results = Trainer.test(cfg, model)
        return {task: results[task]["AP"] for task in ("bbox", "segm")}

    eager = evaluate(predictor.model)
    print(f"AP of {run.name}: eager {eager}")
    assert min(eager.values()) > 40  # of a model that detects something
    for dtype, allowed in ALLOWED.items():
        optimised = evaluate(optimize_for_inference(predictor.model, dtype=dtype))
        print(f"AP of {run.name}: optimised, {dtype}: {optimised}")
        for task, ap in eager.items():
            assert abs(optimised[task] - ap) <= allowed, (dtype, task)
