"""Measurements. Functions return values; tools print them."""

from .environment import describe_environment
from .latency import LatencyComparison, compare_latency

__all__ = ["LatencyComparison", "compare_latency", "describe_environment"]
