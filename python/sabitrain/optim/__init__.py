"""Optimizers, the learning rate, and the guard that decides which steps are taken."""
