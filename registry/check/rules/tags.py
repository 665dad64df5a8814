"""tag_lost, tag_false: AITER knows a layout only by the Python attribute ``is_shuffled``, and attributes get lost."""

from __future__ import annotations

from collections.abc import Iterator

from preshuffle.registry.base.versions import version_key
from preshuffle.registry.check.deployment.evidence import Look
from preshuffle.registry.check.deployment.observed_layer import WEIGHTS, Seen
from preshuffle.registry.values.finding import Finding

_ROUTES = (
    "AITER looks at w13's and w2's tags together to pick a kernel (Opus needs both, CK's stages look at their own), "
    "so a lost tag picks a kernel for plain bytes"
)


_TAG = "tag_"
"""The book's features by layout: since when AITER's function for it sets the tag."""


def tag_lost(look: Look) -> Iterator[Finding]:
    """Laid-out bytes need ``is_shuffled`` on the very object that the kernel gets."""
    if "aiter" not in look.readers():
        return
    for role in WEIGHTS:
        seen = look.scene.tensors.get(role)
        if seen is None or seen.layout is None or not seen.laid_out:
            continue
        if seen.what.is_shuffled is False and _tags_exist(look, seen):
            yield Finding.of(
                "tag_lost",
                f"bytes are {seen.layout.id}, but the object that the kernel gets has no is_shuffled: {_ROUTES}",
                role=role,
                expected="is_shuffled=True",
                actual="is_shuffled=False",
                fix=f"set {role}.is_shuffled = True after the last .view(), .data assignment or Parameter(); "
                "preshuffle.layouts.retag does it",
            )


def _tags_exist(look: Look, seen: Seen) -> bool:
    """Whether AITER's own functions for this layout and w13's set the tag in this version (unknown versions do).

    w2's bytes do not say which function made them, so where w13's layout is unknown every function must set it.
    """
    version = look.scene.query.aiter
    w13 = look.scene.tensors.get("w13_weight")
    features = look.scene.book.features
    if w13 is None or w13.layout is None:
        names = [name for name in features if name.startswith(_TAG)]
    else:
        names = [
            name
            for name in (f"{_TAG}{layout.id}" for layout in (seen.layout, w13.layout) if layout)
            if name in features
        ]
    since = [version_key(features[name].since) for name in names]
    return version is None or all(version_key(version) >= key for key in since)


def tag_false(look: Look) -> Iterator[Finding]:
    """Plain bytes must not carry the tag: kernels for laid-out bytes would read them."""
    if look.readers() == {"own"}:
        return
    for role in WEIGHTS:
        seen = look.scene.tensors.get(role)
        if seen is not None and seen.plain and seen.what.is_shuffled:
            yield Finding.of(
                "tag_false",
                "bytes are plain, but is_shuffled says that they are laid out: AITER's kernels will read tiles",
                role=role,
                expected="is_shuffled=False",
                actual="is_shuffled=True",
                fix=f"lay {role} out, or set is_shuffled to False; test the tag's value, not hasattr()",
            )
