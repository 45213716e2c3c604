"""Scores of held-out targets, their baseline, and greedy answers."""
