"""Stage 8. Truth, predictions -> figures, each with n and a 95 % interval.

What cannot be said of the rows at hand (a ROC curve of one class) is left out, so that no figure is NaN.
The intervals tell how the figures of *these trained models* would vary with other scored rows of
the same kind; not how training again on other rows would move them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from ayatori.evaluate.intervals import Sample, Share, average, mean, sample, share, skewed
from ayatori.records import AyatoriError, Score, Task

MAIN: Mapping[Task, str] = {"classification": "log_loss", "multilabel": "log_loss", "regression": "rmse"}
LOWER = frozenset({"log_loss", "brier", "ece", "rmse", "mae"})  # smaller is better

METHODS: Mapping[str, str] = {
    "accuracy": "share of rows whose most probable class is the true one (several labels: of labels told "
    "right at 0.5); Wilson's interval",
    "balanced_accuracy": "mean over the classes present of the share of their rows told right; Wilson's "
    "interval of the size that varies as much",
    "macro_f1": "mean over classes of the harmonic mean of precision and recall; variance by the "
    "infinitesimal jackknife, Wilson's interval of the size that varies as much",
    "exact_match": "share of rows with every label told right at 0.5; Wilson's interval",
    "log_loss": "mean of minus the natural logarithm of the probability given to the truth, clipped at "
    "1.2e-7; Student's t with Hall's correction for skewness",
    "roc_auc": "area under the ROC curve (two classes: of the second; more: mean of each class against the "
    "rest); variance after DeLong, Wilson's interval of the size that varies as much",
    "average_precision": "area under the precision-recall steps (two classes: of the second; more: mean over "
    "classes); variance by the infinitesimal jackknife, Wilson's interval of the size that varies as much",
    "brier": "mean squared distance between probabilities and truth (two classes: of the second, 0 to 1; "
    "more: summed over classes, 0 to 2, Brier 1950); Student's t with Hall's correction",
    "ece": "expected calibration error: mean distance between confidence and accuracy in 15 bins of equal "
    "width (Guo et al. 2017); simulated from the errors of the bins, from 0 where no miscalibration is shown",
    "rmse": "root of the mean squared error, in units of the target; Student's t with Hall's correction, on "
    "the squares",
    "mae": "mean absolute error, in units of the target; Student's t with Hall's correction for skewness",
    "r2": "share of the variance explained; infinitesimal jackknife, Student's t with Hall's correction",
    "paired": "difference on the same rows, positive where the first is better. Classes: in accuracy, "
    "McNemar's mid-p (Fagerland 2013) and the interval of Bonett and Price (2012); otherwise: in labels "
    "told right or in mean absolute error (several values: each in standard deviations), paired t; in log "
    "loss: paired t; rows in groups: t over groups",
    "spread": "standard deviation over folds",
    "groups": "where rows come in groups, whole groups are the observations of every interval",
}

BINS = 15
Pairs = Iterable[tuple[np.ndarray, np.ndarray]]  # of each class: is it (n,), what was said of it (n,)
EPSILON = float(np.finfo(np.float32).eps)


def score(
    truth: np.ndarray,
    values: np.ndarray,
    task: Task,
    classes: Sequence[str] = (),
    groups: np.ndarray | None = None,
    decided: np.ndarray | None = None,
) -> dict[str, Score]:
    """Every figure that fits the task; ``METHODS`` says what each is and where its interval comes from.

    **Shape** (n rows, c classes, labels or values)

    - ``truth``: classification (n,) int codes into ``classes``; multilabel (n, c) of 0 and 1;
      regression (n, c)
    - ``values``: (n, c) probabilities, or values in the units of the target
    - ``groups``: (n,) rows that share a value are not independent
    - ``decided``: (n, c) whose largest (several labels: above 0.5) is what is said, if not ``values``

    >>> truth = np.array([0, 0, 1, 1])
    >>> said = np.array([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.2, 0.8]])
    >>> accuracy = score(truth, said, "classification", ("cat", "dog"))["accuracy"]
    >>> accuracy.value, round(accuracy.low, 3), round(accuracy.high, 3), accuracy.n
    (0.75, 0.301, 0.954, 4)
    """
    n = len(truth)
    if len(values) != n:
        raise AyatoriError(f"truth and predictions must have the same rows, however: {n} and {len(values)}")
    if not n:
        return {}
    if not np.isfinite(values).all():
        raise AyatoriError(f"predictions must be finite, however {int((~np.isfinite(values)).sum())} are not")
    figures = {"classification": _classification, "multilabel": _multilabel, "regression": _regression}[task]
    rows = sample(n, groups)
    values = np.asarray(values, np.float64)
    found = figures(np.asarray(truth), values, rows, values if decided is None else decided)
    return {name: figure for name, figure in found.items() if figure is not None}


def score_folds(
    truth: np.ndarray,
    values: np.ndarray,
    fold: np.ndarray,
    task: Task,
    classes: Sequence[str] = (),
    groups: np.ndarray | None = None,
    decided: np.ndarray | None = None,
) -> dict[str, Score]:
    """``score`` of all rows, and over the folds in ``fold`` (n,) int the spread of each figure.

    A fold of -1 is none. The spread is the standard deviation (divisor folds - 1) and stays NaN where fewer
    than two folds can say the figure.
    """
    figures = score(truth, values, task, classes, groups, decided)
    parts = [fold == number for number in np.unique(fold[fold >= 0])]
    if len(parts) < 2:
        return figures
    said = values if decided is None else decided
    each = [score(truth[part], values[part], task, classes, None, said[part]) for part in parts]
    spreads = {name: [one[name].value for one in each if name in one] for name in figures}
    return {
        name: dataclasses.replace(figure, spread=float(np.std(spreads[name], ddof=1)))
        if len(spreads[name]) > 1
        else figure
        for name, figure in figures.items()
    }


def _classification(
    truth: np.ndarray, values: np.ndarray, rows: Sample, decided: np.ndarray
) -> dict[str, Score | None]:
    said = decided.argmax(axis=1)
    right = said == truth
    own = values[np.arange(rows.n), truth]
    columns = [1] if values.shape[1] == 2 else range(values.shape[1])
    several = len(np.unique(truth)) > 1
    pairs = [(truth == column, values[:, column]) for column in columns]
    choices = ((truth == column, said == column) for column in range(values.shape[1]))
    return {
        "accuracy": average([_share(right, rows)], rows),
        "balanced_accuracy": average(_recalls(truth, right, rows), rows) if several else None,
        "macro_f1": average(_f1s(choices, rows), rows),
        "log_loss": mean(-np.log(np.clip(own, EPSILON, 1 - EPSILON)), rows),
        "roc_auc": average(_curves(pairs, rows), rows),
        "average_precision": average(_precisions(pairs, rows), rows),
        "brier": mean(_squares(truth, values), rows),
        "ece": _calibration(values.max(axis=1), values.argmax(axis=1) == truth, rows),
    }


def _multilabel(
    truth: np.ndarray, values: np.ndarray, rows: Sample, decided: np.ndarray
) -> dict[str, Score | None]:
    yes = truth > 0.5
    said = decided > 0.5
    right = said == yes
    labels = range(values.shape[1])
    clipped = np.clip(np.where(yes, values, 1 - values), EPSILON, 1 - EPSILON)
    pairs = [(yes[:, label], values[:, label]) for label in labels]
    return {
        "accuracy": average((_share(right[:, label], rows) for label in labels), rows),
        "exact_match": average([_share(right.all(axis=1), rows)], rows),
        "macro_f1": average(_f1s(((yes[:, label], said[:, label]) for label in labels), rows), rows),
        "log_loss": mean(-np.log(clipped).mean(axis=1), rows),
        "roc_auc": average(_curves(pairs, rows), rows),
        "average_precision": average(_precisions(pairs, rows), rows),
        "brier": mean(((values - yes) ** 2).mean(axis=1), rows),
    }


def _regression(
    truth: np.ndarray, values: np.ndarray, rows: Sample, decided: np.ndarray
) -> dict[str, Score | None]:
    truth = truth.reshape(rows.n, -1)
    errors = values.reshape(rows.n, -1) - truth
    return {
        "rmse": _root(errors**2, rows),
        "mae": mean(np.abs(errors).mean(axis=1), rows),
        "r2": _explained(truth, errors**2, rows),
    }


def _share(right: np.ndarray, rows: Sample) -> Share:
    value = float(right.mean())
    return share(value, (right - value) / rows.n, rows.n, rows)


def _recalls(truth: np.ndarray, right: np.ndarray, rows: Sample) -> Iterator[Share]:
    for label in np.unique(truth):
        own = truth == label
        size = int(own.sum())
        value = float(right[own].mean())
        yield share(value, np.where(own, right - value, 0.0) / size, size, rows)


def _f1s(pairs: Pairs, rows: Sample) -> Iterator[Share]:
    """F1 of each class from (is, said to be); a class that neither is nor is said has none."""
    for own, said in pairs:
        both = int(own.sum()) + int(said.sum())
        if both:
            hits = own & said
            value = 2 * int(hits.sum()) / both
            pull = (2.0 * hits - value * (own.astype(float) + said)) / both
            yield share(value, pull, both, rows)


def _curves(pairs: Pairs, rows: Sample) -> Iterator[Share]:
    """Area under the ROC curve of each class; a row pulls by the share of others it is right of."""
    for own, scores in pairs:
        up, down, back = _ranked(own, scores)
        positives, negatives = up.sum(), down.sum()
        if positives and negatives:
            beaten = (np.cumsum(down) - down / 2) / negatives
            beats = 1 - (np.cumsum(up) - up / 2) / positives
            value = float((up * beaten).sum() / positives)
            # DeLong's divisors are positives - 1 and negatives - 1
            a = np.sqrt(positives * max(positives - 1, 1))
            b = np.sqrt(negatives * max(negatives - 1, 1))
            pull = np.where(own, (beaten[back] - value) / a, (beats[back] - value) / b)
            yield share(value, pull, 4 / (1 / positives + 1 / negatives), rows)


def _precisions(pairs: Pairs, rows: Sample) -> Iterator[Share]:
    """Average precision of each class: mean over its rows of the precision at their score."""
    for own, scores in pairs:
        up, down, back = _ranked(own, scores)
        positives = up.sum()
        if positives and down.sum():
            hits = positives - np.cumsum(up) + up  # positives at this score or above
            called = hits + down.sum() - np.cumsum(down) + down
            precision = hits / called
            value = float((up * precision).sum() / positives)
            gains, losses = np.cumsum(up / called), np.cumsum(up * hits / called**2)
            pull = (own * (precision[back] - value + gains[back]) - losses[back]) / positives
            yield share(value, pull, positives, rows)


def _ranked(own: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positives and negatives (t,) at each of the t distinct scores, lowest first; whose is which (n,)."""
    distinct, back = np.unique(scores, return_inverse=True)
    up = np.bincount(back, own, len(distinct))
    return up, np.bincount(back) - up, back


