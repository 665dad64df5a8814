"""Arguments of kernel functions for laid-out layers."""

from preshuffle.layouts.calls.call_arguments import call_arguments, kernel_view

__all__ = ["call_arguments", "kernel_view"]
