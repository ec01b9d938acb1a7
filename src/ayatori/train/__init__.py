"""Stage 6. Dataset, Plan, recipe -> members."""

from ayatori.train.loop import pick_device, predict, predict_rows, train

__all__ = ["pick_device", "predict", "predict_rows", "train"]
