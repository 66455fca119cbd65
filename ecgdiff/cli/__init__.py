"""Command lines: `ecgdiff` and `ecgdiff-train`."""
