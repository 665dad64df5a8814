"""Live layers of inference engines: observed, prepared, and their calls guarded."""

from preshuffle.layouts.engines.environment import observe_here
from preshuffle.layouts.engines.guard import CallGuard, WrongCallError, WrongCallWarning, guard_calls
from preshuffle.layouts.engines.layer_query import LayerQuery, query_of_layer
from preshuffle.layouts.engines.observed_call import ObservedCall, observed_call
from preshuffle.layouts.engines.observed_layer import ObservedLayer, observe_layer
from preshuffle.layouts.engines.prepare import PreparedLayer, prepare
from preshuffle.layouts.engines.process_environment import EnvironmentDifference
from preshuffle.layouts.engines.shipped_books import registry_here, shipped_books

__all__ = [
    "CallGuard",
    "EnvironmentDifference",
    "LayerQuery",
    "ObservedCall",
    "ObservedLayer",
    "PreparedLayer",
    "WrongCallError",
    "WrongCallWarning",
    "guard_calls",
    "observe_here",
    "observe_layer",
    "observed_call",
    "prepare",
    "query_of_layer",
    "registry_here",
    "shipped_books",
]
