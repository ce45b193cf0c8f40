"""The texts of the prompt sets, and how their rows are made; ``scripts/make_datasets.py`` writes the files."""
