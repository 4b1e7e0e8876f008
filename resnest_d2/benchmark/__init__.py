"""Measurements. Functions return values; tools print them."""

from .costs import count_multiply_adds, count_params
from .environment import describe_environment
from .latency import LatencyComparison, compare_latency, measure_latency

__all__ = [
    "LatencyComparison",
    "compare_latency",
    "count_multiply_adds",
    "count_params",
    "describe_environment",
    "measure_latency",
]
