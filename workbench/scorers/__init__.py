"""Scorers: one file per family."""
