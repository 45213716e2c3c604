"""The record of a run, its console, TensorBoard and report."""
