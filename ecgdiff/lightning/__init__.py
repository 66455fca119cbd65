"""Training with PyTorch Lightning: with the command line, the only place that imports it."""
