"""Traces of a policy, their labels and their tables."""
