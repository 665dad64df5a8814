"""Guard around a fused MoE: wrong bytes are found in time."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, Protocol, TypeVar, cast

import torch

from preshuffle.layouts.engines.environment import observe_here
from preshuffle.layouts.engines.guarded_call import CallChecker
from preshuffle.layouts.engines.prepare import PreparedLayer
from preshuffle.layouts.engines.shipped_books import registry_here
from preshuffle.registry import Finding, PreshuffleError, Query, Registry
from preshuffle.registry.base.words import ROLES
from preshuffle.registry.kernels import Signature

Result = TypeVar("Result")
Returned = TypeVar("Returned", covariant=True)
Key = tuple[int, int, object, object]
"""Address of w13, number of tokens, gate_mode as passed, and AITER's tag on the object."""
_MOST_KEYS = 1 << 16
"""Calls that are remembered as they were; beyond that only their buckets are."""


class WrongCallError(PreshuffleError, RuntimeError):
    """A call whose kernel expects bytes to lie otherwise."""

    def __init__(self, findings: tuple[Finding, ...]) -> None:
        """Keep the findings; the text has one line for each."""
        self.findings = findings
        super().__init__("\n".join(f"{one.code} {one.role or ''}: {one.message}. Fix: {one.fix}" for one in findings))


class WrongCallWarning(UserWarning):
    """The same as a warning."""


class CallJudge(Protocol):
    """What judges a call that a guard has not seen yet."""

    @property
    def queries(self) -> dict[int, Query]:
        """Queries of prepared layers, by the address of w13."""
        ...

    def findings(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Finding, ...]:
        """Return what makes a call wrong."""
        ...


class CallGuard:
    """State of a guard: what was checked, and what was found.

    Attributes:
        checked: pairs of layer and token bucket that were checked.
        found: how many of them had a finding, by code.
        unchecked: why calls could not be checked, by reason.
    """

    def __init__(self, judge: CallJudge, on: Literal["raise", "warn", "count"]) -> None:
        """Begin with nothing checked."""
        self.checked = 0
        self.found: Counter[str] = Counter()
        self.unchecked: Counter[str] = Counter()
        self.passed: set[Key] = set()
        self._buckets: set[Key] = set()
        self._judge = judge
        self._on = on

    def add(self, prepared: PreparedLayer) -> None:
        """Take a prepared layer's own query for its calls."""
        w13 = next(tensor for name, tensor in prepared.kwargs("aiter.fused_moe").items() if name == "w1")
        self._judge.queries[w13.data_ptr()] = prepared.query
        self.forget()

    def forget(self) -> None:
        """Check every layer again at its next call.

        As after a reload, or a migration of experts.
        """
        self.passed.clear()
        self._buckets.clear()

    def note_unread(self, error: Exception) -> None:
        """Count a call whose arguments cannot be read."""
        self.unchecked[f"{type(error).__name__}: {error}"] += 1

    def check(self, key: Key, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Check a call that was not seen yet.

        Raises:
            WrongCallError: it is wrong, and the guard raises.
        """
        address, tokens, gate_mode, tag = key
        bucket = (address, bucket_of(tokens), gate_mode, tag)
        if bucket not in self._buckets and self._is_wrong_now(args, kwargs):
            return
        self._buckets.add(bucket)
        if len(self.passed) >= _MOST_KEYS:
            self.passed.clear()
        self.passed.add(key)

    def _is_wrong_now(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Judge a call; return whether it must be judged again the next time."""
        if _is_capturing():
            return True  # nothing may wait for the GPU here
        try:
            findings = self._judge.findings(args, kwargs)
        except Exception as error:  # a guard that cannot judge must not stop what may be right
            self.unchecked[f"{type(error).__name__}: {error}"] += 1
            return False
        self.checked += 1
        self.found.update(one.code for one in findings)
        if findings and self._on == "raise":
            raise WrongCallError(findings)
        if findings and self._on == "warn":
            warnings.warn(str(WrongCallError(findings)), WrongCallWarning, stacklevel=5)
        return False


def _is_capturing() -> bool:
    """Return whether a graph is being captured.

    False where this torch cannot tell, as one without a GPU's runtime.
    """
    try:
        return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()
    except RuntimeError:
        return False


class GuardedFunction(Protocol[Returned]):
    """A function with a guard around it."""

    guard: CallGuard

    def __call__(self, *args: Any, **kwargs: Any) -> Returned:
        """Check the call, and make it."""
        ...


def bucket_of(tokens: int) -> int:
    """Return the bucket of a number of tokens.

    It is a power of two, or what lies between two of them.

    AITER pads token counts to such powers, and its bounds between activation dtypes are powers of two.
    """
    return 2 * tokens.bit_length() + (tokens & (tokens - 1) == 0)


def guard_calls(
    function: Callable[..., Result],
    *,
    signature: str = "aiter.fused_moe",
    on: Literal["raise", "warn", "count"] = "raise",
    registry: Registry | None = None,
    version: str | None = None,
    **fields: Any,
) -> GuardedFunction[Result]:
    """Wrap a fused MoE with a check of its bytes.

    The function is AITER's ``fused_moe``, or an engine's wrapper of it.

    Each layer is checked once for each bucket of token counts (powers of two, and what lies between them): the stamps
    of its tensors against the gate mode that is passed, and against the kernel that AITER will pick. Later calls cost a
    set look-up. Nothing is checked while a graph is captured or ``torch.compile`` traces; bytes that nobody stamped are
    unknown and pass. A call that cannot be judged passes, and is counted.

    Args:
        function: what to wrap; its name and parameters stay visible.
        signature: the book's signature of it.
        on: what to do with a wrong call: ``raise``, ``warn`` once for each layer and bucket, or only ``count``.
        registry: whose book and kernel tables count; the packaged book with shipped ones by default.
        version: the engine's, where the function is an engine's.
        fields: of the query, which count before what this process tells (``arch``, ``cu_num``, ``aiter``).

    Returns:
        The guarded function; its attribute ``guard`` is the :class:`CallGuard`.

    Example:
        >>> def fused_moe(hidden_states, w1, w2, topk_weight, topk_ids, **kwargs):
        ...     return hidden_states
        >>> guarded = guard_calls(fused_moe, arch="gfx950", aiter="0.1.20")
        >>> guarded.guard.checked
        0
    """
    registry = registry or registry_here()
    here = {**observe_here(environment={}, registry=registry), **fields}
    here.pop("engine", None)
    if "aiter" in fields:
        here.pop("aiter_features", None)
    guard = CallGuard(CallChecker(registry, signature, here, version), on)
    return guarded_function(function, guard, registry.book.signatures.find(signature))


def guarded_function(
    function: Callable[..., Result], guard: CallGuard, signature: Signature
) -> GuardedFunction[Result]:
    """Return a function with a guard around it.

    Args:
        function: what to wrap.
        guard: what judges a call that it has not seen.
        signature: the book's, of the function.
    """
    arguments = signature.arguments
    names = list(arguments)
    weight = next(name for name in names if arguments[name].carries == ROLES[0])
    mode = next((name for name in names if arguments[name].carries == "gate_mode"), "")
    tokens, place = names[0], names.index(weight)
    passed, check, compiling = guard.passed, guard.check, torch.compiler.is_compiling

    def guarded(*args: Any, **kwargs: Any) -> Result:
        if compiling():
            return function(*args, **kwargs)
        try:
            w13 = args[place] if len(args) > place else kwargs[weight]
            count = (args[0] if args else kwargs[tokens]).shape[0]
            key = (w13.data_ptr(), count, kwargs.get(mode), getattr(w13, "is_shuffled", None))
        except Exception as error:  # a tensor without memory, or arguments that the book's signature has not
            guard.note_unread(error)
            return function(*args, **kwargs)
        if key not in passed:
            check(key, args, kwargs)
        return function(*args, **kwargs)

    own = _with_parameters_of(function, guard, (tokens, weight, mode))
    made = cast(GuardedFunction[Result], functools.wraps(function)(own or guarded))
    made.guard = guard
    return made


_KINDS: Final = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD)
_SOURCE: Final = """
def guarded({parameters}):
    if _guard_compiling():
        return _guard_function({arguments})
    try:
        _guard_key = ({weight}.data_ptr(), {tokens}.shape[0], {mode}, getattr({weight}, "is_shuffled", None))
    except Exception as _guard_error:
        _guard_unread(_guard_error)
        return _guard_function({arguments})
    if _guard_key not in _guard_passed:
        _guard_check(_guard_key, (), _guard_stated({{{named}}}))
    return _guard_function({arguments})
"""


