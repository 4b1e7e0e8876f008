"""The version, read by `resnest_d2` and, without importing it, by setup.py."""

__version__ = "0.1.0"
