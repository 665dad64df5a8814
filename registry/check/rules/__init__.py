"""The rules, one function for each finding code; ``preshuffle.registry.check.rule_table`` lists them."""
