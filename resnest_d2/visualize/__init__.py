"""Pictures and tables of what a model learned."""

from .curves import plot_losses
from .predictions import draw_comparison, draw_instances, save_comparisons
from .table import ap_table

__all__ = ["ap_table", "draw_comparison", "draw_instances", "plot_losses", "save_comparisons"]
