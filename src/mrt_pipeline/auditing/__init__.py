"""Traces of any model, as text: read, measured, and told how well they use their thinking."""
