"""What AITER's dispatch does in each version, from the book."""
