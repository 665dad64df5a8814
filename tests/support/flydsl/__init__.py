"""A small FlyDSL kernel of our own, and its MLIR."""
