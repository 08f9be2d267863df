"""Incremental learning for recommender systems: which update strategy is worth its cost."""

__version__ = "0.1.0"