def _with_parameters_of(
    function: Callable[..., Result], guard: CallGuard, names: tuple[str, str, str]
) -> Callable[..., Result] | None:
    """Return a guarded function with a function's own parameters.

    Python binds keywords to parameters in a third of the time that it takes to collect sixteen of them and to pass them
    on. As ``dataclasses`` does, the function is compiled from its parameters. None where they cannot be told, or differ
    from the signature's: then arguments are collected.

    Args:
        function: what is guarded.
        guard: what checks its calls.
        names: of the tokens, of w13, and of gate_mode, as the signature has them.
    """
    try:
        found = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return None
    tokens, weight, mode = names
    legible = all(one.kind in _KINDS and not one.name.startswith("_guard_") for one in found.values())
    if not legible or not {tokens, weight} <= found.keys():
        return None
    kinds = {name: one.kind for name, one in found.items()}
    rest = next((name for name, kind in kinds.items() if kind is inspect.Parameter.VAR_KEYWORD), None)
    plain = [name for name, kind in kinds.items() if kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    only = [name for name, kind in kinds.items() if kind is inspect.Parameter.KEYWORD_ONLY]
    defaults = {name: one.default for name, one in found.items() if one.default is not inspect.Parameter.empty}

    def stated(named: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in named.items() if name not in defaults or value is not defaults[name]}

    declared = {name: f"{name}=_guard_defaults[{name!r}]" if name in defaults else name for name in (*plain, *only)}
    others = [f"**{rest}"] if rest is not None else []
    parameters = [*(declared[name] for name in plain), *(["*"] if only else []), *(declared[name] for name in only)]
    source = _SOURCE.format(
        parameters=", ".join([*parameters, *others]),
        arguments=", ".join([*plain, *(f"{name}={name}" for name in only), *others]),
        named=", ".join([*(f"{name!r}: {name}" for name in (*plain, *only)), *others]),
        weight=weight,
        tokens=tokens,
        mode=mode if mode in kinds else f"{rest}.get({mode!r})" if rest is not None else None,
    )
    scope: dict[str, Any] = {
        "_guard_compiling": torch.compiler.is_compiling, "_guard_function": function, "_guard_passed": guard.passed,
        "_guard_check": guard.check, "_guard_stated": stated, "_guard_defaults": defaults,
        "_guard_unread": guard.note_unread,
    }  # fmt: skip
    exec(source, scope)
    return cast(Callable[..., Result], scope["guarded"])
