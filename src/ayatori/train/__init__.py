"""Stage 6. Dataset, Plan, recipe -> members."""

from ayatori.train.balance import balance_rows, balances
from ayatori.train.boost import Boosted, boost
from ayatori.train.compare import compare_augments
from ayatori.train.engine import sentence
from ayatori.train.parts import Desk, split, train_parts, train_some
from ayatori.train.predict import Together, answers, predict, predict_rows
from ayatori.train.settle import settle, weaker
from ayatori.train.start import train
from ayatori.train.stream import pick_device

__all__ = [
    "Boosted",
    "Desk",
    "Together",
    "answers",
    "balance_rows",
    "balances",
    "boost",
    "compare_augments",
    "pick_device",
    "predict",
    "predict_rows",
    "sentence",
    "settle",
    "split",
    "train",
    "train_parts",
    "train_some",
    "weaker",
]
