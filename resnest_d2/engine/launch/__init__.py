"""Processes of a run: started here or by torchrun, stopped by signals, one training per folder.

What the processes do is not decided here.
"""
