"""Faults, one after another, and a table of what became of them: `python -m faults` with `tests` on the path."""
