"""What networks cost: parameters, multiply-adds, latency, memory. Text tables of these numbers.

Functions return values and print nothing. Charts are in ``draw``, AP is in ``evaluation``.
"""

from .costs import count_multiply_adds, count_params
from .distributed import ProcessTimes, measure_processes
from .environment import describe_environment
from .exported import measure_exported
from .latency import alternate, measure_latency
from .measure import Measurement, measure
from .part_times import part_times
from .peak_memory import peak_memory, saved_memory
from .run_costs import RunCost, measure_runs
from .scaling import QUANTITIES, Scaling, measure_scaling, scaling_of_processes
from .subjects import SETTINGS, SOURCES, Subject
from .tables import measurement_table, part_table, process_table, scaling_table

__all__ = [
    "QUANTITIES",
    "SETTINGS",
    "SOURCES",
    "Measurement",
    "ProcessTimes",
    "RunCost",
    "Scaling",
    "Subject",
    "alternate",
    "count_multiply_adds",
    "count_params",
    "describe_environment",
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
]
