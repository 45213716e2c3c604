"""Architectures, one file each and one table of all, and the code that all models share."""
