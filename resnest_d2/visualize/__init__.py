"""Pictures and tables: what a model learned, which models there are."""

from .benchmark import measurement_table, part_table, plot_measurements
from .curves import plot_losses
from .predictions import draw_annotations, draw_comparison, draw_instances, save_comparisons
from .scaling import plot_scalings, process_table, scaling_table
from .sheet import draw_sheet
from .table import ap_table
from .zoo import describe_model, describe_weights, model_table

__all__ = [
    "ap_table",
    "describe_model",
    "describe_weights",
    "draw_annotations",
    "draw_comparison",
    "draw_instances",
    "draw_sheet",
    "measurement_table",
    "model_table",
    "part_table",
    "plot_losses",
    "plot_measurements",
    "plot_scalings",
    "process_table",
    "save_comparisons",
    "scaling_table",
]
