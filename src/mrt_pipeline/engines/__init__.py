"""Sampling and scoring tokens."""
