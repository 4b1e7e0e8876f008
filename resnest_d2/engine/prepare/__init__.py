"""From what a user asks for to a plan that every process follows. Nothing is trained here."""
