"""Rules on AITER's ``is_shuffled`` attribute, which re-wrapping a tensor drops.

Codes: tag_lost, tag_false.
"""

from __future__ import annotations

from collections.abc import Iterator

from preshuffle.registry.base.versions import version_key
from preshuffle.registry.check.deployment.evidence import Evidence
from preshuffle.registry.layer import WEIGHTS, ObservedTensor
from preshuffle.registry.values.finding import Finding

_ROUTES = (
    "AITER reads w13's and w2's tags together to pick a kernel (Opus needs both, CK's stages read their own), "
    "so a lost tag picks a kernel for plain bytes"
)


_TAG = "tag_"
"""Prefix of features: AITER's function for a layout sets the tag."""


def tag_lost(evidence: Evidence) -> Iterator[Finding]:
    """Yield laid-out weights without AITER's ``is_shuffled`` tag."""
    if "aiter" not in evidence.readers():
        return
    for role in WEIGHTS:
        tensor = evidence.layer.tensors.get(role)
        if tensor is None or tensor.layout is None or not tensor.laid_out:
            continue
        if tensor.observation.is_shuffled is False and _tags_exist(evidence, tensor):
            yield Finding.of(
                "tag_lost",
                f"bytes are {tensor.layout.id}, but the object that the kernel gets has no is_shuffled: {_ROUTES}",
                role=role,
                expected="is_shuffled=True",
                actual="is_shuffled=False",
                fix=f"set {role}.is_shuffled = True after the last .view(), .data assignment or Parameter(); "
                "preshuffle.layouts.retag does it",
            )


def _tags_exist(evidence: Evidence, tensor: ObservedTensor) -> bool:
    """Return whether AITER's functions set the tag in this version.

    Those for this layout and for w13's count; unknown versions set it.

    w2's bytes do not say which function made them, so where w13's layout is unknown every function must set it.
    """
    version = evidence.layer.query.aiter
    w13 = evidence.layer.tensors.get("w13_weight")
    features = evidence.layer.book.features
    if w13 is None or w13.layout is None:
        names = [name for name in features if name.startswith(_TAG)]
    else:
        names = [
            name
            for name in (f"{_TAG}{layout.id}" for layout in (tensor.layout, w13.layout) if layout)
            if name in features
        ]
    since = [version_key(features[name].since) for name in names]
    return version is None or all(version_key(version) >= key for key in since)


def tag_false(evidence: Evidence) -> Iterator[Finding]:
    """Yield plain weights that carry AITER's ``is_shuffled`` tag."""
    if evidence.readers() == {"own"}:
        return
    for role in WEIGHTS:
        tensor = evidence.layer.tensors.get(role)
        if tensor is not None and tensor.plain and tensor.observation.is_shuffled:
            yield Finding.of(
                "tag_false",
                "bytes are plain, but is_shuffled says that they are laid out: AITER's kernels will read tiles",
                role=role,
                expected="is_shuffled=False",
                actual="is_shuffled=True",
                fix=f"lay {role} out, or set is_shuffled to False; test the tag's value, not hasattr()",
            )
