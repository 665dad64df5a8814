"""Atomic additions to global memory.

Lane by lane where several meet in one word.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from preshuffle.layouts.emulator.memory import GlobalMemory
from preshuffle.layouts.emulator.number_formats import bf16_to_float, float_to_bf16

Words = NDArray[np.uint32]
Addresses = NDArray[np.int64]

ADD: dict[str, Callable[[Words, Words], Words]] = {
    "f32": lambda old, new: (old.view(np.float32) + new.view(np.float32)).view(np.uint32),
    "pk_f16": lambda old, new: (old.view(np.float16) + new.view(np.float16)).view(np.uint32),
    "pk_bf16": lambda old, new: float_to_bf16(
        bf16_to_float(old.view(np.uint16)) + bf16_to_float(new.view(np.uint16))
    ).view(np.uint32),
}
"""Sum of two words, by what they hold: a float32 or two 16-bit floats."""


def add_to_memory(memory: GlobalMemory, addresses: Addresses, values: Words, kind: str) -> None:
    """Add a word at each address.

    Args:
        memory: changed in place.
        addresses: of whole words; one may occur several times.
        values: a word for each address.
        kind: key of `ADD`.

    Raises:
        MemoryAccessError: an address is not that of a word of a buffer.
    """
    add = ADD[kind]
    for words, index, picked in memory.words_to_change(addresses):
        _add_all(words, index, values[picked], add)


def _add_all(words: Words, index: Addresses, values: Words, add: Callable[[Words, Words], Words]) -> None:
    while len(index):
        _, first = np.unique(index, return_index=True)
        words[index[first]] = add(words[index[first]], np.ascontiguousarray(values[first]))
        rest = np.ones(len(index), np.bool_)
        rest[first] = False
        index, values = index[rest], values[rest]
