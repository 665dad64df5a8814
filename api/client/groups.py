"""Groups of a report from observations of single layers."""

from __future__ import annotations

from collections.abc import Mapping

from preshuffle.api.fleet import Group
from preshuffle.registry.base.ranges import merge_ranges, range_text
from preshuffle.registry.values.decision import Decision
from preshuffle.registry.values.observation import Observation


def group_layers(
    observations: Mapping[int, Observation], decisions: Mapping[int, Decision] | None = None
) -> tuple[Group, ...]:
    """Return one group for each set of layers that were observed alike.

    Args:
        observations: by number of the layer, counted from 0.
        decisions: that the layers followed, so that drift is measured from them.

    Raises:
        pydantic.ValidationError: a number is not one of a layer.

    Example:
        >>> from preshuffle.registry import Query
        >>> seen = Observation(query=Query(model="openai/gpt-oss-120b", arch="gfx950"))
        >>> [group.layers for group in group_layers({0: seen, 1: seen, 3: seen})]
        ['0-1,3']
    """
    digests = {layer: decision.decision_digest for layer, decision in (decisions or {}).items()}
    layers_by_key: dict[tuple[str, str | None], list[int]] = {}
    for layer, observation in sorted(observations.items()):
        # what is left out is unknown, so it is not the same as a default that was observed
        key = observation.model_dump_json(exclude_unset=True), digests.get(layer)
        layers_by_key.setdefault(key, []).append(layer)
    return tuple(
        Group(layers=_layers(layers), observation=observations[layers[0]], decision_digest=digest)
        if digest
        else Group(layers=_layers(layers), observation=observations[layers[0]])
        for (_, digest), layers in layers_by_key.items()
    )


def _layers(numbers: list[int]) -> str:
    return ",".join(range_text(first, last) for first, last in merge_ranges((number, number) for number in numbers))
