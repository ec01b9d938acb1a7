"""The frozen records that pass between the stages. Imports nothing of ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from ayatori.errors import AyatoriError, SchemaError

# the errors are at home in errors.py, which needs no numpy
__all__ = [
    "SCORE",
    "SEALED",
    "STOP",
    "UNUSED",
    "AyatoriError",
    "Blend",
    "Column",
    "Dataset",
    "Ensemble",
    "Entry",
    "Epoch",
    "Graph",
    "Group",
    "Last",
    "Look",
    "Map",
    "Member",
    "Plan",
    "Predictions",
    "Representation",
    "Schema",
    "SchemaError",
    "Score",
    "Task",
    "Vote",
]

Task = Literal["classification", "multilabel", "regression"]
LARGEST_LOG = 88.0  # of a value that float32 can hold


@dataclass(frozen=True)
class Schema:
    """How rows were read, so that more rows can be read the same way. Plain JSON values only.

    ``numbers``, ``dates`` and ``categories`` are column names of a table, ``month_first`` those of dates that
    are written as 1/31/2026; ``categories`` maps each column to its interned strings, sorted (code =
    position, missing = -1); ``texts`` does so for columns of texts: their terms, the commonest first, of
    which ``text_widths`` are kept of a row. ``image`` is ``(channels, height, width)``; ``crop`` and
    ``resample`` are those
    of ``DataRecipe``, and so are ``sound_seconds`` and ``sound_hertz`` where the pictures are of sound.
    ``bits``: that pictures of 16 bits use. ``slices``: the channels are slices of a scan, read as
    ``scan_window`` and ``scan_mm`` say.
    ``source``: facts of the pretrained network that the rows pass through, ``cut``, how many of its parts
    are frozen, and the ``dtype`` of its products. ``log``: the target of a Dataset are the
    logarithms of the values; what a model says of new rows are values.
    ``encoding``: of tables that are not UTF-8; ``bare``: how many columns a table has that no line names.
    ``series`` is ``(channels, steps)``, ``channels`` their names,
    ``stretch`` how many values are averaged into a step; ``columns`` are those of a table with a series in
    each row, channel by channel, and ``by`` names the series of a table with a step in each row.
    """

    kind: Literal["table", "pictures", "recordings", "scans", "series", "arrays"]
    task: Task
    classes: tuple[str, ...]
    target: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    dates: tuple[str, ...] = ()
    month_first: tuple[str, ...] = ()
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    texts: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False)
    text_widths: tuple[int, ...] = field(default=(), repr=False)
    image: tuple[int, int, int] | None = None
    id_column: str | None = None
    ignored: tuple[str, ...] = ()
    crop: float = 0.0
    resample: Literal["bilinear", "bicubic"] = "bilinear"
    sound_seconds: float = 0.0
    sound_hertz: float = 0.0
    source: Mapping[str, Any] | None = None
    slices: bool = field(default=False, repr=False)
    scan_window: str = field(default="", repr=False)
    scan_mm: float = field(default=0.0, repr=False)
    bits: int = field(default=0, repr=False)
    series: tuple[int, int] | None = field(default=None, repr=False)
    channels: tuple[str, ...] = field(default=(), repr=False)
    stretch: int = field(default=1, repr=False)
    columns: tuple[str, ...] = field(default=(), repr=False)
    by: str = field(default="", repr=False)
    log: bool = field(default=False, repr=False)
    encoding: str = field(default="", repr=False)
    bare: int = field(default=0, repr=False)


@dataclass(frozen=True)
class Dataset:
    """Labelled rows, numbered ``0 .. n-1`` for the whole run.

    **Shape** (n rows, p numbers, q categories, c channels, h height, w width)

    - ``inputs["numbers"]``: (n, p) float64, missing = NaN; nothing is scaled or filled in here
    - ``inputs["categories"]``: (n, q) int32 codes into ``schema.categories``, missing or unknown = -1
    - ``inputs["words"]``: (n, sum of ``text_widths``) int32, the terms of each row's texts, each once, -1
      behind the last one of a column; those of the second column are numbered on behind those of the first
    - ``inputs["image"]``: (n, c, h, w) uint8, possibly memory-mapped
    - ``inputs["series"]``: (n, channels, steps) float32, missing = NaN, also behind the end of shorter ones
    - ``inputs["features"]``: (n, d) float32, what a frozen network says of each row; ``"features_views"``:
      (n, views, d), the same of the row as it is and of varied ones, for training alone
    - ``inputs["activations"]``: (n, ...) float16, what its frozen parts say; ``"activations_views"`` likewise
    - ``target``: classification (n,) int64 codes into ``classes``; multilabel (n, labels) float32 of
      0 and 1; regression (n, values) float64, their logarithms where ``schema.log``; ``None`` when the rows
      carry no target
    """

    inputs: Mapping[str, np.ndarray]
    target: np.ndarray | None
    schema: Schema
    ids: np.ndarray  # (n,) str: what the user calls each row: an id column, a path, or its number
    groups: np.ndarray | None = None  # (n,) int64: rows of one group stay on one side of every split
    order: np.ndarray | None = None  # (n,) float64: time; later rows are scored, earlier rows train
    fixed_test: np.ndarray | None = None  # (n,) bool: rows that came from a test file or folder
    barred: np.ndarray | None = None  # (n,) bool: copies of rows of that test, from which nobody learns
    made: Any = None  # DataFrame (n, traits): how the file of each row was made, by its header
    begins: np.ndarray | None = None  # (n, texts) str: how the texts of each row begin, to be shown
    source: str = ""  # where the rows came from; a path when they can be read again
    fingerprint: str = ""  # hash of every value that was read
    notes: tuple[str, ...] = ()  # what was found or left out, in sentences

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def task(self) -> Task:
        return self.schema.task

    @property
    def classes(self) -> tuple[str, ...]:
        return self.schema.classes

    @property
    def labels(self) -> np.ndarray:
        """The target, for stages that cannot do without one."""
        if self.target is None:
            raise AyatoriError("these rows carry no target; name it with --target")
        return self.target


@dataclass(frozen=True)
class Column:
    """What one member of a Plan is. ``fold`` is -1 where folds do not apply.

    ``kind``: "fold" learns from all rows of its own, a "bag" from a bootstrap sample of them, a "round" of
    boosting from what earlier rounds got wrong, a "pair" never sees the fold ``other`` either, a
    "student" learns what an ensemble says, and a "plain" one is a fold again, with no class balanced. ``bag``
    and ``round`` count from 1.

    ``learning_rate`` and ``weight_decay`` are this member's own, or 0 and -1 for the recipe's; ``features``
    is the share of a table's columns that it may look at, drawn with its seed. ``augment``: the name of its
    own augmentation, "" for the recipe's.
    """

    fold: int = -1
    repeat: int = 0
    bag: int = 0
    round: int = 0
    net: str = "auto"
    seed: int = 0
    learning_rate: float = 0.0
    weight_decay: float = -1.0
    kind: Literal["fold", "bag", "round", "pair", "student", "plain"] = "fold"
    other: int = -1
    features: float = 1.0
    augment: str = ""


# One byte a cell: 1 .. 250 means "train, that many times".
UNUSED, STOP, SCORE, SEALED = 0, 251, 252, 253


@dataclass(frozen=True)
class Plan:
    """Which member trains on, stops by, and is scored on which row.

    **Shape** ``roles`` (n, m) uint8: 0 not used, 1..250 train that many times, STOP, SCORE, SEALED.
    """

    roles: np.ndarray
    columns: tuple[Column, ...]
    strategy: str = "kfold"

    @property
    def members(self) -> int:
        return len(self.columns)

    @property
    def sealed(self) -> np.ndarray:
        """(n,) bool: rows that no member may learn from or look at."""
        return (self.roles == SEALED).any(axis=1)

    def counts(self, member: int) -> np.ndarray:
        """(n,) uint8: how often ``member`` trains on each row."""
        roles = self.roles[:, member]
        return np.where(roles <= 250, roles, 0).astype(np.uint8)

    def train_rows(self, member: int) -> np.ndarray:
        return np.flatnonzero(self.counts(member))

    def rows(self, member: int, role: int) -> np.ndarray:
        """Row numbers with ``role`` (STOP, SCORE or SEALED) for ``member``."""
        return np.flatnonzero(self.roles[:, member] == role)

    @property
    def typical(self) -> tuple[int, ...]:
        """Whom settings and steps are made for: members that learn from all rows of a fold, if any."""
        whole = tuple(m for m, column in enumerate(self.columns) if column.kind == "fold")
        return whole or tuple(range(self.members))

    def only(self, members: Sequence[int]) -> Plan:
        """The Plan of some members alone, numbered anew."""
        picked = tuple(self.columns[member] for member in members)
        return Plan(self.roles[:, list(members)], picked, self.strategy)

    def beside(self, roles: np.ndarray, columns: Sequence[Column]) -> Plan:
        """This Plan with more members: ``roles`` (n, more)."""
        return Plan(np.concatenate([self.roles, roles], axis=1), (*self.columns, *columns), self.strategy)


@dataclass(frozen=True)
class Epoch:
    """One line of a member's history. Losses are means per row; ``seconds`` is wall time."""

    member: int
    epoch: int
    train_loss: float
    stop_loss: float
    learning_rate: float
    seconds: float
    note: str = ""


