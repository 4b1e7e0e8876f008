"""Measurements. Functions return values; tools print them."""

from .costs import count_multiply_adds, count_params
from .distributed import (
    Cluster,
    ProcessTimes,
    all_reduce_seconds,
    expected_slowest,
    latency_seconds,
    measure_processes,
    step_seconds,
)
from .environment import describe_environment
from .evaluation import EvaluationComparison, compare_evaluators, draw_results
from .exported import measure_exported
from .latency import LatencyComparison, alternate, compare_latency, measure_latency
from .measure import Measurement, measure
from .part_times import part_times
from .peak_memory import peak_memory, saved_memory
from .run_costs import RunCost, measure_runs
from .scaling import QUANTITIES, Scaling, measure_scaling, scaling_of_processes
from .subjects import SETTINGS, SOURCES, Subject
from .tables import measurement_table, part_table, process_table, scaling_table

__all__ = [
    "SETTINGS",
    "SOURCES",
    "QUANTITIES",
    "Cluster",
    "EvaluationComparison",
    "LatencyComparison",
    "Measurement",
    "ProcessTimes",
    "RunCost",
    "Scaling",
    "Subject",
    "all_reduce_seconds",
    "alternate",
    "compare_evaluators",
    "compare_latency",
    "count_multiply_adds",
    "count_params",
    "describe_environment",
    "draw_results",
    "expected_slowest",
    "latency_seconds",
    "measure",
    "measure_exported",
    "measure_latency",
    "measure_processes",
    "measure_runs",
    "measure_scaling",
    "measurement_table",
    "part_table",
    "part_times",
    "peak_memory",
    "process_table",
    "saved_memory",
    "scaling_of_processes",
    "scaling_table",
    "step_seconds",
]
