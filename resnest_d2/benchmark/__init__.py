"""Measurements. Functions return values; tools print them."""

from .costs import count_multiply_adds, count_params
from .environment import describe_environment
from .evaluation import EvaluationComparison, compare_evaluators, draw_results
from .latency import LatencyComparison, compare_latency, measure_latency

__all__ = [
    "EvaluationComparison",
    "LatencyComparison",
    "compare_evaluators",
    "compare_latency",
    "count_multiply_adds",
    "count_params",
    "describe_environment",
    "draw_results",
    "measure_latency",
]
