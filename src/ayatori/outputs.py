"""Dataset, Blends -> the tables and pictures that a run folder keeps of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ayatori.explore.thumbs import drawn, visible
from ayatori.records import Blend, Dataset

WORST, DRAWN, SLICES = 24, 160, 9  # worst rows; pixels of a series that is drawn; slices of a scan


def predictions_table(dataset: Dataset, blends: Sequence[Blend]) -> pd.DataFrame:
    """predictions.parquet: one line for each row that each model or ensemble honestly speaks of."""
    classes = np.asarray(dataset.classes, dtype=object)
    if dataset.task != "regression":
        columns = [f"p_{name}" for name in classes]
    elif dataset.labels.shape[1] == 1:
        columns = ["value"]
    else:
        columns = [f"value_{name}" for name in dataset.schema.target]
    names = ["row", "id", "true", "fold", "split", "name", "said", *columns]
    parts = [pd.DataFrame(columns=names)] if not blends else []
    for blend in blends:
        rows = np.flatnonzero(blend.rows)
        truth = dataset.labels[rows]
        part = pd.DataFrame({"row": rows, "id": dataset.ids[rows]})
        if dataset.task == "classification":
            part["true"] = classes[truth]
        elif dataset.task == "multilabel":
            part["true"] = [" ".join(classes[line > 0]) for line in truth]
        elif truth.shape[1] == 1:
            part["true"] = truth[:, 0]
        else:
            part[[f"true_{name}" for name in dataset.schema.target]] = truth
        part["fold"], part["split"], part["name"] = blend.fold[rows], blend.split, blend.name
        if dataset.task != "regression":
            part["said"] = said_of(dataset, blend, rows)
        parts.append(pd.concat([part, pd.DataFrame(blend.values[rows], columns=columns)], axis=1))
    return pd.concat(parts, ignore_index=True)


def said_of(dataset: Dataset, blend: Blend, rows: np.ndarray) -> np.ndarray:
    """(rows,) the class that is said of each row; of several labels their names."""
    classes = np.asarray(dataset.classes, dtype=object)
    leans = (blend.values if blend.decided is None else blend.decided)[rows]
    if dataset.task == "classification":
        return classes[leans.argmax(axis=1)]
    return np.array([" ".join(classes[line > 0.5]) for line in leans], dtype=object)


def row_losses(dataset: Dataset, blend: Blend) -> np.ndarray:
    """(n,) how wrong a blend is of each row: log loss, or squared error; -inf where it does not speak."""
    losses = np.full(len(dataset), -np.inf)
    rows = np.flatnonzero(blend.rows)
    values, truth = blend.values[rows].astype(np.float64), dataset.labels[rows]
    if dataset.task == "classification":
        losses[rows] = -np.log(np.clip(values[np.arange(len(rows)), truth], 1e-12, None))
    elif dataset.task == "multilabel":
        losses[rows] = -np.log(np.clip(np.where(truth > 0, values, 1 - values), 1e-12, None)).mean(axis=1)
    else:
        losses[rows] = np.square((values - truth) / np.maximum(truth.std(axis=0), 1e-12)).mean(axis=1)
    return losses


def worst_rows(
    dataset: Dataset, blends: Sequence[Blend], chosen: str = ""
) -> tuple[Blend | None, np.ndarray]:
    """What was ``chosen`` as it speaks of held-out rows, and the rows (k,) it was most wrong about.

    Out-of-fold rows where there are any, so that the page can be written again without opening the test.
    """
    networks = [blend for blend in blends if blend.network]
    if not networks:
        return None, np.zeros(0, np.int64)
    held_out = [blend for blend in networks if blend.split == "out_of_fold"] or networks
    ensemble = next((blend.ensemble for blend in networks if blend.name == chosen), held_out[0].ensemble)
    blend = next((blend for blend in held_out if blend.ensemble == ensemble), held_out[0])
    losses = row_losses(dataset, blend)
    return blend, np.argsort(-losses, kind="stable")[: min(WORST, int(blend.rows.sum()))]


def worst_pictures(dataset: Dataset, blends: Sequence[Blend], chosen: str = "") -> dict[str, Tensor]:
    """The worst rows as pictures: ``image`` (k, c, h, w) uint8, ``row`` (k,); series are drawn."""
    rows = worst_rows(dataset, blends, chosen)[1]
    if "series" in dataset.inputs:
        pictures = drawn(dataset.inputs["series"], rows, DRAWN)
    else:
        pictures = np.ascontiguousarray(visible(dataset.inputs["image"], rows, SLICES))
    return {"image": torch.from_numpy(pictures), "row": torch.from_numpy(rows)}
