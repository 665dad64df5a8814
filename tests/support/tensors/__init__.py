"""Small layers of tensors, and processes that lay them out."""
