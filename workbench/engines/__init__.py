"""Engines: the one seam between the workbench and a model."""
