"""Helpers of the tests: oracles, corpora, strategies, writers and forgers of datasets."""
