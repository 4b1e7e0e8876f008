"""Measurements. Functions return values; tools print them."""

from .costs import count_multiply_adds, count_params
from .environment import describe_environment
from .evaluation import EvaluationComparison, compare_evaluators, draw_results
from .latency import LatencyComparison, alternate, compare_latency, measure_latency
from .measure import Measurement, measure
from .memory import peak_memory, saved_memory
from .parts import part_times
from .subjects import SETTINGS, SOURCES, Subject

__all__ = [
    "SETTINGS",
    "SOURCES",
    "EvaluationComparison",
    "LatencyComparison",
    "Measurement",
    "Subject",
    "alternate",
    "compare_evaluators",
    "compare_latency",
    "count_multiply_adds",
    "count_params",
    "describe_environment",
    "draw_results",
    "measure",
    "measure_latency",
    "part_times",
    "peak_memory",
    "saved_memory",
]
