"""Stage 8. Predictions, truth -> scores with intervals; simple rivals; the leaderboard. No torch."""

from ayatori.evaluate.baselines import Fitted, check_baselines, fit_baselines, title_of
from ayatori.evaluate.compare import paired
from ayatori.evaluate.leaderboard import chosen, leaderboard, score_split
from ayatori.evaluate.matrix import whole_table
from ayatori.evaluate.metrics import LOWER, MAIN, METHODS, score, score_folds

__all__ = [
    "LOWER",
    "MAIN",
    "METHODS",
    "Fitted",
    "check_baselines",
    "chosen",
    "fit_baselines",
    "leaderboard",
    "paired",
    "score",
    "score_folds",
    "score_split",
    "title_of",
    "whole_table",
]
