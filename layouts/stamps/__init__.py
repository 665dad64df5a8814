"""Stamps: which layout the bytes of a tensor are in."""