@dataclass(frozen=True)
class Member:
    """One trained network: ``network`` holds its best weights, in evaluation mode."""

    index: int
    column: Column
    network: Any  # nets.network.Network; typed Any so that this file needs no torch
    history: tuple[Epoch, ...]
    best_epoch: int
    reason: str
    seconds: float


@dataclass(frozen=True)
class Predictions:
    """What every member says of every row it never saw.

    **Shape** ``values`` (m, n, c) float32: probabilities per class or label, or values in the units of
    the target; NaN where ``unseen`` (m, n) bool is False, that is where a row taught or stopped the member.
    """

    values: np.ndarray
    unseen: np.ndarray
    name: str = "network"
    seconds: float = 0.0  # prediction time of all rows by all members
    seconds_train: float = 0.0  # training time of all members
    models: tuple[Any, ...] = ()  # the fitted rivals, where they are kept
    drawn: int = 0  # rows of a fold that a rival learned from, where they are not all

    def only(self, members: Sequence[int]) -> Predictions:
        """What some of the members say."""
        part, picked = len(members) / len(self.values), list(members)
        return Predictions(
            self.values[picked],
            self.unseen[picked],
            self.name,
            self.seconds * part,
            self.seconds_train * part,
            tuple(self.models[member] for member in picked) if self.models else (),
            self.drawn,
        )


