"""Rows, batches, masking strategies, and what a run reads them from."""
