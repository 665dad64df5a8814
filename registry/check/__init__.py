"""Check: what a deployment did (bytes, call, kernels), compared with itself and with what is known to go wrong.

Nothing is imported here: the book's loader needs ``entries``, and every other module needs the book. The way in is
``Registry.check``; ``checker`` does the work, ``table`` lists the rules, ``codes`` explains them.
"""
