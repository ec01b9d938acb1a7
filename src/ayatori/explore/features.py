"""Stage 3a. Dataset -> its rows as points, in several ways; all that is fitted comes from development rows.

Pictures are also seen by convolutions that nobody trained: patches of the pictures themselves as filters
(Coates, Lee & Ng, "An analysis of single-layer networks in unsupervised feature learning", AISTATS 2011).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import torch
from sklearn.decomposition import PCA
from torch import Tensor
from torch.nn import functional

from ayatori.data.scans import flattened
from ayatori.embed import in_blocks
from ayatori.evaluate.encode import scaled
from ayatori.evaluate.matrix import whole_table
from ayatori.records import AyatoriError, Dataset, Representation

BEYOND = 8.0  # standard deviations at which a number is cut
WHITENED = 50  # principal components
FILTERS, PATCH, SIDE, COMPONENTS = 256, 5, 32, 256  # of the random convolutions
WIDEST = 2000  # columns that are still whitened


def representations(
    dataset: Dataset, own: np.ndarray, seed: int = 0, given: Mapping[str, np.ndarray] = MappingProxyType({})
) -> list[Representation]:
    """The rows as points, in each way that this kind of data allows; the most telling is chosen later.

    ``own`` (m,): development rows, all that is fitted is fitted to them. ``given``: features (n, d) of the
    user's own or of a pretrained network, by name. Targets are not read.

    >>> from ayatori.data import load
    >>> data = load(np.random.default_rng(0).normal(size=(40, 6)), y=["a", "b"] * 20)
    >>> [(one.name, one.values.shape) for one in representations(data, np.arange(30))]
    [('columns, standardised', (40, 6)), ('principal components, whitened', (40, 6))]
    """
    table, kinds = whole_table(dataset)
    pixels = "pixels" in kinds
    of = "what is measured of the series" if "series" in dataset.inputs else "columns"
    of = "what words have in common" if list(dataset.inputs) == ["words"] else of
    pixel = "voxels" if dataset.schema.slices else "pixels"
    name = pixel if pixels else f"{of}, standardised"
    prepare = scaled(kinds, meanings=True).fit(table[own])
    plain = np.clip(prepare.transform(table), -BEYOND, BEYOND).astype(np.float32)
    found = [Representation(name, plain)]
    width = plain.shape[1]
    if not pixels and 4 < width <= WIDEST and len(own) > width // 2:
        found.append(Representation("principal components, whitened", _whitened(plain, own, WHITENED)))
    if pixels and min(dataset.inputs["image"].shape[2:]) >= PATCH + 1:
        convolved = _random_convolutions(flattened(dataset), own, seed)
        if columns := {kind: place for kind, place in kinds.items() if kind != "pixels"}:
            beside = scaled(columns, meanings=True).fit(table[own]).transform(table)
            beside = np.clip(beside, -BEYOND, BEYOND).astype(np.float32)
            both = [_of_equal_spread(part, own) for part in (convolved, beside)]
            convolved = np.concatenate(both, axis=1)
        found.append(Representation("random convolutions", convolved))
    found += [Representation(what, _given(values, len(dataset), own)) for what, values in given.items()]
    return found


def _of_equal_spread(values: np.ndarray, own: np.ndarray) -> np.ndarray:
    """(n, d) float32: pictures and columns beside them count the same, however many numbers either has."""
    return values / np.float32(max(np.sqrt(values[own].var(axis=0).sum()), 1e-6))


def _given(values: np.ndarray, rows: int, own: np.ndarray) -> np.ndarray:
    values = np.asarray(values, np.float32).reshape(len(values), -1)
    if len(values) != rows or not np.isfinite(values).all():
        raise AyatoriError(
            f"`features` must be finite numbers, one line a row, however there are {len(values)} lines for "
            f"{rows} rows{'' if np.isfinite(values).all() else ', some not finite'}"
        )
    spread = values[own].std(axis=0)
    return (values - values[own].mean(axis=0)) / np.where(spread > 0, spread, 1.0)


def fewer(points: np.ndarray) -> np.ndarray:
    """Points (n, d) for quick models: of many columns, their principal components."""
    if points.shape[1] <= 2 * COMPONENTS:
        return points
    count = min(COMPONENTS, len(points) - 1)
    found = PCA(count, svd_solver="randomized", random_state=0).fit_transform(points)
    return (found / found.std()).astype(np.float32)


def _whitened(values: np.ndarray, own: np.ndarray, most: int) -> np.ndarray:
    count = min(most, values.shape[1], len(own) - 1)
    solver = "covariance_eigh" if values.shape[1] < 1000 else "randomized"
    pca = PCA(count, svd_solver=solver, random_state=0).fit(values[own].astype(np.float64))
    # a direction without spread would only be noise, blown up
    keep = pca.explained_variance_ > 1e-6 * pca.explained_variance_[0]
    points = pca.transform(values)[:, keep] / np.sqrt(pca.explained_variance_[keep])
    return points.astype(np.float32)


def _random_convolutions(image: np.ndarray, own: np.ndarray, seed: int) -> np.ndarray:
    """(n, c, h, w) uint8 -> (n, at most 256) float32: principal components of pooled random filters."""
    chance = np.random.default_rng([seed, 31])
    some = np.sort(chance.choice(own, min(len(own), 400), replace=False))
    centre, whiten, filters = _filters(_small(image[some]), chance)
    sifted = whiten @ filters
    shift = centre @ sifted

    def ask(rows: np.ndarray) -> Tensor:
        patches = _patches(_small(image[rows]))
        side = round(patches.shape[1] ** 0.5)
        # filters last, as the product gives them: nothing is turned round
        grid = (_even(patches) @ sifted - shift).unflatten(1, (side, side)).permute(0, 3, 1, 2)
        places = 3 if side >= 12 else 2
        answers = [functional.adaptive_avg_pool2d((sign * grid - 0.25).relu_(), places) for sign in (1, -1)]
        return torch.cat(answers, 1).flatten(1)

    values: np.ndarray = np.empty((0, 0), np.float32)
    for rows, said in in_blocks(ask, len(image), torch.device("cpu"), bf16=False):
        if not len(values):
            # written here at once: small answers that are kept between large ones would pin the heap
            values = np.empty((len(image), said.shape[1]), np.float32)
        values[rows] = said.numpy()
    fit = own if len(own) <= 4000 else np.sort(chance.choice(own, 4000, replace=False))
    spread = values[fit].std(axis=0)
    values = (values - values[fit].mean(axis=0)) / np.where(spread > 1e-6, spread, 1.0)
    count = min(COMPONENTS, len(fit) - 1, values.shape[1])
    points = PCA(count, svd_solver="randomized", random_state=0).fit(values[fit]).transform(values)
    return (points / points[fit].std()).astype(np.float32)


def _small(image: np.ndarray) -> Tensor:
    """uint8 pictures -> (b, c, side, side) float32 from 0 to 1, square, at most 32 pixels."""
    pictures = torch.from_numpy(np.ascontiguousarray(image)).float() / 255
    side = min(SIDE, max(pictures.shape[2:]))
    if tuple(pictures.shape[2:]) != (side, side):
        pictures = functional.interpolate(pictures, (side, side), mode="bilinear", antialias=True)
    return pictures


def _patches(pictures: Tensor) -> Tensor:
    """(b, c, s, s) -> (b, places, c * patch * patch)."""
    return functional.unfold(pictures, PATCH).transpose(1, 2)


def _even(patches: Tensor) -> Tensor:
    """Each patch with mean 0 and spread 1, so that light and contrast do not count."""
    patches = patches - patches.mean(-1, keepdim=True)
    return patches / (patches.var(-1, keepdim=True) + 0.01).sqrt()


def _filters(pictures: Tensor, chance: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Patches' mean (d,), their whitening (d, d), and whitened patches as filters (d, filters)."""
    patches = _even(_patches(pictures)).flatten(0, 1)
    some = np.sort(chance.choice(len(patches), min(len(patches), 20_000), replace=False))
    patches = patches[torch.from_numpy(some)]
    centre = patches.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov((patches - centre).T.double()))
    whiten = (vectors * (values.clamp(min=0) + 0.1).rsqrt()) @ vectors.T
    whiten = whiten.float()
    drawn = torch.from_numpy(chance.choice(len(patches), min(FILTERS, len(patches)), replace=False))
    filters = functional.normalize((patches[drawn] - centre) @ whiten, dim=1)
    return centre, whiten, filters.T.contiguous()
