"""Live layers of inference engines: observed, prepared, and their calls guarded."""

from preshuffle.layouts.engines.environment import observe_here
from preshuffle.layouts.engines.observed_call import ObservedCall, observed_call
from preshuffle.layouts.engines.observed_layer import ObservedLayer, observe_layer

__all__ = ["ObservedCall", "ObservedLayer", "observe_here", "observe_layer", "observed_call"]
