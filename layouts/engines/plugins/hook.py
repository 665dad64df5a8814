"""Hook around an engine's conversions: shadow compares them, replace does them."""

from __future__ import annotations

import logging
import pkgutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import torch

from preshuffle.layouts.engines.environment import observe_here
from preshuffle.layouts.engines.layer_query import LayerQuery, query_of_layer
from preshuffle.layouts.engines.live_values import LiveObject
from preshuffle.layouts.engines.plugins.converters import LayerInHand, convert, obstacle, passed_arguments_of
from preshuffle.layouts.engines.plugins.first_calls import CallComparison, FirstCalls
from preshuffle.layouts.engines.plugins.model_load import ModelLoad, stage_of
from preshuffle.layouts.engines.plugins.sampled_experts import ExpertComparison, take_samples
from preshuffle.layouts.engines.plugins.sampled_rows import take_rows
from preshuffle.layouts.engines.plugins.shadow import LiveLayer, Samples, TensorStates, observe_converted, states_of
from preshuffle.layouts.engines.plugins.wrapping import Around
from preshuffle.layouts.engines.prepare import PreparedLayer, prepare
from preshuffle.layouts.loader import RoleTensors
from preshuffle.layouts.stamps import stamp_of
from preshuffle.registry import Decision, NoRecipeError, Observation, Query, Registry
from preshuffle.registry.base.words import Role
from preshuffle.registry.entries import ConversionFacts

log = logging.getLogger("preshuffle.plugins")


