"""Plots that a cardiologist can read; plotly is imported only when a figure is made."""

from ecgdiff.plot.document import write_html
from ecgdiff.plot.plotly import ecg

__all__ = ["ecg", "write_html"]
