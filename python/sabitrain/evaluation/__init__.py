"""Scores of held-out targets, what they are compared with, and greedy answers."""