class EngineHook:
    """State of one engine's plugin in this process.

    Nothing of the plugin's own is raised into the engine, but for a layer that it has half replaced.

    Attributes:
        counts: of tensors: ``equal``, ``differs``, ``not compared``; of layers: ``layers``, ``replaced``, ``kept``,
            ``undecided``, ``called``, ``other calls``; and ``errors`` of the plugin.
        comparisons: the newest comparison of each layer, by its name.
        call_comparisons: likewise of its first call.
        calls: guards around AITER's functions.
        model_load: what is reported.
    """

    def __init__(self, engine: str, conversion: ConversionFacts, registry: Registry, *, replaces: bool) -> None:
        """Begin without layers.

        Args:
            engine: with its version, such as ``vllm@0.33.0``.
            conversion: where it converts its layers' weights.
            registry: whose book decides.
            replaces: whether layers are prepared instead of only compared.
        """
        self.counts: Counter[str] = Counter()
        self.comparisons: dict[str, tuple[ExpertComparison, ...]] = {}
        self.call_comparisons: dict[str, CallComparison] = {}
        self.model_load = ModelLoad(registry)
        here = observe_here(engine=engine, environment={}, registry=registry)
        self.calls = FirstCalls(registry, here, self._take_call, self._called_again)
        self._engine, self._conversion, self._registry, self._replaces = engine, conversion, registry, replaces
        self._loads = 0
        self._first_rank = True
        self._unreported_calls = 0
        self._active: set[int] = set()
        self._in_hand: dict[int, LayerInHand] = {}
        self._failed: set[str] = set()
        self._converted: WeakKeyDictionary[torch.nn.Module, TensorStates] = WeakKeyDictionary()
        self._early: dict[int, tuple[LiveLayer, Samples | None]] = {}
        self._seen_right: set[Query] = set()
        self._decisions: dict[Query, Decision | None] = {}
        self._lock = threading.RLock()

    def targets(self) -> Iterator[tuple[str, Around]]:
        """Yield what must be wrapped, with the function around it."""
        facts = self._conversion
        for module, classes in facts.classes.items():
            for name in classes:
                yield f"{module}.{name}.{facts.function}", self.around_conversion
        for target, path in facts.before.items():
            yield target, self._around_earlier_step(path)
        for target, names in facts.converters.items() if self._replaces else ():
            yield target, self._around_converter(names)
        yield facts.load, self.around_load

    def around_conversion(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Convert a layer: by the engine and compared, or by ``prepare``."""
        layer = next((one for one in (*args[1:2], kwargs.get("layer")) if isinstance(one, torch.nn.Module)), None)
        # a class's method calls its base's for the same layer, and engines convert what they have converted by nothing
        if layer is None or id(layer) in self._active or self._guarded(layer, lambda: self._is_converted(layer)):
            return original(*args, **kwargs)
        self._active.add(id(layer))
        try:
            early = self._early.pop(id(layer), None)
            found = early or self._guarded(layer, lambda: self._before(layer))
            if self._replaces and found is not None and self._is_replaced(args[0], found[0], early is not None):
                return None
            if self._replaces and found is not None and self._conversion.converters:
                self._in_hand[id(layer)] = LayerInHand.of(found[0])
            result = original(*args, **kwargs)
            if found is not None:
                self._guarded(layer, lambda: self._note_converter(found[0]))
                self._guarded(layer, lambda: self._after(*found))
            return result
        finally:
            self._active.discard(id(layer))
            self._in_hand.pop(id(layer), None)

    def around_load(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Load a model, and report its layers when that is done."""
        self._loads += 1
        try:
            result = original(*args, **kwargs)
        finally:
            self._loads -= 1
            self._early.clear()
        if not self._loads:
            self._guarded("the report", self._report)
        return result

    def _around_earlier_step(self, path: str) -> Around:
        """Return a function around a method that moves a layer's rows before its conversion."""

        def around(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            layer: Any = args[0]
            for name in path.split("."):
                layer = getattr(layer, name, None)
            if isinstance(layer, torch.nn.Module):
                found = self._guarded(layer, lambda: self._before(layer))
                if found is not None:
                    self._early[id(layer)] = found
            return original(*args, **kwargs)

        return around

    def _around_converter(self, names: Mapping[Role, str]) -> Around:
        """Return a function around one that only converts: it is done here where that is the same."""

        def around(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            arguments = self._guarded("a conversion", lambda: passed_arguments_of(original, args, kwargs)) or {}
            one = self._in_hand.get(id(arguments.get("layer")))
            if one is None:
                return original(*args, **kwargs)
            try:
                one.why_kept = obstacle(one, names, arguments)
                if one.why_kept is None and one.live.decision is not None:
                    with torch.no_grad(), _on_no_default_device():
                        pads = "overwrite" if one.live.found.unset_pads else "refuse"
                        return convert(one.live.decision, names, arguments, last_rank=one.live.is_last_rank, pads=pads)
            except Exception as error:
                if _has_moved(one.live.layer):
                    raise
                one.why_kept = f"{type(error).__name__}: {error}"
            return original(*args, **kwargs)

        return around

    def _note_converter(self, live: LiveLayer) -> None:
        """Count and log whether a layer was laid out here, in a function of the engine's."""
        one = self._in_hand.get(id(live.layer))
        if one is not None and one.why_kept is None:
            self.counts["replaced"] += 1
        elif one is not None:
            self.counts["kept"] += 1
            log.warning("%s: the engine's own conversion is kept: %s", live.name, one.why_kept)

    def _is_converted(self, layer: torch.nn.Module) -> bool:
        return layer in self._converted and self._converted[layer] == states_of(layer)

    def _before(self, layer: torch.nn.Module) -> tuple[LiveLayer, Samples | None]:
        """Decide what the layer's conversion should make of it, and copy samples."""
        with torch.no_grad(), _on_no_default_device():
            live = self._live(layer)
            if live.decision is None or (self._replaces and not self._conversion.converters):
                return live, None
            return live, self._samples(live, live.decision)

    def _samples(self, live: LiveLayer, decision: Decision) -> Samples:
        """Copy rows where the last layer of the kind was right; else whole experts, which name a wrong layout."""
        last = live.is_last_rank
        rows = take_rows(live.layer, decision, last_rank=last) if live.found.query in self._seen_right else None
        if rows is not None:
            return rows
        return take_samples(live.layer, decision, last_rank=last)

    def _live(self, layer: torch.nn.Module) -> LiveLayer:
        config = self._config()
        here = observe_here(engine=self._engine, registry=self._registry)
        engine = here.pop("engine", self._engine)
        found = query_of_layer(layer, engine=engine, config=config, registry=self._registry, **here)
        self._first_rank = self._first_rank and not found.tp_rank and not found.ep_rank
        return LiveLayer.of(layer, found, self._decide(found), self._conversion.name, len(self.comparisons))

    def _config(self) -> object:
        return pkgutil.resolve_name(self._conversion.config)()

    def _decide(self, found: LayerQuery) -> Decision | None:
        if found.query not in self._decisions:
            try:
                self._decisions[found.query] = self._registry.resolve(found.query)
            except NoRecipeError as error:
                log.warning("the registry decides nothing for these layers: %s", error)
                self._decisions[found.query] = None
        return self._decisions[found.query]

    def _after(self, live: LiveLayer, samples: Samples | None) -> None:
        """Compare what the engine made, and take it for the report."""
        with torch.no_grad(), _on_no_default_device():
            observation, compared = observe_converted(live, samples, self._registry)
        self._converted[live.layer] = states_of(live.layer)
        self.counts["layers"] += 1
        if live.decision is None:
            self.counts["undecided"] += 1
        self.counts.update(one.verdict for one in compared)
        is_wrong = any(one.verdict == "differs" for one in compared)
        (self._seen_right.discard if is_wrong else self._seen_right.add)(live.found.query)
        self.comparisons[live.name] = tuple(replace(one, laid_out=None) for one in compared)  # its memory is the GPU's
        for one in compared:
            if one.verdict == "differs":
                log.warning("%s: %s differs from the registry's: %s", live.name, one.role, "; ".join(one.reasons))
            elif one.verdict == "not compared":
                log.info("%s: %s was not compared: %s", live.name, one.role, "; ".join(one.reasons))
        self._take_layer(live, observation, None)

    def _report(self) -> None:
        counted = ", ".join(f"{number} {word}" for word, number in sorted(self.counts.items()))
        log.info("%s: %s", self._engine, counted or "no layers")
        stage = stage_of(self._conversion.pipeline)
        first = self._first_rank if self.model_load.observations or stage is None else stage.is_first_peer
        self.model_load.send(to_service=first, stage=stage)

    def _is_replaced(self, method: object, live: LiveLayer, moved: bool) -> bool:
        """Prepare a layer; return False where the engine must convert it.

        Raises:
            Exception: of ``prepare``, where the layer's bytes have moved: the engine would spoil them.
        """
        if self._conversion.converters:
            return False  # its methods do more: what only converts is replaced inside them
        why = self._obstacle(method, live, moved)
        if why is None:
            try:
                self._prepare(live)
                return True
            except Exception as error:
                if _has_moved(live.layer):
                    raise
                why = f"{type(error).__name__}: {error}"
        self.counts["kept"] += 1
        log.warning("%s: the engine's own conversion is kept: %s", live.name, why)
        return False

    def _prepare(self, live: LiveLayer) -> None:
        with torch.no_grad(), _on_no_default_device():
            ready = prepare(
                live.layer,
                engine=self._engine,
                config=self._config(),
                decision=live.decision,
                on_environment="tell",
                again="skip",
                registry=self._registry,
            )
        for one in ready.differences:
            log.warning("%s: %s", live.name, one)
        self.counts["replaced"] += 1
        self.comparisons[live.name] = ()
        self._guarded(live.layer, lambda: self._take_prepared(live, ready))

    def _take_prepared(self, live: LiveLayer, ready: PreparedLayer) -> None:
        self._take_layer(live, ready.observation(), ready.decision)

    def _take_layer(self, live: LiveLayer, seen: Observation, applied: Decision | None) -> None:
        """Take an observation for the report, and await the layer's first call."""
        self.model_load.add(live.number, seen, applied)
        self._guarded(live.layer, lambda: self.calls.expect(live.layer, live.name, live.number, seen, live.decision))
        if not self._loads:  # an engine's loader that the book does not name
            self._report()

    def _take_call(self, seen: CallComparison) -> None:
        """Log how a layer's first call differs, and report all calls when the last layer was called."""
        self._guarded(seen.layer.name, lambda: self._add_call(seen))

    def _add_call(self, seen: CallComparison) -> None:
        name = seen.layer.name
        self.call_comparisons[name] = seen
        self.counts["called"] += 1
        if seen.differences:
            self.counts["other calls"] += 1
            clauses = "; ".join(map(str, seen.differences))
            log.warning("%s: its call differs from the registry's: %s", name, clauses)
        self.model_load.observe_call(seen.layer.number, seen.observation)
        self._unreported_calls += 1
        if not self.calls.pending:
            self._called_again()

    def _called_again(self) -> None:
        """Report the calls seen so far: a layer that runs again shows that the model has run once."""
        if self._unreported_calls:
            self._unreported_calls = 0
            self._guarded("the report of calls", self._report)

    def _obstacle(self, method: object, live: LiveLayer, moved: bool) -> str | None:
        """Return why a layer is not replaced, or None."""
        names = {kind.__name__ for kind in type(method).__mro__}
        if not names & set(self._conversion.replaceable):
            return f"{type(method).__name__} makes more in it than the weights' layout"
        if moved:
            return "the model has moved its rows before"
        if live.decision is None:
            return "the registry decides nothing for it"
        errors = [one.code for one in live.decision.findings if one.severity == "error"]
        return f"the decision has errors: {', '.join(errors)}" if errors else None

    def _guarded(self, layer: object, work: Callable[[], Any]) -> Any:
        """Return what some work of the plugin returns; None, logged and counted, where it raises."""
        try:
            with self._lock:
                return work()
        except Exception:
            self.counts["errors"] += 1
            name = layer if isinstance(layer, str) else LiveObject(layer).fact(self._conversion.name)
            name = type(layer).__name__ if name is None else str(name)
            if name not in self._failed:
                self._failed.add(name)
                log.exception("%s: the plugin failed; the engine goes on", name)
            return None


def _has_moved(layer: torch.nn.Module) -> bool:
    """Return whether any of a layer's tensors is laid out, or broken half-way."""
    tensors = RoleTensors(layer)
    return any(stamp_of(tensor) is not None for tensor in tensors.values())


@contextmanager
def _on_no_default_device() -> Iterator[None]:
    """Leave the device on which the engine creates its tensors by default."""
    with torch.device("cpu"):
        yield
