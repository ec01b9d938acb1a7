"""Stage 6. Dataset, Plan, recipe -> members."""

from ayatori.train.engine import sentence
from ayatori.train.predict import Together, answers, predict, predict_rows
from ayatori.train.settle import settle, weaker
from ayatori.train.start import train
from ayatori.train.stream import pick_device

__all__ = [
    "Together",
    "answers",
    "pick_device",
    "predict",
    "predict_rows",
    "sentence",
    "settle",
    "train",
    "weaker",
]
