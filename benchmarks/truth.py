"""Data with known Bayes error: what no classifier can beat, whatever it learns from.

Every family gives the posterior of each row; label noise changes the posterior, and the labels are drawn
from what it became. So the Bayes error after noise is the mean of ``1 - max posterior``, here over 200 000
draws of the few coordinates that matter (standard error below 0.1 points). The seeds are in the cells.

    python benchmarks/truth.py            the cells and their Bayes errors, as JSON
    python benchmarks/truth.py --check    Monte Carlo beside closed forms
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal

import numpy as np
from scipy.special import ive
from scipy.stats import norm

DRAWS, BLOCK = 200_000, 4_000  # small blocks stay in the processor's cache
Family = Literal["gauss", "rings", "board", "moons", "spirals", "parity"]
Noise = Literal["clean", "uniform", "pair", "class", "entropy", "coordinate"]
Core = tuple[np.ndarray, np.ndarray]  # (n, k) coordinates that matter, (n, C) posterior before noise


@dataclass(frozen=True)
class Cell:
    """One kind of data. ``error`` is the Bayes error before noise that a Gaussian mixture aims at; ``width``
    is the standard deviation around rings, arcs, board and bits; ``modes`` is what a class has of: Gaussians
    in a mixture, turns of a spiral's arm (halves), fields along the board, bits that count for parity."""

    family: Family
    classes: int
    dimensions: int
    seed: int
    error: float = 0.0
    width: float = 0.0
    modes: int = 1
    unequal: bool = False  # the Gaussians have covariances of their own
    shares: tuple[float, ...] = ()  # of the classes; () = equal
    noise: Noise = "clean"
    rate: float = 0.0

    @property
    def name(self) -> str:
        kind = {"gauss": f"error {self.error:g}"}.get(self.family, f"width {self.width:g}")
        kind += f" modes {self.modes}" + (" unequal" if self.unequal else "")
        kind += " rare" if self.shares else ""
        noise = "" if self.noise == "clean" else f" {self.rate:g}"
        return f"{self.family} C{self.classes} d{self.dimensions} {kind}, {self.noise}{noise} #{self.seed}"


def cells(part: Literal["measure", "fit"]) -> list[Cell]:
    """The cells to be judged by, or other ones (other seeds, dimensions, distances and rates) to fit on."""
    found = _measured() if part == "measure" else _random(150)
    first = 1_000 if part == "measure" else 50_000
    return [replace(cell, seed=first + number) for number, cell in enumerate(found)]


def draw(cell: Cell, n: int, seed: int | None = None) -> tuple[np.ndarray, np.ndarray, float]:
    """``n`` rows of a cell.

    **Shape** -> x (n, dimensions) float32, y (n,) int64, and the Bayes error after noise.
    """
    rng = np.random.default_rng([cell.seed, 1 if seed is None else seed + 2])
    core, posterior = _core(cell, n, rng)
    posterior = _noisy(cell, core, posterior)
    # the class whose part of [0, 1] holds a uniform number
    labels = (posterior.cumsum(axis=1) < rng.random(n)[:, None]).sum(axis=1)
    return _embed(cell, core, rng), np.minimum(labels, cell.classes - 1), truth(cell)


@functools.cache
def truth(cell: Cell) -> float:
    """The Bayes error of a cell after noise."""
    rng, found = np.random.default_rng([cell.seed, 0]), []
    for _ in range(0, DRAWS, BLOCK):
        found.append(_noisy(cell, *_core(cell, BLOCK, rng)).max(axis=1).mean())
    return float(1 - np.mean(found))


def _core(cell: Cell, n: int, rng: np.random.Generator) -> Core:
    families: dict[str, Callable[[Cell, int, np.random.Generator], Core]] = {
        "gauss": _gauss,
        "rings": _rings,
        "board": _board,
        "moons": _arcs,
        "spirals": _arcs,
        "parity": _parity,
    }
    return families[cell.family](cell, n, rng)


def _shares(cell: Cell) -> np.ndarray:
    return np.array(cell.shares) if cell.shares else np.full(cell.classes, 1 / cell.classes)


# --- families


