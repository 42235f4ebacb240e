"""A protein and a few measurements of it: a ranked list, what to measure next, and a report."""
