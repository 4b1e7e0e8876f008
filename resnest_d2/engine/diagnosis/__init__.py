"""Reports and messages about a run: start-up report, memory, failures and their replay.

Nothing here changes how a run trains.
"""
