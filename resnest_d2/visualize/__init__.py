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
from .comparison import comparison_text, cost_table, gain_table, verdict
from .curves import plot_losses
from .explain import plot_attention, plot_block, plot_class_attention, plot_saliency
from .gains import plot_gains
from .predictions import (
    Mark,
    draw_annotations,
    draw_comparison,
    draw_instances,
    draw_marks,
    save_comparisons,
)
from .report import load_template, write_report
from .saliency import Saliency, check_saliency, explain_detection
from .scaling import plot_scalings, process_table, scaling_table
from .sheet import draw_sheet
from .study import Study, study_runs
from .table import ap_table
from .zoo import describe_model, describe_weights, model_table

__all__ = [
    "NO_ATTENTION",
    "BlockAttention",
    "ClassAttention",
    "Mark",
    "Saliency",
    "Study",
    "ap_table",
    "attention_by_class",
    "check_saliency",
    "comparison_text",
    "cost_table",
    "describe_model",
    "describe_weights",
    "draw_annotations",
    "draw_comparison",
    "draw_instances",
    "draw_marks",
    "draw_sheet",
    "explain_detection",
    "gain_table",
    "image_attention",
    "load_template",
    "measurement_table",
    "model_table",
    "part_table",
    "plot_attention",
    "plot_block",
    "plot_class_attention",
    "plot_gains",
    "plot_losses",
    "plot_measurements",
    "plot_saliency",
    "plot_scalings",
    "process_table",
    "record_attention",
    "save_attention",
    "save_comparisons",
    "scaling_table",
    "study_runs",
    "verdict",
    "write_report",
]
