"""The HTML page about one or several runs: numbers from ``analysis``, charts from ``draw``."""

from .page import load_template, write_report

__all__ = ["load_template", "write_report"]
