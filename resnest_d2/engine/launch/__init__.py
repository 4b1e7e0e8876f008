"""The processes of a run: started here or by torchrun, stopped by signals, one run a folder."""
