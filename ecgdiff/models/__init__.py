"""Networks, one per file, and their checkpoints."""
