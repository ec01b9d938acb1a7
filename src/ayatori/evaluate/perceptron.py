"""Stage 8c. Rows and classes -> a small network, exactly that of scikit-learn's MLPClassifier in less time.

Of the settings only those that the simple rival uses: rectified units, Adam, a tenth of the rows to stop by.
The same numbers are drawn and the same sums made in the same order, so every weight is the same to the last
bit (a test compares them); what is saved are its checks of every batch and the loss that nobody reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import train_test_split
from sklearn.utils import gen_batches

FASTEST, SLOWEST, TINY = 0.9, 0.999, 1e-8  # Adam's, as in Kingma & Ba (2014)
WORTH = 1e-4  # gain in accuracy that counts
HELD_OUT = 0.1


class Perceptron(ClassifierMixin, BaseEstimator):
    """A network for classes; stops where the accuracy of held-out rows has not risen for some epochs."""

    def __init__(
        self,
        hidden: Sequence[int] = (128, 128),
        rate: float = 0.003,
        decay: float = 0.001,
        batch: int = 128,
        epochs: int = 100,
        patience: int = 10,
        seed: int = 0,
    ) -> None:
        self.hidden = hidden
        self.rate = rate
        self.decay = decay
        self.batch = batch
        self.epochs = epochs
        self.patience = patience
        self.seed = seed

    def fit(self, x: np.ndarray, y: np.ndarray) -> Perceptron:
        """Rows ``x`` (n, d) and classes ``y`` (n,)."""
        chance = np.random.RandomState(self.seed)
        self.classes_, codes = np.unique(y, return_inverse=True)
        wanted = (np.eye(len(self.classes_))[codes] if len(self.classes_) > 2 else codes[:, None]).astype(
            x.dtype
        )
        sizes = (x.shape[1], *self.hidden, wanted.shape[1])
        self._allot(sizes, x.dtype, chance)
        stratify = wanted if wanted.shape[1] == 1 else None
        learned, held, wanted, of_held = train_test_split(
            x, wanted, random_state=chance, test_size=HELD_OUT, stratify=stratify
        )
        truth = self._decided(of_held)
        best, waited = -np.inf, 0
        kept = self._flat.copy()
        order, steps = np.arange(len(learned)), 0
        first, second = np.zeros_like(self._flat), np.zeros_like(self._flat)
        for _ in range(self.epochs):
            drawn = np.arange(len(learned))
            chance.shuffle(drawn)
            order = order[drawn]
            for part in gen_batches(len(learned), min(self.batch, len(learned))):
                steps += 1
                self._step(learned[order[part]], wanted[order[part]], first, second, steps)
            right = float((self._decided(self._forward(held)[-1]) == truth).mean())
            waited = waited + 1 if right < best + WORTH else 0
            if right > best:
                best, kept = right, self._flat.copy()
            if waited > self.patience:
                break
        self._flat[:] = kept
        return self

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        """(n, classes) for rows ``x`` (n, d)."""
        said = self._forward(x)[-1]
        return said if said.shape[1] > 1 else np.stack([1 - said[:, 0], said[:, 0]], axis=1)

    def predict(self, x: np.ndarray) -> np.ndarray:
        return self.classes_[self.predict_proba(x).argmax(axis=1)]

    def _allot(self, sizes: Sequence[int], dtype: np.dtype, chance: np.random.RandomState) -> None:
        """Weights, then biases, as views of one vector; so are their gradients."""
        shapes: list[tuple[int, ...]] = [*pairwise(sizes), *((size,) for size in sizes[1:])]
        ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
        self._flat, self._slopes = np.zeros(ends[-1], dtype), np.zeros(ends[-1], dtype)
        self._layers = len(sizes) - 1
        self._weighted = int(ends[self._layers - 1])
        self._values, self._gradients = (
            [part.reshape(shape) for part, shape in zip(np.split(flat, ends[:-1]), shapes, strict=True)]
            for flat in (self._flat, self._slopes)
        )
        for layer, (wide, out) in enumerate(pairwise(sizes)):
            bound = np.sqrt(6.0 / (wide + out))
            self._values[layer][:] = chance.uniform(-bound, bound, (wide, out))
            self._values[self._layers + layer][:] = chance.uniform(-bound, bound, out)

    def _forward(self, x: np.ndarray) -> list[np.ndarray]:
        """What comes out of each layer, the rows first."""
        found = [x]
        for layer in range(self._layers):
            out = found[-1] @ self._values[layer]
            out += self._values[self._layers + layer]
            if layer < self._layers - 1:
                np.maximum(out, 0, out=out)
            elif out.shape[1] == 1:
                expit(out, out=out)
            else:
                np.exp(out - out.max(axis=1)[:, None], out=out)
                out /= out.sum(axis=1)[:, None]
            found.append(out)
        return found

    def _step(
        self, x: np.ndarray, wanted: np.ndarray, first: np.ndarray, second: np.ndarray, number: int
    ) -> None:
        """One batch: gradients, then Adam with its moments ``first`` and ``second``."""
        seen = self._forward(x)
        delta = seen[-1] - wanted
        for layer in range(self._layers - 1, -1, -1):
            np.matmul(seen[layer].T, delta, out=self._gradients[layer])
            self._gradients[self._layers + layer][:] = delta.sum(axis=0) / len(x)
            if layer:
                delta = delta @ self._values[layer].T
                delta[seen[layer] == 0] = 0
        slopes = self._slopes[: self._weighted]
        slopes += self.decay * self._flat[: self._weighted]
        slopes /= len(x)
        first *= FASTEST
        first += (1 - FASTEST) * self._slopes
        second *= SLOWEST
        second += (1 - SLOWEST) * np.square(self._slopes)
        rate = self.rate * np.sqrt(1 - SLOWEST**number) / (1 - FASTEST**number)
        self._flat += -rate * first / (np.sqrt(second) + TINY)

    def _decided(self, said: np.ndarray) -> np.ndarray:
        return said.argmax(axis=1) if said.shape[1] > 1 else said[:, 0] > 0.5
