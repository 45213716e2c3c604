"""Architectures: one table of them, one file each, and what all of them share."""
