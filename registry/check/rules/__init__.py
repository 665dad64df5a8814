"""The rules, one function for each finding code; ``preshuffle.registry.check.table`` lists them."""
