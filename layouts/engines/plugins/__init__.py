"""Plugins of inference engines: compare their conversions, or replace them."""

from preshuffle.layouts.engines.plugins.hook import EngineHook
from preshuffle.layouts.engines.plugins.install import VARIABLE, install

__all__ = ["VARIABLE", "EngineHook", "install"]
