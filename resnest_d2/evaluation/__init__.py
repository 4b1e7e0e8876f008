"""Evaluation: COCO metrics."""

from .coco import build_coco_evaluator, write_results

__all__ = ["build_coco_evaluator", "write_results"]
