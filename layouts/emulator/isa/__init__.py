"""Instruction set of gfx942 and gfx950: decoding, registers, meaning of instructions."""
