"""What a run hands over: networks, how they vote, and the way rows are read. New rows -> predictions."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from ayatori.archives import archive_of, unpacked
from ayatori.augment import views
from ayatori.data import load_like, read_blocks
from ayatori.data.blocks import Progress
from ayatori.data.files import open_table
from ayatori.embed import Frozen, embed
from ayatori.ensemble import answer
from ayatori.evaluate import Fitted, whole_table
from ayatori.evaluate.decision import leaning
from ayatori.evaluate.matrix import without_words
from ayatori.nets import HEADS, Network
from ayatori.records import LARGEST_LOG, AyatoriError, Blend, Dataset, Member, Predictions, Schema, Vote
from ayatori.train import Together

BLOCK = 2**14  # rows that all networks answer for before the next


@dataclass(frozen=True)
class Model:
    """One network, or several that answer as one: by ``vote``, or by their mean where there is none.

    The voices of ``vote`` are the networks, then the ``rivals`` that a stack listens to.
    """

    name: str
    schema: Schema
    networks: tuple[Network, ...]
    vote: Vote | None = None
    rivals: tuple[Fitted, ...] = ()
    frozen: Frozen | None = None  # what rows pass through before the networks see them
    device: str = "auto"
    rule: np.ndarray | None = None  # how labels are decided, where it is not the likeliest (see ``decide``)
    tta: tuple[Any, int] = ("none", 1)  # an augmentation, and how many views of a picture are averaged
    _together: list[Together] = field(default_factory=list, init=False, repr=False, compare=False)

    def read(self, data: Any, ids: str = "") -> Dataset:
        """Rows as this model reads them; their target is not needed. ``ids``: the column that names them."""
        return load_like(data, self.schema, ids=ids)

    def blocks(self, data: Any, ids: str = "", progress: Progress | None = None) -> Iterator[Dataset]:
        """The rows that ``read`` gives, a bounded number at a time, for data larger than memory.

        Their predictions one after another are those of all rows at once, bit for bit. The target is not
        read; ``notes`` of the last block are those of all. See ``ayatori.data.read_blocks``.
        """
        return read_blocks(data, self.schema, ids, progress)

    def predict_values(self, dataset: Dataset) -> np.ndarray:
        """(rows, outputs) float32: probability of each class or label, or values in their own units."""
        rows = np.arange(len(dataset))
        if (passed := self.passed) is not None:
            dtype = (self.schema.source or {}).get("dtype", "auto")
            dataset = embed(dataset, passed, self.device, dtype=dtype)
        if not self._together:
            self._together.append(Together(self.networks, dataset.inputs, views(*self.tta)))
        outputs = self.networks[0].spec.outputs
        inputs = whole_table(dataset)[0] if self._reads_table else None
        found = np.zeros((len(rows), outputs), np.float32)
        for start in range(0, len(rows), BLOCK):
            part = rows[start : start + BLOCK]
            said = self._together[0].predict(dataset.inputs, [part] * len(self.networks))
            if self.vote is None:
                total = np.zeros((len(part), outputs))
                for values in said:
                    total += values
                found[part] = total / len(said)
                continue
            own = None if inputs is None else inputs[part]
            said += [rival.predict(own, outputs) for rival in self.rivals if own is not None]
            plain = None if own is None else without_words(own, dataset)
            found[part] = answer(np.stack(said), self.vote, self.schema.task, plain)
        return np.exp(found.clip(-LARGEST_LOG, LARGEST_LOG)) if self.schema.log else found

    def leaning(self, values: np.ndarray) -> np.ndarray:
        """(rows, outputs) whose largest (several labels: above 0.5) is what is said of a row."""
        return values if self.rule is None else leaning(values, self.rule, self.schema.task)

    @property
    def passed(self) -> Frozen | None:
        """As much of the frozen network as the voices of this model stand on."""
        if self.frozen is None:
            return None
        heads = [network.spec.name in HEADS for network in self.networks]
        cut = None if all(heads) else self.frozen.cut
        return Frozen(self.frozen.source, cut, self._reads_table or any(heads))

    @property
    def _reads_table(self) -> bool:
        last = self.vote and self.vote.last
        return bool(self.rivals) or bool(last and last.inputs)

    def predict_table(self, dataset: Dataset) -> pd.DataFrame:
        """One line a row: its id, the prediction, and p_<class> where there are classes."""
        values = self.predict_values(dataset)
        table = pd.DataFrame({"id": dataset.ids})
        if self.schema.task == "regression":
            names = self.schema.target if len(self.schema.target) == values.shape[1] else ("value",)
            for number in range(values.shape[1]):
                table[names[number] if len(names) > 1 else "value"] = values[:, number]
            return table
        classes = np.asarray(self.schema.classes, dtype=object)
        leans = self.leaning(values)
        if self.schema.task == "classification":
            table["label"] = classes[leans.argmax(axis=1)]
        else:
            table["label"] = [" ".join(classes[row > 0.5]) for row in leans]
        for number, name in enumerate(classes):
            table[f"p_{name}"] = values[:, number]
        return table


def deliver(
    name: str,
    blends: Sequence[Blend],
    members: Sequence[Member],
    stacked: Sequence[Predictions],
    schema: Schema,
    frozen: Frozen | None = None,
    tta: tuple[Any, int] = ("none", 1),
    rules: Mapping[int, np.ndarray] = MappingProxyType({}),
) -> Model:
    """The model behind line ``name`` of the leaderboard: a network, all folds' networks, or an ensemble.

    ``stacked``: the rivals that a stack may listen to; their fitted models are voices after all ``members``.
    ``rules``: how each member decides, where it does not say the likeliest class.
    """
    if not blends:  # rotated without a test: nothing can be scored
        best = int(np.argmin([min((e.stop_loss for e in m.history), default=np.inf) for m in members]))
        only = (members[best].network,)
        name = f"best of {len(members)}, rotated"
        return Model(name, schema, only, frozen=frozen, rule=rules.get(best), tta=tta)
    blend = next(blend for blend in blends if blend.name == name and blend.network)
    vote = next((one.vote for one in blends if one.ensemble == blend.ensemble and one.vote), None)
    if vote is None:
        networks = tuple(members[index].network for index in blend.members)
        whole = len(networks) == 1 or blend.split == "test"
        name = name if whole else f"mean of {len(networks)} networks"
        return Model(name, schema, networks, frozen=frozen, rule=blend.rule, tta=tta)
    heard = sorted({voice for group in vote.groups for voice in group.voices})
    place = {voice: number for number, voice in enumerate(heard)}
    groups = [dataclasses.replace(g, voices=tuple(place[voice] for voice in g.voices)) for g in vote.groups]
    folds = len(set(vote.groups[-1].voices)) if stacked else 0
    fitted = [model for rival in stacked for model in rival.models[:folds]]
    return Model(
        name,
        schema,
        tuple(members[voice].network for voice in heard if voice < len(members)),
        Vote(tuple(groups), vote.last),
        tuple(fitted[voice - len(members)] for voice in heard if voice >= len(members)),
        frozen,
        rule=blend.rule,
        tta=tta,
    )


def read_sample(path: str | Path) -> pd.DataFrame:
    """A sample submission; its ids stay text, so that 007 stays 007."""
    path = unpacked(path) if archive_of(Path(path)) else path
    try:
        head = pd.read_csv(path, nrows=0)
        return pd.read_csv(path, dtype={head.columns[0]: str})
    except (OSError, ValueError, IndexError) as error:
        raise AyatoriError(f"a sample submission must be a CSV, however '{path}': {error}") from None


def id_column(sample: pd.DataFrame, data: Path, schema: Schema) -> str:
    """The sample's id column, where a table of new rows has a column of that name; else ""."""
    name = str(sample.columns[0])
    data = unpacked(data)
    is_table = data.is_file() and data.suffix.lower() != ".npz"
    return name if is_table and name in open_table(data, schema.encoding).names else ""


