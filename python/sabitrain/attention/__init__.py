"""Attention within documents: the one operation, its backends, and its self-check."""
