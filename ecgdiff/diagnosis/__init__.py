"""From complete ECGs, measured or drawn, to the probability of each statement.

Research use only.
"""

from ecgdiff.diagnosis.diagnose import diagnose
from ecgdiff.diagnosis.result import Diagnosis

__all__ = ["Diagnosis", "diagnose"]
