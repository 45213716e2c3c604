"""Architectures, one file each and one table of them, and what all models share."""