@dataclass(frozen=True)
class Group:
    """Voices that answer as one.

    ``voices`` are numbers of members (of a model: of its networks, then its rivals). ``weights`` are
    positive and sum to 1; () = all the same. ``how``: "mean"; "geometric", of probabilities; "majority", the
    share of votes, ties by probability; "median", weighted; or "sum", where a voice is a step of logits (or
    values), ``weights`` are the lengths of the steps, and ``start`` (outputs,) is where they begin.
    """

    voices: tuple[int, ...]
    weights: tuple[float, ...] = ()
    how: Literal["mean", "geometric", "majority", "median", "sum"] = "mean"
    start: tuple[float, ...] = ()


@dataclass(frozen=True)
class Last:
    """The last model of a stack, on what k groups say.

    Without ``model``: logits (or values) = sum over groups of weight times logarithm of probability (or
    value), plus ``bias`` (outputs,). Else ``model`` is a fitted scikit-learn estimator on all groups' outputs
    side by side, behind which stand the raw inputs where ``inputs`` is true.
    """

    weights: tuple[float, ...] = ()
    bias: tuple[float, ...] = ()
    model: Any = None
    inputs: bool = False


@dataclass(frozen=True)
class Vote:
    """How voices become one answer: each group answers, then their mean, or a last model, speaks."""

    groups: tuple[Group, ...]
    last: Last | None = None


@dataclass(frozen=True)
class Ensemble:
    """One way to make one answer of many members.

    ``folds``: who says the held-out rows of each (repeat, fold); ``vote``: who says sealed and new rows.
    ``trained``: the members that had to be trained for it, where they are more than those that are heard.
    """

    name: str  # mean, bagging, boosting, ...
    title: str  # its line on the leaderboard
    folds: Mapping[tuple[int, int], Group]
    vote: Vote
    trained: tuple[int, ...] = ()


