"""What a run hands over: networks and the way rows are read. New rows -> predictions."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pandas as pd
import safetensors
import safetensors.torch

from ayatori.data import load_like, read_blocks
from ayatori.data.blocks import Progress
from ayatori.data.files import open_table
from ayatori.nets import NetSpec, Network, find_net, rebuild
from ayatori.recipe import NetRecipe
from ayatori.records import AyatoriError, Dataset, Schema
from ayatori.store import RunFolder, digest
from ayatori.train import Together, pick_device

FORMAT = 1
BLOCK = 2**14  # rows that all networks answer for before the next


@dataclass(frozen=True)
class Model:
    """One network, or several whose probabilities or values are averaged."""

    name: str
    schema: Schema
    networks: tuple[Network, ...]
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
        """(rows, outputs) float32: mean probability of each class or label, or mean values."""
        rows = np.arange(len(dataset))
        if not self._together:
            self._together.append(Together(self.networks, dataset.inputs))
        total = np.zeros((len(rows), self.networks[0].spec.outputs), np.float64)
        for start in range(0, len(rows), BLOCK):
            part = rows[start : start + BLOCK]
            for values in self._together[0].predict(dataset.inputs, [part] * len(self.networks)):
                total[part] += values
        return (total / len(self.networks)).astype(np.float32)

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
        if self.schema.task == "classification":
            table["label"] = classes[values.argmax(axis=1)]
        else:
            table["label"] = [" ".join(classes[row >= 0.5]) for row in values]
        for number, name in enumerate(classes):
            table[f"p_{name}"] = values[:, number]
        return table


def save_model(model: Model, folder: RunFolder) -> None:
    """model/: all that ``predict`` needs. The list of files is written last."""
    files = []
    for number, network in enumerate(model.networks):
        name = f"{number:03d}.safetensors"
        folder.write_tensors(f"model/{name}", network.state_dict(), {})
        files.append(
            {
                "name": name,
                "digest": digest((folder.path / "model" / name).read_bytes()),
                "network": dataclasses.asdict(network.spec),
            }
        )
    folder.write_json(
        "model/model.json",
        {"format": FORMAT, "name": model.name, "schema": dataclasses.asdict(model.schema), "files": files},
    )


def load_model(path: str | Path, net: Any = None, device: str = "auto") -> Model:
    """Read ``RUN/model`` (or ``RUN``). ``net``: the user's own factory or module, where the run had one.

    A folder from elsewhere is refused when a file is missing, added or changed. Code is never chosen by
    the folder: a network of the user's own has to be named again.
    """
    path = Path(path)
    path = path / "model" if (path / "model").is_dir() else path
    if not (path / "model.json").is_file():
        raise AyatoriError(
            f"'{path}' must be a model folder, however it has no model.json; is the run complete?"
        )
    facts = RunFolder(path).read_json("model.json")
    try:
        if facts["format"] != FORMAT:
            raise AyatoriError(f"'{path}' must have format {FORMAT}, however: {facts['format']!r}")
        files = {str(item["name"]): item for item in facts["files"]}
        _check_files(path, files)
        schema = schema_from(facts["schema"])
        networks = tuple(
            _network(path / name, item, net).to(pick_device(device)) for name, item in files.items()
        )
        return Model(facts["name"], schema, networks)
    except (KeyError, TypeError, AttributeError) as error:
        raise AyatoriError(f"'{path / 'model.json'}' must describe a model, however: {error!r}") from None


def schema_from(facts: Mapping[str, Any]) -> Schema:
    """A schema from its JSON values."""
    values: dict[str, Any] = {
        name: tuple(item) if isinstance(item, list) else item for name, item in facts.items()
    }
    values["categories"] = {name: tuple(items) for name, items in facts["categories"].items()}
    return Schema(**values)


def _check_files(path: Path, files: Mapping[str, Any]) -> None:
    for name in files:
        if Path(name).name != name:
            raise AyatoriError(f"files of a model must lie in its folder, however: {name!r}")
        if not (path / name).is_file():
            raise AyatoriError(f"the model '{path}' must hold {name}, however it is missing")
    extra = sorted({item.name for item in path.iterdir()} - set(files) - {"model.json"})
    if extra:
        raise AyatoriError(
            f"the model '{path}' must hold only its own files, however there is also {extra[0]!r}"
        )


def _network(path: Path, item: Mapping[str, Any], net: Any) -> Network:
    content = path.read_bytes()
    if digest(content) != item["digest"]:
        raise AyatoriError(f"'{path}' must be as the run wrote it, however its content has changed")
    spec = NetSpec(**item["network"])
    own = None
    if ":" in spec.name:
        if net is None:
            raise AyatoriError(
                f"the network {spec.name!r} is your own code; name it again with --net {spec.name}"
            )
        own = find_net(NetRecipe(name=net), "image" in spec.sizes)[1]
    network = rebuild(spec, own)
    try:
        network.load_state_dict(safetensors.torch.load(content))
    except (safetensors.SafetensorError, RuntimeError) as error:
        raise AyatoriError(f"'{path}' must hold the weights of this network, however: {error}") from None
    return network.eval()


def read_sample(path: str | Path) -> pd.DataFrame:
    """A sample submission; its ids stay text, so that 007 stays 007."""
    try:
        head = pd.read_csv(path, nrows=0)
        return pd.read_csv(path, dtype={head.columns[0]: str})
    except (OSError, ValueError, IndexError) as error:
        raise AyatoriError(f"a sample submission must be a CSV, however '{path}': {error}") from None


def id_column(sample: pd.DataFrame, data: Path) -> str:
    """The sample's id column, where a table of new rows has a column of that name; else ""."""
    name = str(sample.columns[0])
    is_table = data.is_file() and data.suffix.lower() != ".npz"
    return name if is_table and name in open_table(data).names else ""


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
