"""Pictures of layouts and kernels: what they show, in words and as SVG."""
