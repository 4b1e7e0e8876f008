"""``resnest-d2 doctor``: what works in this Python and, beside what does not, the remedy.

Importing ``resnest_d2`` imports Detectron2, which is the very thing that fails in the environments
to be diagnosed. So nothing here needs more than the standard library: whatever may fail, crash or
hang is tried in a child process (:mod:`.probes`), and the rest is read from files and metadata.
"""
