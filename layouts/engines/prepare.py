"""Whole integration of an engine's layer in one call."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

from preshuffle.layouts.calls import call_arguments
from preshuffle.layouts.engines.environment import observe_here
from preshuffle.layouts.engines.layer_query import LayerQuery, query_of_layer
from preshuffle.layouts.engines.observed_call import ObservedCall
from preshuffle.layouts.engines.observed_layer import observe_layer
from preshuffle.layouts.engines.process_environment import (
    EnvironmentDifference,
    OnDifference,
    environment_differences,
    settle,
)
from preshuffle.layouts.engines.shipped_books import registry_here
from preshuffle.layouts.loader import ApplyResult, Target, apply
from preshuffle.registry import Decision, Observation, Query, Registry, Report
from preshuffle.registry.values.finding import FindingCode


@dataclass(frozen=True, slots=True)
class PreparedLayer:
    """A layer that was laid out, ready to be called and reported.

    Attributes:
        decision: what was decided and applied.
        applied: what ``apply`` did, and where AITER's functions gave other bytes.
        layer_query: the query, and the layer's place among the ranks.
        differences: what this process's environment has otherwise than the decision needs.
        report: what the registry says of the bytes; of the call nothing is known before it is made.
    """

    layer: Target = field(repr=False)
    decision: Decision
    applied: ApplyResult
    layer_query: LayerQuery
    differences: tuple[EnvironmentDifference, ...]
    report: Report
    registry: Registry = field(repr=False)

    @property
    def query(self) -> Query:
        """The layer's query."""
        return self.layer_query.query

    def kwargs(
        self,
        function: str | None = None,
        *,
        aiter: str | None = None,
        version: str | None = None,
        parameters: Collection[str] | None = None,
    ) -> dict[str, Any]:
        """Return what to pass to a function, tensors and scalars.

        All but tokens and their experts.

        Args:
            function: a signature of the book; the one that the layer's engine calls by default.
            aiter: AITER's version; the query's by default.
            version: the engine's; the query's by default.
            parameters: names that the function at hand takes; they count before its version.

        Raises:
            LayoutError: the function runs something else, or has no argument for what the call needs.
        """
        engine = self.query.engine
        return call_arguments(
            self.layer,
            self.decision,
            function=function or self.layer_query.function,
            aiter=aiter or self.query.aiter,
            version=version or (engine.version if engine is not None else None),
            parameters=parameters,
            registry=self.registry,
        )

    def observation(
        self, call: ObservedCall | Mapping[str, Any] | None = None, function: str = "aiter.fused_moe"
    ) -> Observation:
        """Return what to report: live tensors, and a call.

        Args:
            call: named arguments of ``function``, or what ``observed_call`` read of them.
            function: the signature of the function that got them.
        """
        applied = observe_layer(self.layer, call=call, query=self.query, function=function, registry=self.registry)
        return Observation(query=self.query.altered(**applied.query_fields), applied=applied)

    def check(self, call: ObservedCall | Mapping[str, Any], function: str = "aiter.fused_moe") -> Report:
        """Return what the registry says of a call of this layer."""
        return self.registry.check(self.observation(call, function))


def prepare(
    layer: Target,
    *,
    engine: str | None = None,
    model: str | None = None,
    config: object = None,
    decision: Decision | None = None,
    on_environment: OnDifference = "refuse",
    environment: Mapping[str, str] | None = None,
    again: Literal["refuse", "skip"] = "refuse",
    pads: Literal["refuse", "overwrite"] | None = None,
    allow: Collection[FindingCode] = (),
    registry: Registry | None = None,
    **fields: Any,
) -> PreparedLayer:
    """Decide, lay out, tag, stamp and check a loaded layer.

    The process's environment is compared with what the decision needs.

    Parameters stay parameters, with their weight loaders; addresses stay where a tensor has its physical size.

    Args:
        layer: a module of the engine's with its weights loaded, as the checkpoint has them; or a dict of tensors.
        engine: ``vllm``, or with its version ``vllm@0.33.0``; an engine that this process has imported says its own.
        model: a Hugging Face id or a name of your own; else ``config`` says it.
        config: the engine's configuration object.
        decision: what to apply; decided from the layer's query by default.
        on_environment: what to do where the process has another environment than the decision needs: ``refuse``, only
            ``tell`` it in the result, or ``set`` what can still be set.
        environment: of the process; ``os.environ`` by default.
        again: as for ``apply``.
        pads: as for ``apply``; by default ``refuse``, and ``overwrite`` where the engine is known to leave pads unset.
        allow: codes of error findings with which the decision is applied all the same.
        registry: whose book decides; the packaged one with all that installed engines ship by default.
        fields: of the query, which count before what is found here (``arch``, ``cu_num``, ``aiter``, …).

    Raises:
        NoRecipeError: no rule answers the layer's query.
        LayoutError: the environment differs, or the tensors are not what the decision says; nothing was changed.
        QueryError: the model is not named, or a field is wrong.

    Example:
        >>> import torch
        >>> layer = {"w13_weight": torch.zeros(2, 256, 128, dtype=torch.bfloat16),
        ...          "w2_weight": torch.zeros(2, 128, 128, dtype=torch.bfloat16)}
        >>> ready = prepare(layer, model="acme/moe", arch="gfx950", weight_dtype="bf16", quant_type="No",
        ...                 activation="Silu", hidden_size=128, intermediate_size=128, top_k=1, gate_up_order="GGUU")
        >>> ready.report.verdict, ready.kwargs()["w1"].is_shuffled
        ('ok', True)
    """
    registry = registry or registry_here()
    process = os.environ if environment is None else environment
    here = observe_here(engine=engine, environment=process, registry=registry)
    named = here.pop("engine", engine)
    if fields.get("aiter", here.get("aiter")) != here.get("aiter"):
        here.pop("aiter_features", None)  # what was probed is another AITER's
    known = {**here, **fields, "env": {**here.get("env", {}), **fields.get("env", {})}}
    found = query_of_layer(layer, engine=named, model=model, config=config, registry=registry, **known)
    decision = decision or registry.resolve(found.query)
    options = {name: value for name, value in found.query.env.items() if name.startswith("-")}
    differences = environment_differences(decision, registry.book, process, options)
    settle(differences, on_environment)
    last_rank = found.tp_rank is not None and found.query.tp > 1 and found.tp_rank == found.query.tp - 1
    pads = pads or ("overwrite" if found.unset_pads else "refuse")
    applied = apply(layer, decision, again=again, pads=pads, allow=allow, last_rank=last_rank)
    observation = Observation(query=found.query, applied=applied)
    return PreparedLayer(
        layer=layer,
        decision=decision,
        applied=applied,
        layer_query=found,
        differences=differences,
        report=_report(registry, observation),
        registry=registry,
    )


# Process-wide: a registry's book stays, and the layers of a model are alike.
@lru_cache(maxsize=64)
def _report(registry: Registry, observation: Observation) -> Report:
    return registry.check(observation)
