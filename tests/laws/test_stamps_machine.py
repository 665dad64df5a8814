"""Whatever is done to tensors, a stamp never claims a layout that the bytes are not in."""

from __future__ import annotations

import copy
import ctypes
import io
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache

import pytest
import torch
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from torch.utils.dlpack import from_dlpack

from preshuffle.layouts import (
    Stamp,
    apply,
    begin_reload,
    describe,
    expert_view,
    finish_reload,
    inverse,
    relayout,
    retag,
    stamp_of,
    stamps_from_metadata,
    stamps_to_metadata,
    write_expert,
)
from preshuffle.registry import LayoutError
from support.tensors.moe import decide, in_padded_buffers, plain_tensors

SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_experts": 4, "top_k": 2}
DECISIONS = (decide("fp4x2", **SIZES), decide("bf16", **SIZES))
SEEDS = (0, 1)

Tensors = dict[str, torch.Tensor]


def raw(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().view(torch.uint8).view(-1)


@lru_cache(maxsize=2)
def plain_bytes(seed: int) -> Tensors:
    plain = plain_tensors(DECISIONS[0], seed=seed)
    plain |= {role: plain[role].float() for role in ("w13_bias", "w2_bias")}
    return in_padded_buffers(plain, DECISIONS[0])


def plain_layer(seed: int) -> Tensors:
    return {role: tensor.clone() for role, tensor in plain_bytes(seed).items()}


@lru_cache(maxsize=16)
def laid_experts(role: str, digest: str) -> frozenset[bytes]:
    """The bytes of every expert of every seed, laid out by a decision."""
    decision = next(decision for decision in DECISIONS if decision.decision_digest == digest)
    found: set[bytes] = set()
    for seed in SEEDS:
        apply(tensors := plain_layer(seed), decision)
        found |= experts_of(tensors[role])
    return frozenset(found)


def experts_of(tensor: torch.Tensor) -> set[bytes]:
    return {part.tobytes() for part in raw(tensor).view(SIZES["num_experts"], -1).numpy()}


def load_state(tensor: torch.Tensor, plain: torch.Tensor) -> None:
    module = torch.nn.Module()
    module.weight = torch.nn.Parameter(raw(tensor), requires_grad=False)
    module.load_state_dict({"weight": plain})


def exchange_experts(tensor: torch.Tensor, plain: torch.Tensor) -> None:
    parts = raw(tensor.data).view(4, -1)
    parts.copy_(parts.clone()[[1, 0, 3, 2]])


WRITES: dict[str, Callable[[torch.Tensor, torch.Tensor], object]] = {
    "copy_": lambda tensor, plain: raw(tensor).copy_(plain),
    "data": lambda tensor, plain: raw(tensor.data).copy_(plain),
    "zero_": lambda tensor, plain: raw(tensor).zero_(),
    "byte": lambda tensor, plain: raw(tensor)[7:8].bitwise_xor_(torch.tensor([1], dtype=torch.uint8)),
    "byte of data": lambda tensor, plain: raw(tensor.data)[-1:].add_(1),
    "byte in numpy": lambda tensor, plain: raw(tensor).numpy().__setitem__(99, int(raw(tensor)[99]) ^ 4),
    "numpy": lambda tensor, plain: raw(tensor).numpy().__setitem__(slice(None), plain.numpy()),
    "half": lambda tensor, plain: raw(tensor.data)[: plain.numel() // 2].copy_(plain[: plain.numel() // 2]),
    "expert": lambda tensor, plain: raw(tensor.data).view(4, -1)[2].copy_(plain.view(4, -1)[2]),
    "experts exchanged": exchange_experts,
    "load_state_dict": load_state,
    "dlpack": lambda tensor, plain: from_dlpack(raw(tensor)).copy_(plain),
    "memmove": lambda tensor, plain: ctypes.memmove(tensor.data_ptr(), plain.data_ptr(), plain.numel()),
    "storage": lambda tensor, plain: tensor.untyped_storage().copy_(plain.clone().untyped_storage()),
    "storage filled": lambda tensor, plain: tensor.untyped_storage().__setitem__(slice(None), 3),
    "data replaced": lambda tensor, plain: setattr(tensor, "data", plain.clone().view(tensor.dtype).view(tensor.shape)),
    "resized": lambda tensor, plain: resize(tensor, plain),
}


def resize(tensor: torch.Tensor, plain: torch.Tensor) -> None:
    """Free the memory and take new one, as engines that sleep do."""
    storage = tensor.untyped_storage()
    if storage.resizable() and not storage.is_shared():
        nbytes = storage.nbytes()
        storage.resize_(0)
        storage.resize_(nbytes)
        raw(tensor.data).copy_(plain)


def saved(tensors: Tensors) -> Tensors:
    buffer = io.BytesIO()
    torch.save({role: handed_over(tensor) for role, tensor in tensors.items()}, buffer)
    buffer.seek(0)
    loaded: Tensors = torch.load(buffer)
    return loaded


def handed_over(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor that torch.save takes (not every torch knows fp4 there), with its stamps."""
    view = tensor.detach()
    view = view if view.dtype == torch.float32 else view.view(torch.uint8)
    retag({"w13_weight": view})
    return view


def as_module(tensors: Tensors) -> torch.nn.Module:
    module = torch.nn.Module()
    for role, tensor in tensors.items():
        module.register_parameter(role, torch.nn.Parameter(tensor.data, requires_grad=False))
    return module


COPIES: dict[str, Callable[[Tensors], Tensors]] = {
    "clone": lambda tensors: {role: tensor.view(torch.uint8).clone() for role, tensor in tensors.items()},
    "deepcopy": copy.deepcopy,
    "dict": dict,
    "detach": lambda tensors: {role: tensor.detach() for role, tensor in tensors.items()},
    "parameter": lambda tensors: {
        role: torch.nn.Parameter(tensor.data, requires_grad=False) for role, tensor in tensors.items()
    },
    "numpy": lambda tensors: {
        role: torch.from_numpy(tensor.detach().view(torch.uint8).numpy()).view(tensor.dtype)
        for role, tensor in tensors.items()
    },
    "dlpack": lambda tensors: {role: from_dlpack(raw(t)).view(t.dtype).view(t.shape) for role, t in tensors.items()},
    "torch.save": saved,
    "state_dict": lambda tensors: dict(as_module(tensors).state_dict()),
    "deepcopy of a module": lambda tensors: dict(copy.deepcopy(as_module(tensors)).named_parameters()),
    "shared": lambda tensors: {role: tensor.detach().clone().share_memory_() for role, tensor in tensors.items()},
}
layers = st.integers(0, 3)
decisions = st.integers(0, len(DECISIONS) - 1)
roles = st.sampled_from(["w13_weight", "w2_weight", "w13_weight_scale", "w2_bias"])


def claim_of(tensor: torch.Tensor) -> Stamp | None:
    """The stamp of a tensor; shared memory of other bytes than its record has none, and that is said."""
    try:
        return stamp_of(tensor)
    except LayoutError as error:
        assert "does not match the bytes" in str(error)  # noqa: PT017
        return None


def refused(work: Callable[[], object]) -> str | None:
    """What a refusal says; None where there is none."""
    try:
        work()
    except LayoutError as error:
        return str(error)
    return None


class StampMachine(RuleBasedStateMachine):
    """Layers of tensors, with everything that is done to them."""

    def __init__(self) -> None:
        super().__init__()
        self.layers: list[Tensors] = [plain_layer(0), plain_layer(1)]
        apply(self.layers[1], DECISIONS[0])
        self.metadata: dict[str, str] = {}

    def layer(self, number: int) -> Tensors:
        return self.layers[number % len(self.layers)]

    @rule(seed=st.sampled_from(SEEDS))
    def load(self, seed: int) -> None:
        self.layers = [*self.layers[-3:], plain_layer(seed)]

    @rule(number=layers)
    def free(self, number: int) -> None:
        if len(self.layers) > 1:
            del self.layers[number % len(self.layers)]

    @rule(number=layers, decision=decisions, again=st.sampled_from(["refuse", "skip"]))
    def lay_out(self, number: int, decision: int, again: str) -> None:
        # only plain bytes are worth laying out: what is neither makes no statement
        if any(self.is_plain(tensors) for tensors in (self.layer(number),)) or again == "skip":
            with suppress(LayoutError):
                if self.is_plain(self.layer(number)) or all(map(claim_of, self.layer(number).values())):
                    apply(self.layer(number), DECISIONS[decision], again=again)  # type: ignore[arg-type]
                    assert {stamp.state for one in self.layer(number).values() if (stamp := stamp_of(one))} == {
                        "applied"
                    }

    @rule(number=layers, decision=decisions)
    def lay_out_in_threads(self, number: int, decision: int) -> None:
        if not self.is_plain(self.layer(number)):
            return

        def work() -> None:
            with suppress(LayoutError):
                apply(dict(self.layer(number)), DECISIONS[decision])

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    @rule(number=layers)
    def take_out(self, number: int) -> None:
        before = {role: raw(tensor).clone() for role, tensor in self.layer(number).items()}
        known = all((stamp := claim_of(tensor)) and stamp.state == "applied" for tensor in self.layer(number).values())
        refusal = refused(lambda: inverse(self.layer(number)))
        if refusal is None:
            assert known
            return
        assert all(raw(self.layer(number)[role]).equal(before[role]) for role in before)
        assert not known or "written to" not in refusal

    @rule(number=layers, decision=decisions)
    def convert(self, number: int, decision: int) -> None:
        with suppress(LayoutError):
            relayout(self.layer(number), DECISIONS[decision])

    @rule(number=layers, decision=decisions, seed=st.sampled_from(SEEDS))
    def reload(self, number: int, decision: int, seed: int) -> None:
        with suppress(LayoutError):
            begin_reload(self.layer(number))
            for role, tensor in plain_layer(seed).items():
                raw(self.layer(number)[role].data).copy_(raw(tensor))
            finish_reload(self.layer(number), DECISIONS[decision])

    @rule(number=layers, role=roles, how=st.sampled_from(sorted(WRITES)), seed=st.sampled_from(SEEDS))
    def write(self, number: int, role: str, how: str, seed: int) -> None:
        WRITES[how](self.layer(number)[role], raw(plain_layer(seed)[role]))

    @rule(number=layers, source=st.integers(0, 3), to=st.integers(0, 3))
    def move_expert(self, number: int, source: int, to: int) -> None:
        with suppress(LayoutError):
            taken = raw(expert_view(self.layer(number), "w13_weight", source)).clone()
            raw(expert_view(self.layer(number), "w13_weight", to)).copy_(taken)

    @rule(number=layers, how=st.sampled_from(sorted(COPIES)))
    def copy(self, number: int, how: str) -> None:
        self.layers = [*self.layers[-3:], COPIES[how](self.layer(number))]

    @rule(number=layers, expert=st.integers(0, 3), seed=st.sampled_from(SEEDS))
    def load_expert(self, number: int, expert: int, seed: int) -> None:
        tensors = self.layer(number)
        rows = plain_tensors(DECISIONS[0], seed=seed)["w2_weight"][expert]
        with suppress(LayoutError):
            write_expert(tensors, expert, "w2_weight", rows)
            assert stamp_of(tensors["w2_weight"]).state == "applied"  # type: ignore[union-attr]

    @rule(number=layers)
    def save(self, number: int) -> None:
        with suppress(LayoutError):
            self.metadata = stamps_to_metadata(self.layer(number))

    @rule(number=layers)
    def restore(self, number: int) -> None:
        with suppress(LayoutError):
            stamps_from_metadata(self.layer(number), self.metadata)

    @rule(number=layers)
    def tag(self, number: int) -> None:
        with suppress(LayoutError):
            retag(self.layer(number))

    @staticmethod
    def is_plain(tensors: Tensors) -> bool:
        return any(
            all(raw(tensor).equal(raw(plain[role])) for role, tensor in tensors.items())
            for plain in map(plain_bytes, SEEDS)
        )

    @invariant()
    def no_claim_is_false(self) -> None:
        for tensors in self.layers:
            for role, tensor in tensors.items():
                stamp = claim_of(tensor)
                if stamp is not None and stamp.state == "applied":
                    assert experts_of(tensor) <= laid_experts(role, stamp.decision_digest), (role, stamp.recipe)
            with suppress(LayoutError):
                self.check_description(tensors)

    @staticmethod
    def check_description(tensors: Tensors) -> None:
        for role, observed in describe(tensors, DECISIONS[0]).tensors.items():
            stamp = claim_of(tensors[role])
            assert observed.layout is None or (stamp is not None and stamp.state == "applied")


@contextmanager
def one_thread() -> Iterator[None]:
    """Tensors are small: a second thread costs more than it does."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run(examples: int, steps: int, *, derandomize: bool) -> None:
    with one_thread():
        run_state_machine_as_test(
            StampMachine,
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                derandomize=derandomize,
                database=None,
            ),
        )


def test_no_stamp_lies() -> None:
    run(examples=60, steps=30, derandomize=True)


@pytest.mark.slow
def test_no_stamp_lies_for_long() -> None:
    run(examples=400, steps=50, derandomize=False)
