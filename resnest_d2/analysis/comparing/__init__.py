"""Two models on the same data: gains of their runs, at equal cost too, with intervals.

What a run is and how it is read belongs one floor up.
"""
