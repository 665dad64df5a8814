"""Check rules, one function per finding code; ``check.rule_table`` lists them."""
