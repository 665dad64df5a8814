"""Plan of a run: layers, decisions, files."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from preshuffle.layouts.checkpoint import Checkpoint, CheckpointError
from preshuffle.layouts.laid_out.files.manifest import LayerPlan, rank_file
from preshuffle.layouts.laid_out.runs.parameter_names import parameter_names, parameter_prefix
from preshuffle.layouts.laid_out.runs.stored_values import check_stored_values
from preshuffle.layouts.loader import check_findings
from preshuffle.layouts.stamps import Loss
from preshuffle.registry import Decision, Query, Registry
from preshuffle.registry.base.frozen import FrozenDict
from preshuffle.registry.base.words import BITS, Role
from preshuffle.registry.entries import CheckpointTensor
from preshuffle.registry.resolve import LayoutDecision
from preshuffle.registry.values.finding import FindingCode


@dataclass(frozen=True, slots=True)
class RankLayer:
    """One layer of one rank: file and independent unit of work.

    Attributes:
        plan: of the layer.
        decision: what is applied.
    """

    layer: int
    tp_rank: int
    ep_rank: int
    plan: LayerPlan
    decision: Decision

    @property
    def file(self) -> str:
        """Name of its file."""
        return rank_file(self.layer, self.tp_rank, self.ep_rank)

    @property
    def nbytes(self) -> int:
        """Bytes of its laid-out tensors, about."""
        decided = self.decision.tensors.values()
        return sum(prod(one.physical_shape) * BITS[one.dtype] // 8 for one in decided)

    def key(self, digests: Mapping[str, str]) -> str:
        """Return the key of everything that decides the file's bytes.

        Args:
            digests: of the shards that hold the layer, by name.
        """
        return self.plan.key_of(self.layer, self.tp_rank, self.ep_rank, digests)


@dataclass(frozen=True)
class RunPlan:
    """Plan of a whole checkpoint.

    Attributes:
        plans: by decision.
        layers: plan and decision of each MoE layer.
        inherited: by layer and role, what the stored tensors had lost before they are read (of a conversion).
    """

    checkpoint: Checkpoint
    plans: tuple[LayerPlan, ...]
    layers: Mapping[int, tuple[LayerPlan, Decision]]
    inherited: Mapping[tuple[int, str], tuple[Loss, ...]] = field(default_factory=dict)
    _files: dict[int, tuple[Path, ...]] = field(default_factory=dict, repr=False, compare=False)

    @staticmethod
    def of(checkpoint: Checkpoint, fields: Mapping[str, Any], allow: Collection[FindingCode] = ()) -> RunPlan:
        """Decide every layer.

        Args:
            checkpoint: whose.
            fields: of the query, beside what the configuration says.
            allow: codes of error findings with which a decision is applied all the same.

        Raises:
            NoRecipeError: no rule answers.
            QueryError: a field is wrong, or the sizes cannot be cut between the ranks.
            LayoutError: a decision carries an error that is not allowed.
            CheckpointError: the checkpoint lacks what a decision needs, or has no MoE layer; or an engine quantizes the
                weights while it loads them.
        """
        if not checkpoint.experts:
            raise CheckpointError(f"{checkpoint.folder}: no layer has experts: there is nothing to lay out")
        found: dict[LayerPlan, list[int]] = {}
        decisions: dict[LayerPlan, Decision] = {}
        for layer in checkpoint.experts:
            registry, entries = checkpoint.registry, checkpoint.experts[layer]
            query = registry.query_from_hf_config(checkpoint.config, layer=layer, **fields)
            decision = registry.resolve(query)
            plan = plan_of(registry, query, decision, entries, checkpoint.routed)
            if plan not in found:
                check_stored_values(checkpoint, layer, query, decision)
                check_findings(decision, allow)
                _check_roles(checkpoint, layer, decision)
            found.setdefault(plan, []).append(layer)
            decisions[plan] = decision
        plans = {plan: plan.model_copy(update={"layers": tuple(layers)}) for plan, layers in found.items()}
        layers = {layer: (plans[plan], decisions[plan]) for plan, numbers in found.items() for layer in numbers}
        return RunPlan(checkpoint, tuple(plans.values()), dict(sorted(layers.items())))

    @property
    def ranks(self) -> tuple[int, int]:
        """Tensor-parallel and expert-parallel size."""
        query = self.plans[0].query
        return query.tp, query.ep

    def units(self) -> Iterator[RankLayer]:
        """Yield every unit of work, layer by layer."""
        tp, ep = self.ranks
        for layer, (plan, decision) in self.layers.items():
            for ep_rank in range(ep):
                for tp_rank in range(tp):
                    yield RankLayer(layer, tp_rank, ep_rank, plan, decision)

    def names_of(self, layer: int) -> set[str]:
        """Return the checkpoint's tensors that a layer's units read."""
        return {name for role in self.layers[layer][0].entries for name in self.names_of_role(layer, role)}

    def names_of_role(self, layer: int, role: Role) -> set[str]:
        """Return the checkpoint's tensors of one role."""
        return set(self.layers[layer][0].flat_names(role, layer))

    def files_of(self, layer: int) -> list[Path]:
        """Return the shards that hold a layer, in order.

        They are found once for all ranks.

        Raises:
            CheckpointError: a tensor is in no shard.
        """
        if layer not in self._files:
            shards, names = self.checkpoint.shards, self.names_of(layer)
            missing = sorted(name for name in names if name not in shards)
            if missing:
                raise CheckpointError(f"{self.checkpoint.folder}: tensor {missing[0]} is in no shard")
            self._files[layer] = tuple(sorted({shards[name] for name in names}))
        return list(self._files[layer])