@dataclass(frozen=True)
class Blend:
    """One prediction a row, by a model or an ensemble, for the rows where it is honest.

    **Shape** ``values`` (n, c) float32, NaN where not ``rows`` (n,) bool. ``split`` is "out_of_fold"
    or "test"; ``fold`` (n,) int16 is the member's fold, -1 where several members speak.
    """

    name: str
    split: Literal["out_of_fold", "test"]
    values: np.ndarray
    rows: np.ndarray
    fold: np.ndarray
    network: bool = True  # False for the simple rivals
    members: tuple[int, ...] = ()
    seconds_train: float = 0.0
    seconds_predict: float = 0.0
    ensemble: str = "mean"  # what is delivered where this line is chosen; "" = it cannot be
    single: bool = False  # one network a row
    vote: Vote | None = None  # on the test: how new rows are answered; None = the mean of ``members``
    decided: np.ndarray | None = None  # (n, c) whose largest is what is said; None = that of ``values``
    rule: np.ndarray | None = None  # how new rows are decided, see ``evaluate.decision``
    drawn: int = 0  # see ``Predictions``


@dataclass(frozen=True)
class Score:
    """A figure with its 95 % interval, which always contains it; ``n`` rows. ``spread`` is the standard
    deviation over folds (NaN for one)."""

    value: float
    low: float
    high: float
    n: int
    spread: float = float("nan")


@dataclass(frozen=True)
class Entry:
    """One line of the leaderboard. ``paired`` compares, on the same rows, an ensemble with the best single
    network, and a rival with the best network or ensemble (on the test: with what was chosen); ``against``
    says with whom."""

    name: str
    split: str
    scores: Mapping[str, Score]
    network: bool
    seconds: Mapping[str, float]  # "train", "predict"
    paired: Mapping[str, float] = field(default_factory=dict)  # difference, low, high, p, n; loss, ...
    against: str = ""
    drawn: int = 0  # see ``Predictions``


@dataclass(frozen=True)
class Representation:
    """The inputs of all rows as points. **Shape** ``values`` (n, d) float32, finite; the scale and all else
    that was fitted comes from development rows."""

    name: str
    values: np.ndarray
    note: str = ""


@dataclass(frozen=True)
class Graph:
    """The nearest other rows of some rows.

    **Shape** ``rows`` (q,) int64: who was asked; ``indices`` (q, k) int64: the k nearest other rows, nearest
    first; ``distances`` (q, k) float32, Euclidean.
    """

    rows: np.ndarray
    indices: np.ndarray
    distances: np.ndarray


@dataclass(frozen=True)
class Map:
    """Rows drawn in 2 or 3 dimensions, and how far the drawing can be believed (all from 0 to 1).

    **Shape** ``points`` (r, dimensions) float32 of ``rows`` (r,). ``trustworthiness`` is low where the map
    shows neighbours that are none, ``continuity`` where it tears neighbours apart (Venna & Kaski 2001);
    ``agreement`` is the share of a row's nearest rows in the map that have its class, ``agreement_full``
    the same in the full space.
    """

    name: str  # pca, tsne, umap
    of: str  # the representation
    rows: np.ndarray
    points: np.ndarray
    trustworthiness: float
    continuity: float
    agreement: float
    agreement_full: float


@dataclass(frozen=True)
class Look:
    """What can be said before training. ``facts`` is the content of explore.json, ``table`` that of
    explore.parquet; the data frames hold numbers of rows."""

    verdict: str  # feasible, likely, not with this data, undecided, no class structure, too few rows
    sentence: str
    expected: tuple[float, float] | None  # accuracy (R2) that a network trained now would reach, 90 %
    ceiling: tuple[float, float] | None  # best accuracy (R2) that labels and features allow, 90 %
    maps: Mapping[str, np.ndarray]  # "pca", "tsne", "umap": (rows, 3); "tsne_2d", "umap_2d": (rows, 2)
    duplicates: Any
    leaks: Any
    suspects: Any
    outliers: Any
    table: Any
    facts: Mapping[str, Any]
    pictures: Mapping[str, np.ndarray] | None = None  # "rows" (t,), "pixels" (t, c, s, s) uint8
