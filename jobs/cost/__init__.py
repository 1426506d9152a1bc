"""What outputs cost: ``imagemill cost`` and its FOCUS export."""

from jobs.cost.ask import FIGURES, CostAnswer, cost, cost_of
from jobs.cost.dimensions import DIMENSIONS
from jobs.cost.focus import FocusExport, export_focus
from jobs.cost.outputs import Output, Standing, find_outputs

__all__ = [
    "DIMENSIONS",
    "FIGURES",
    "CostAnswer",
    "FocusExport",
    "Output",
    "Standing",
    "cost",
    "cost_of",
    "export_focus",
    "find_outputs",
]
