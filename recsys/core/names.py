"""What columns of encoded rows, and tensors at the border, are called beside a feature's own name."""

LENGTHS_SUFFIX = "__lengths"
"""After a multi-valued feature's name: the border tensor of how many values each row has."""

WEIGHT = "__weight__"
"""Column of encoded rows and of predictions: how many rows each counts as; there is none where all count alike."""

WEIGHTS_SUFFIX = "__weights"
"""After a multi-valued feature's name: the border tensor, and the column of encoded rows, of its values' weights."""