def _gauss(cell: Cell, n: int, rng: np.random.Generator) -> Core:
    means, scales = _gaussians(cell)
    return _mixture(means * _distance(cell), scales, _shares(cell), n, rng)


def _gaussians(cell: Cell) -> tuple[np.ndarray, np.ndarray]:
    """Means and standard deviations (C, modes, k) in the k coordinates that matter."""
    rng = np.random.default_rng([cell.seed, 3])
    k = min(cell.dimensions, 9 if cell.classes > 2 or cell.unequal else cell.modes)
    shape = (cell.classes, cell.modes, k)
    means = rng.normal(size=shape)
    if cell.classes * cell.modes == 2 and not cell.unequal:
        means = np.array([-0.5, 0.5]).reshape(shape)
    spread = 0.35 if k > 3 else 0.6
    scales = np.exp(spread * rng.normal(size=shape)) if cell.unequal else np.ones(shape)
    return means, scales


@functools.cache
def _distance(cell: Cell) -> float:
    """How far apart the means must be for the Bayes error that the cell aims at."""
    means, scales = _gaussians(cell)
    low, high = 0.01, 400.0
    for _ in range(13):
        middle = math.sqrt(low * high)
        found = _mixture(means * middle, scales, _shares(cell), 5_000, np.random.default_rng(cell.seed))[1]
        if 1 - found.max(axis=1).mean() > max(cell.error, 1e-4):
            low = middle
        else:
            high = middle
    return high


def _mixture(
    means: np.ndarray, scales: np.ndarray, shares: np.ndarray, n: int, rng: np.random.Generator
) -> Core:
    """Rows from diagonal Gaussians (C, modes, k) with their classes' shares."""
    classes, modes, k = means.shape
    label, mode = rng.choice(classes, size=n, p=shares), rng.integers(modes, size=n)
    core = means[label, mode] + scales[label, mode] * rng.normal(size=(n, k))
    inverse = 1 / scales.reshape(-1, k) ** 2
    constant = (means.reshape(-1, k) ** 2 * inverse).sum(axis=1) / 2 + np.log(scales.reshape(-1, k)).sum(
        axis=1
    )
    log = core @ (means.reshape(-1, k) * inverse).T - constant
    log -= (
        core**2 @ inverse.T / 2
        if np.ptp(scales)
        else (core**2).sum(axis=1, keepdims=True) * inverse[0, 0] / 2
    )
    density = _log_sum(log.reshape(n, classes, modes))
    return core, _shared(density + np.log(shares))


def _log_sum(log: np.ndarray) -> np.ndarray:
    """Log densities (n, C, modes) -> of the classes (n, C)."""
    if log.shape[2] == 1:
        return log[:, :, 0]
    most = log.max(axis=2)
    with np.errstate(divide="ignore"):
        return most + np.log(np.exp((log - most[:, :, None]).astype(np.float32)).mean(axis=2))


def _shared(log: np.ndarray) -> np.ndarray:
    """Log densities (n, C) -> what each class has of them."""
    density = np.exp(log - log.max(axis=1, keepdims=True))
    return density / density.sum(axis=1, keepdims=True)


def _rings(cell: Cell, n: int, rng: np.random.Generator) -> Core:
    """Class c on a circle of radius c + 1, with Gaussian noise around it."""
    radius = 1.0 + np.arange(cell.classes)
    turn = rng.uniform(0, 2 * np.pi, n)
    on = radius[rng.integers(cell.classes, size=n), None] * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    core = on + cell.width * rng.normal(size=(n, 2))
    return core, _ring_posterior(np.hypot(*core.T), radius, cell.width)


def _ring_posterior(found: np.ndarray, radius: np.ndarray, width: float) -> np.ndarray:
    """Of a point at distance ``found`` (n,): the noise integrated over the circle is a Bessel function."""
    found = found[:, None]
    log = np.log(ive(0, found * radius / width**2)) - (found - radius) ** 2 / (2 * width**2)
    return _shared(log)


