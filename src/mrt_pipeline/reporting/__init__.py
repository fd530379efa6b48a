"""Figures, tables and readable traces."""
