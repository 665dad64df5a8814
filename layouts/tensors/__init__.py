"""dtypes, number formats and MXFP4 values of PyTorch tensors."""