def plan_of(
    registry: Registry,
    query: Query,
    decision: Decision | LayoutDecision,
    entries: Mapping[Role, CheckpointTensor],
    routed: int | None,
) -> LayerPlan:
    """Return the plan of one decision's layers, which are not listed yet.

    Args:
        registry: whose book says how engines cut and name.
        query: what is wanted.
        decision: the answer to it.
        entries: how the checkpoint stores each role.
        routed: how many routed experts it has.

    Raises:
        QueryError: the sizes cannot be cut between the ranks.
    """
    cut = registry.loader_cut(query)
    cut.shards(query)
    names = parameter_names(registry.book, query, decision.recipe)
    return LayerPlan(
        layers=(), query=query, recipe=decision.recipe, decision_digest=decision.decision_digest, shard=cut.shard,
        pad=cut.pad, routed=routed, entries=FrozenDict(entries), prefix=parameter_prefix(entries),
        parameters=FrozenDict(names),
        layouts=FrozenDict({role: one.layout for role, one in decision.tensors.items()}),
        pads=FrozenDict({role: (one.pad.rows, one.pad.k) for role, one in decision.tensors.items()}),
    )  # fmt: skip


def _check_roles(checkpoint: Checkpoint, layer: int, decision: Decision) -> None:
    """Check that the checkpoint has the roles that a decision needs, and no other.

    Raises:
        CheckpointError: names what is missing and what is too much.
    """
    stored: set[Role] = set(checkpoint.experts[layer])
    dynamic = not any(role.endswith("_input_scale") for role in stored)
    missing = [
        role for role in decision.tensors if role not in stored and not (dynamic and role.endswith("_input_scale"))
    ]
    extra = [role for role in stored if role not in decision.tensors and not role.endswith("_input_scale")]
    if missing or extra:
        text = "; ".join(
            f"{what}: {', '.join(roles)}"
            for what, roles in (("missing", missing), ("not part of the decision", extra))
            if roles
        )
        raise CheckpointError(
            f"{checkpoint.folder}: the tensors of layer {layer} do not fit recipe {decision.recipe}; {text}"
        )


def why_joined(role: Role, entry: CheckpointTensor) -> str | None:
    """Return how reading a role keeps less than is stored, or None.

    Of gate's and up's input scales it keeps the larger, and a scale's own scale becomes part of it.
    """
    if entry.second is not None:
        return "multiplied by a second scale"
    return "the larger of two" if role.endswith("_input_scale") and entry.up is not None else None
