"""AWQ and dense models, with adapters, in this process."""
