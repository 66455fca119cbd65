"""Experiments on closed-form problems, each one command: `python -m ecgdiff.experiments NAME`."""
