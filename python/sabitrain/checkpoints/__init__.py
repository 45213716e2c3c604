"""The run folder and its checkpoints: all that a run goes on from."""
