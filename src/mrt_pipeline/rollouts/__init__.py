"""Traces of a policy, and their labels."""