def submission(table: pd.DataFrame, like: pd.DataFrame, schema: Schema) -> pd.DataFrame:
    """``table`` (see ``Model.predict_table``) in the columns, ids and order of a sample submission.

    The first column of ``like`` holds the ids (of pictures: paths, names, or names without their ending).
    Every other column takes the probability of the class it names, else the label (or the value).
    """
    if like.columns.empty or like.shape[1] < 2:
        raise AyatoriError(
            f"a sample submission must have an id column and another, however: {list(like.columns)}"
        )
    ids = like.iloc[:, 0]
    mine = table.set_index("id")
    for short in (lambda path: PurePath(path).name, lambda path: PurePath(path).stem):
        # a sample may name pictures without their folder or ending
        if not set(ids) & set(mine.index):
            mine.index = table["id"].map(short)
    if mine.index.has_duplicates or ids.duplicated().any():
        twice = [*mine.index[mine.index.duplicated()], *ids[ids.duplicated()]][0]
        raise AyatoriError(f"ids must be unique, however {twice!r} stands twice")
    missing, extra = sorted(set(ids) - set(mine.index)), sorted(set(mine.index) - set(ids))
    if missing or extra:
        what = f"{len(missing)} ids of the sample are missing from the data" if missing else ""
        what += " and " if missing and extra else ""
        what += f"{len(extra)} rows of the data are not in the sample" if extra else ""
        raise AyatoriError(
            f"data and sample must hold the same ids, however {what} (e.g. {(missing or extra)[0]!r})"
        )
    mine = mine.loc[ids]
    result = pd.DataFrame({like.columns[0]: like.iloc[:, 0]})
    for name in like.columns[1:]:
        source = _source(str(name), mine, schema, len(like.columns) == 2)
        values = mine[source].to_numpy()
        if source == "label" and like[name].notna().any() and pd.api.types.is_numeric_dtype(like[name]):
            values = pd.to_numeric(pd.Series(values, dtype=object)).to_numpy()
        result[name] = values
    return result


def _source(name: str, mine: pd.DataFrame, schema: Schema, alone: bool) -> str:
    for candidate in (f"p_{name}", name.removeprefix("p_") and f"p_{name.removeprefix('p_')}", name):
        if candidate in mine.columns:
            return candidate
    if alone:
        return "value" if schema.task == "regression" else "label"
    raise AyatoriError(
        f"columns of a sample submission must name classes ({', '.join(schema.classes[:5])}, ...), "
        f"however: {name!r}"
    )
