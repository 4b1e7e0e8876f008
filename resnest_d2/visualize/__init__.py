"""Pictures and tables: what a model learned, which models there are."""

from .attention import (
    NO_ATTENTION,
    BlockAttention,
    ClassAttention,
    attention_by_class,
    image_attention,
    record_attention,
    save_attention,
)
from .benchmark import measurement_table, part_table, plot_measurements
from .curves import plot_losses
from .explain import plot_attention, plot_block, plot_class_attention, plot_saliency
from .predictions import draw_annotations, draw_comparison, draw_instances, save_comparisons
from .saliency import Saliency, check_saliency, explain_detection
from .scaling import plot_scalings, process_table, scaling_table
from .sheet import draw_sheet
from .table import ap_table
from .zoo import describe_model, describe_weights, model_table

__all__ = [
    "NO_ATTENTION",
    "BlockAttention",
    "ClassAttention",
    "Saliency",
    "ap_table",
    "attention_by_class",
    "check_saliency",
    "describe_model",
    "describe_weights",
    "draw_annotations",
    "draw_comparison",
    "draw_instances",
    "draw_sheet",
    "explain_detection",
    "image_attention",
    "measurement_table",
    "model_table",
    "part_table",
    "plot_attention",
    "plot_block",
    "plot_class_attention",
    "plot_losses",
    "plot_measurements",
    "plot_saliency",
    "plot_scalings",
    "process_table",
    "record_attention",
    "save_attention",
    "save_comparisons",
    "scaling_table",
]
