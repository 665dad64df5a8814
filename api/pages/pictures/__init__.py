"""Pictures of layouts and kernels, as words and as SVG."""