def _squares(truth: np.ndarray, values: np.ndarray) -> np.ndarray:
    if values.shape[1] == 2:
        return (values[:, 1] - truth) ** 2
    own = values[np.arange(len(truth)), truth]
    return (values**2).sum(axis=1) - 2 * own + 1


def _calibration(confidence: np.ndarray, right: np.ndarray, rows: Sample) -> Score | None:
    """Expected calibration error. Its sampling noise is that of the bins, so only they are simulated."""
    if rows.units < 2:
        return None
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gap = (confidence - right) / rows.n
    sums = np.bincount(bins, gap, BINS)
    value = float(np.abs(sums).sum())
    if rows.codes is None:
        covariance = np.diag(np.bincount(bins, gap**2, BINS)) - np.outer(sums, sums) / rows.n
    else:
        cells = np.bincount(rows.codes * BINS + bins, gap, rows.units * BINS).reshape(rows.units, BINS)
        covariance = (cells.T @ cells - np.outer(sums, sums) / rows.units) * rows.units / (rows.units - 1)
    generator = np.random.default_rng(0)
    noise = generator.multivariate_normal(
        np.zeros(BINS), covariance * (rows.z / 1.96) ** 2, 2000, method="eigh"
    )
    low, high = 2 * value - np.quantile(np.abs(sums + noise).sum(axis=1), [0.975, 0.025])
    # were every confidence true, this much would be seen: then nothing above 0 is shown
    fair = np.bincount(bins, confidence * (1 - confidence), BINS) / rows.n**2
    chance = generator.normal(size=(2000, BINS)) * np.sqrt(np.maximum(fair, np.diag(covariance)))
    if value <= np.quantile(np.abs(chance).sum(axis=1), 0.975):
        low = 0.0
    return Score(value, float(np.clip(low, 0, value)), float(np.clip(high, value, 1)), rows.n)


def _root(squares: np.ndarray, rows: Sample) -> Score | None:
    """Root mean squared error, averaged over the values, of ``squares`` (n, c)."""
    if squares.shape[1] == 1:
        whole = mean(squares[:, 0], rows)
        if whole is None:
            return None
        value, low, high = np.sqrt([whole.value, whole.low, whole.high])
        return Score(float(value), float(low), float(high), rows.n)
    roots = np.sqrt(squares.mean(axis=0))
    pull = (squares - roots**2) / (2 * rows.n * np.where(roots > 0, roots, 1.0))
    return skewed(float(roots.mean()), pull.mean(axis=1), rows) if rows.units > 1 else None


def _explained(truth: np.ndarray, squares: np.ndarray, rows: Sample) -> Score | None:
    """R2 averaged over the values; left out where one never varies."""
    around = (truth - truth.mean(axis=0)) ** 2
    total = around.sum(axis=0)
    if rows.units < 2 or not (total > 0).all():
        return None
    left = squares.sum(axis=0) / total
    missed = skewed(float(left.mean()), ((squares - left * around) / total).mean(axis=1), rows)
    return Score(1 - missed.value, 1 - missed.high, 1 - missed.low, rows.n)