def _board(cell: Cell, n: int, rng: np.random.Generator) -> Core:
    """A checkerboard of ``modes`` x ``modes`` fields, whose points are seen ``width`` off."""
    spot = rng.uniform(0, cell.modes, size=(n, 2))
    core = spot + cell.width * rng.normal(size=(n, 2))
    edges = np.arange(cell.modes + 1)
    if cell.width:
        inside = np.diff(norm.cdf((edges - core[:, :, None]) / cell.width), axis=2)  # (n, 2, modes)
    else:
        inside = (np.floor(core)[:, :, None] == edges[:-1]).astype(float)
    even, odd = inside[:, :, ::2].sum(axis=2), inside[:, :, 1::2].sum(axis=2)
    both = np.stack(
        [even.prod(axis=1) + odd.prod(axis=1), even[:, 0] * odd[:, 1] + odd[:, 0] * even[:, 1]], 1
    )
    return core, both / both.sum(axis=1, keepdims=True)


def _arcs(cell: Cell, n: int, rng: np.random.Generator) -> Core:
    """Two moons or the arms of a spiral: 48 (a spiral: 96) Gaussians along the arc of each class."""
    if cell.family == "moons":
        turn = np.linspace(0, np.pi, 48)
        upper = np.stack([np.cos(turn), np.sin(turn)], axis=1)
        means = np.stack([upper, np.array([1, 0.5]) - upper])
    else:
        turn = np.sqrt(np.linspace(0.05, 1, 96)) * np.pi * cell.modes
        start = 2 * np.pi * np.arange(cell.classes)[:, None] / cell.classes
        means = turn[:, None] / np.pi * np.stack([np.cos(turn + start), np.sin(turn + start)], axis=2)
    return _mixture(means, np.full(means.shape, cell.width), _shares(cell), n, rng)


def _parity(cell: Cell, n: int, rng: np.random.Generator) -> Core:
    """Whether an odd number of the first ``modes`` signs is negative; each sign is seen ``width`` off."""
    core = rng.choice([-1.0, 1.0], size=(n, cell.modes)) + cell.width * rng.normal(size=(n, cell.modes))
    odd = (1 - np.tanh(core / cell.width**2).prod(axis=1)) / 2
    return core, np.stack([1 - odd, odd], axis=1)


