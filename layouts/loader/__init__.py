"""Apply a decision to a layer's tensors, and undo it."""
