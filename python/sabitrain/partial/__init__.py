"""Partial training: the parameters that a run trains, and those that it leaves as they are."""
