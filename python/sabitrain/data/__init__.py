"""The datasets of a run, and their rows as batches with a masking strategy."""
