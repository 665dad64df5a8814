"""AITER's dispatch of one call: activation dtype, table lookup, stage rules."""
