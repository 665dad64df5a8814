"""Interpreter of the pseudocode in AMD's instruction set documents, for tests of the emulator."""
