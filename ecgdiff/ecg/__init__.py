"""ECG recordings: units, lead names, rates, quality and files. NumPy and SciPy only."""

from ecgdiff.ecg import leads
from ecgdiff.ecg.recording import Recording

__all__ = ["Recording", "leads"]
