"""From a user's request to a plan that every process follows, with all checks and refusals.

Nothing is trained here, and no process is started.
"""