def _embed(cell: Cell, core: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The coordinates that matter among ones that do not; a Gaussian mixture is turned and sheared, too."""
    n, more = len(core), cell.dimensions - core.shape[1]
    kind = {"board": lambda: rng.uniform(0, cell.modes, (n, more))}
    kind["parity"] = lambda: rng.choice([-1.0, 1.0], (n, more)) + cell.width * rng.normal(size=(n, more))
    values = np.hstack([core, kind.get(cell.family, lambda: rng.normal(size=(n, more)))()])
    if cell.family == "gauss" and cell.dimensions > 1:
        own = np.random.default_rng([cell.seed, 4])
        turn = np.linalg.qr(own.normal(size=(cell.dimensions, cell.dimensions)))[0]
        scale = np.exp(0.4 * own.normal(size=cell.dimensions))
        back = np.linalg.qr(own.normal(size=(cell.dimensions, cell.dimensions)))[0]
        values = values @ turn * scale @ back
    return values.astype(np.float32)


# --- label noise


def _noisy(cell: Cell, core: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """The posterior (n, C) after label noise."""
    rate, classes = cell.rate, cell.classes
    even = np.full(classes, 1 / classes)
    if cell.noise == "uniform":  # replaced by a class drawn evenly
        return (1 - rate) * clean + rate * even
    if cell.noise == "pair":  # called the next class
        return (1 - rate) * clean + rate * np.roll(clean, 1, axis=1)
    if cell.noise == "class":  # each class has its own rate, 0 to twice the rate, and its own confusions
        own = np.random.default_rng([cell.seed, 5])
        others = own.dirichlet(np.full(classes, 0.5), size=classes) * (1 - np.eye(classes)) + 1e-9
        others *= (1 - np.eye(classes)) / (others * (1 - np.eye(classes))).sum(axis=1, keepdims=True)
        rates = own.permutation(np.linspace(0, 2 * rate, classes))[:, None]
        return clean @ ((1 - rates) * np.eye(classes) + rates * others)
    if cell.noise == "entropy":  # the less certain a row is, the more often its label is drawn evenly
        unsure = -(clean * np.log(clean + 1e-300)).sum(axis=1, keepdims=True) / np.log(classes)
        return (1 - rate * unsure) * clean + rate * unsure * even
    if cell.noise == "coordinate":  # called the next class, the more often the larger the first coordinate is
        where = (core[:, :1] - core[:, 0].mean()) / core[:, 0].std()
        grown = 2 * rate / (1 + np.exp(-2 * where))
        return (1 - grown) * clean + grown * np.roll(clean, 1, axis=1)
    return clean


# --- the cells


def _measured() -> list[Cell]:
    sizes, errors = (2, 10, 50, 200), (0, 0.02, 0.1, 0.25)
    found = [Cell("gauss", c, d, 0, error=e) for c, d, e in product((2, 10), sizes, errors)]
    kinds: list[tuple[Noise, float]] = [("uniform", 0.2), ("uniform", 0.4), ("pair", 0.1), ("pair", 0.3)]
    kinds += [("class", 0.15), ("entropy", 0.6), ("coordinate", 0.15)]
    for number, (c, (noise, rate), e) in enumerate(product((2, 10), kinds, (0.02, 0.1))):
        for d in ((5, 50), (20, 100))[number % 2]:
            found.append(Cell("gauss", c, d, 0, error=e, noise=noise, rate=rate))
    some = list(product((2, 10), (0.02, 0.1)))
    found += [Cell("gauss", c, d, 0, error=e, unequal=True) for d in (2, 10, 50) for c, e in some]
    found += [Cell("gauss", 2, d, 0, error=e, modes=3) for d, e in some]
    found += [Cell("gauss", 2, 20, 0, error=e, shares=(0.85, 0.15)) for e in (0.02, 0.08)]
    shapes = [Cell("rings", c, d, 0, width=w) for c, d, w in ((2, 2, 0.12), (2, 2, 0.35), (3, 6, 0.25))]
    shapes += [Cell("board", 2, d, 0, width=w, modes=4) for d, w in ((2, 0.0), (2, 0.15), (4, 0.0))]
    shapes += [Cell("moons", 2, 2, 0, width=w) for w in (0.1, 0.3)]
    shapes += [Cell("spirals", 2, 2, 0, width=0.12, modes=3)]
    shapes += [Cell("parity", 2, d, 0, width=0.3, modes=k) for k, d in ((2, 6), (2, 20), (3, 8))]
    found += [*shapes, Cell("parity", 2, 20, 0, width=0.2, modes=3)]
    for noise, rate in kinds[:4:3]:
        found += [replace(cell, noise=noise, rate=rate) for cell in shapes]
    return found


def _random(count: int) -> list[Cell]:
    """Cells with everything drawn, families in turn."""
    rng = np.random.default_rng(2026)
    turns: tuple[Family, ...] = (
        "gauss",
        "gauss",
        "rings",
        "gauss",
        "board",
        "gauss",
        "moons",
        "gauss",
        "parity",
    )
    most: dict[Noise, float] = {"clean": 0, "uniform": 0.45, "pair": 0.35, "class": 0.25}
    most |= {"entropy": 0.9, "coordinate": 0.22}
    found = []
    for number in range(count):
        family = turns[number % len(turns)]
        cell = _some_gauss(rng) if family == "gauss" else _some_shape(family, rng)
        noise = list(most)[rng.choice(6, p=(0.35, 0.2, 0.2, 0.1, 0.08, 0.07))]
        found.append(replace(cell, noise=noise, rate=round(float(rng.uniform(0.2, 1)) * most[noise], 3)))
    return found


def _some_gauss(rng: np.random.Generator) -> Cell:
    classes = int(rng.choice([2, 3, 5, 8, 10, 15]))
    dimensions = int(np.exp(rng.uniform(np.log(2), np.log(180))))
    error = float(rng.choice([0, rng.uniform(0, 0.05), rng.uniform(0.03, 0.3)]))
    kind = rng.choice(4)  # plain twice, of several modes, unequal
    return Cell(
        "gauss",
        classes,
        dimensions,
        0,
        error=round(error, 3),
        modes=int(rng.choice([2, 4])) if kind == 2 and dimensions < 30 else 1,
        unequal=bool(kind == 3),
        shares=(0.75, 0.25) if classes == 2 and rng.random() < 0.3 else (),
    )


def _some_shape(family: Family, rng: np.random.Generator) -> Cell:
    width = round(float(rng.uniform(0.08, 0.4)), 3)
    if family == "rings":
        return Cell("rings", int(rng.choice([2, 3, 4])), int(rng.choice([2, 3, 5, 8])), 0, width=width)
    if family == "board":
        return Cell("board", 2, int(rng.choice([2, 3, 5])), 0, width=width / 2, modes=int(rng.choice([3, 5])))
    if family == "moons" and rng.random() < 0.6:
        return Cell("moons", 2, int(rng.choice([2, 4])), 0, width=width)
    if family == "moons":
        return Cell("spirals", int(rng.choice([2, 3])), 2, 0, width=width / 2, modes=int(rng.choice([2, 4])))
    bits = int(rng.choice([2, 3]))
    return Cell("parity", 2, int(rng.integers(6, 21 if bits == 2 else 12)), 0, width=width, modes=bits)


# --- Monte Carlo beside closed forms


def check() -> list[dict[str, float | str]]:
    """Largest difference in points between the Monte Carlo value and a closed form, per kind."""
    made: list[tuple[str, Cell, float]] = []
    for e in (0.02, 0.1, 0.25):
        plain = Cell("gauss", 2, 50, 7, error=e)
        clean = float(norm.cdf(-_distance(plain) / 2))
        made += [("two Gaussians: Phi(-D/2)", plain, clean)]
        for rate in (0.2, 0.4):
            noisy = replace(plain, noise="uniform", rate=rate)
            made += [("uniform: R + rate (1 - 1/C - R)", noisy, clean + rate * (0.5 - clean))]
            flipped = replace(plain, noise="pair", rate=rate)
            made += [("pair, C = 2: R + rate (1 - 2 R)", flipped, clean + rate * (1 - 2 * clean))]
    for k, width in product((2, 3), (0.3, 0.6)):
        misread = float(norm.cdf(-1 / width))
        made += [("parity", Cell("parity", 2, 8, 7, width=width, modes=k), (1 - (1 - 2 * misread) ** k) / 2)]
    for width in (0.12, 0.35):
        made += [("rings, integrated", Cell("rings", 3, 2, 7, width=width), _rings_integrated(3, width))]
    plain = Cell("gauss", 10, 20, 7, noise="pair", rate=0.3)
    made += [("ten Gaussians far apart, pair flips: rate", plain, 0.3)]
    made += [("board, uniform: rate / 2", Cell("board", 2, 2, 7, modes=4, noise="uniform", rate=0.3), 0.15)]
    named: dict[str, float] = {}
    for name, cell, value in made:
        named[name] = max(named.get(name, 0.0), abs(truth(cell) - value) * 100)
    return [{"closed form": name, "points off": round(value, 3)} for name, value in named.items()]


def _rings_integrated(classes: int, width: float) -> float:
    """The Bayes error of rings as an integral over the distance from the middle."""
    radius, at = 1.0 + np.arange(classes), np.linspace(0, classes + 10 * width, 40_001)[:, None]
    density = at / width**2 * ive(0, at * radius / width**2) * np.exp(-((at - radius) ** 2) / (2 * width**2))
    return float(1 - np.trapezoid(density.max(axis=1), at[:, 0]) / classes)


def main() -> None:
    parser = argparse.ArgumentParser(description="Data with known Bayes error")
    parser.add_argument("--check", action="store_true", help="compare Monte Carlo with closed forms")
    if parser.parse_args().check:
        facts = check()
        print(json.dumps(facts, indent=2))
        if max(float(fact["points off"]) for fact in facts) > 0.3:
            raise SystemExit("Monte Carlo must be within 0.3 points of every closed form")
        return
    start = time.perf_counter()
    found = {part: {cell.name: round(truth(cell), 5) for cell in cells(part)} for part in ("measure", "fit")}
    counts = {part: len(values) for part, values in found.items()}
    print(json.dumps({"cells": counts, "seconds": time.perf_counter() - start, **found}, indent=1))


if __name__ == "__main__":
    main()
