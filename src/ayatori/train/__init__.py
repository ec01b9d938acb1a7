"""Stage 6. Dataset, Plan, recipe -> members."""

from ayatori.train.loop import pick_device, predict, predict_rows, train
from ayatori.train.settle import settle

__all__ = ["pick_device", "predict", "predict_rows", "settle", "train"]
