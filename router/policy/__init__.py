"""Which replica answers first: predicted time to first token, with what was just sent counted at once."""

from .choose import Candidate, Choice, Policy
from .figures import Figures, figures_from_load
from .ledger import Ledger, Pending
from .predict import Prediction, predict

__all__ = [
    "Candidate",
    "Choice",
    "Figures",
    "Ledger",
    "Pending",
    "Policy",
    "Prediction",
    "figures_from_load",
    "predict",
]
