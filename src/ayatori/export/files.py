"""The whole model -> a file, compared with the model before it is handed over."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ayatori.export.whole import Whole, described, sample_inputs
from ayatori.model import Model
from ayatori.records import AyatoriError, Dataset, Schema
from ayatori.store import RunFolder, new_file

OPSET = 18  # of ONNX, and the ml operators that turn words into codes
OPSET_ML = 3
ROWS, AGREE = 64, 1e-4  # rows made up to compare, and how far an exported model may differ


@dataclasses.dataclass(frozen=True)
class Exported:
    """A file that was written.

    ``gap``: the largest difference to the model on rows that were made up, of probabilities or in standard
    deviations of the values. ``notes``: in what the run's own figures were made another way.
    """

    path: Path
    gap: float
    notes: tuple[str, ...] = ()


def to_onnx(model: Model, path: str | Path) -> Exported:
    """Write ``model`` as ONNX: raw values in, probabilities out.

    Inputs, with any number of rows: ``numbers`` (n, p) float64, NaN for what is missing;
    ``categories`` (n, q) strings, unknown ones count as missing; ``image`` (n, c, h, w) uint8.
    Outputs: ``probabilities`` (n, classes) float32 and ``label`` (n,) strings; for several labels ``labels``
    (n, labels) bool; for numbers ``values`` (n, values). Names of columns and classes stand in the metadata
    of the file, under "ayatori", as JSON.

    Raises AyatoriError where the model cannot be written so, or where onnxruntime says something else than
    the model on rows that are made up (by more than 1e-4, values in standard deviations).
    """
    onnx, _ = (_needed(name) for name in ("onnx", "onnxscript"))
    runtime = _needed("onnxruntime")
    path, whole = new_file(path), Whole(model).cpu()
    inputs = sample_inputs(whole, model.schema, ROWS)
    with _quiet():
        program = torch.onnx.export(
            whole,
            tuple(torch.from_numpy(values[:3]) for values in inputs.values()),
            input_names=list(inputs),
            output_names=_outputs(model.schema),
            dynamic_shapes={"tensors": tuple({0: torch.export.Dim("rows")} for _ in inputs)},
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    graph = _worded(onnx, program.model_proto, model)
    onnx.checker.check_model(graph)
    content = graph.SerializeToString()
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    fed = _fed(inputs, model.schema)
    written = _compared(model, path, inputs, session.run(_outputs(model.schema)[:1], fed)[0])
    RunFolder(path.parent).write_bytes(path.name, content)
    return written


def to_torch(model: Model, path: str | Path) -> Exported:
    """Write ``model`` as a program that torch alone runs.

    ``torch.export.load(path).module()`` takes what the model has of ``numbers`` (n, p) float64,
    ``categories`` (n, q) int64 codes and ``image`` (n, c, h, w) uint8, and gives what ``to_onnx`` describes,
    labels as numbers. What columns and codes mean stands in the file, as "ayatori.json".
    """
    path, whole = new_file(path), Whole(model).cpu()
    inputs = sample_inputs(whole, model.schema, ROWS)
    tensors = tuple(torch.from_numpy(values) for values in inputs.values())
    rows = torch.export.Dim("rows")
    with _quiet():
        program = torch.export.export(
            whole,
            tuple(values[:3] for values in tensors),
            dynamic_shapes={"tensors": tuple({0: rows} for _ in inputs)},
        )
        file = io.BytesIO()
        torch.export.save(program, file, extra_files={"ayatori.json": json.dumps(described(model))})
        with torch.inference_mode():
            said = program.module()(*tensors)[0].numpy()
    written = _compared(model, path, inputs, said)
    RunFolder(path.parent).write_bytes(path.name, file.getvalue())
    return written


def _compared(model: Model, path: Path, inputs: Mapping[str, np.ndarray], said: np.ndarray) -> Exported:
    """What was ``said`` beside what the model itself says; refused where they are not the same."""
    source, notes = model.schema.source, []
    exact = dataclasses.replace(model, tta=("none", 1))
    if model.tta[1] > 1:
        notes.append(f"it looks at a picture once, where the run averaged {model.tta[1]} views")
    passed = model.passed
    frozen = passed is not None and (passed.cut != 0 or passed.heads)
    if source is not None and frozen and source.get("dtype") != "float32":
        schema = dataclasses.replace(model.schema, source={**source, "dtype": "float32"})
        apart = _gap(exact, inputs, said)
        exact = dataclasses.replace(exact, schema=schema)
        notes.append(
            "its frozen part is exact, where the run's own rounds to bfloat16: they differ by up to "
            f"{apart:.1g} on noise; train with --dtype float32 for the same figures"
        )
    gap = _gap(exact, inputs, said)
    if not gap <= AGREE:
        raise AyatoriError(
            f"an exported model must say what the model says, to {AGREE:g}, however it differs by {gap:.2g}"
        )
    return Exported(path, gap, tuple(notes))


def _gap(model: Model, inputs: Mapping[str, np.ndarray], said: np.ndarray) -> float:
    """The largest difference to what the model itself says, values in standard deviations of the target."""
    ids = np.array([str(row) for row in range(ROWS)])
    own = {n: v.astype(np.int32) if n in ("categories", "words") else v for n, v in inputs.items()}
    truth = model.predict_values(Dataset(own, None, model.schema, ids))
    spread = np.ones(1)
    if model.schema.task == "regression":
        spread = np.maximum(truth.std(axis=0), 1e-12)
    return float(np.abs((said - truth) / spread).max())


def _worded(onnx: Any, graph: Any, model: Model) -> Any:
    """The graph with words where it has codes: categories in, labels out; and its description."""
    helper, kinds = onnx.helper, onnx.TensorProto
    nodes, schema = graph.graph.node, model.schema
    before: list[Any] = []
    if schema.categories:
        codes = next(value for value in graph.graph.input if value.name == "categories")
        for node in nodes:
            for place, name in enumerate(node.input):
                if name == "categories":
                    node.input[place] = "codes"
        parts = []
        for place, words in enumerate(schema.categories.values()):
            at, word, code = f"column_{place}", f"word_{place}", f"code_{place}"
            before += [
                helper.make_node(
                    "Constant", [], [at], value=helper.make_tensor(at, kinds.INT64, [1], [place])
                ),
                helper.make_node("Gather", ["categories", at], [word], axis=1),
                helper.make_node(
                    "LabelEncoder",
                    [word],
                    [code],
                    domain="ai.onnx.ml",
                    keys_strings=list(words) or [""],
                    values_int64s=list(range(len(words))) or [-1],
                    default_int64=-1,
                ),
            ]
            parts.append(code)
        before.append(helper.make_node("Concat", parts, ["codes"], axis=1))
        codes.type.tensor_type.elem_type = kinds.STRING
        graph.opset_import.append(helper.make_opsetid("ai.onnx.ml", OPSET_ML))
    if schema.task == "classification":
        names = [name.encode() for name in schema.classes]
        nodes.append(
            helper.make_node(
                "Constant",
                [],
                ["names"],
                value=helper.make_tensor("names", kinds.STRING, [len(names)], names),
            )
        )
        nodes.append(helper.make_node("Gather", ["names", "number"], ["label"], axis=0))
        number = next(value for value in graph.graph.output if value.name == "number")
        number.name = "label"
        number.type.tensor_type.elem_type = kinds.STRING
    whole = [*before, *nodes]
    del nodes[:]
    nodes.extend(whole)
    graph.producer_name = "ayatori"
    helper.set_model_props(graph, {"ayatori": json.dumps(described(model))})
    return graph


def _fed(inputs: Mapping[str, np.ndarray], schema: Schema) -> dict[str, np.ndarray]:
    """Inputs as an ONNX session takes them: words for codes."""
    fed = dict(inputs)
    if "categories" in fed:
        words = [np.array([*known, ""], dtype=object) for known in schema.categories.values()]
        fed["categories"] = np.stack(
            [w[codes] for w, codes in zip(words, fed["categories"].T, strict=True)], 1
        )
    return fed


def _outputs(schema: Schema) -> list[str]:
    return {
        "classification": ["probabilities", "number"],
        "multilabel": ["probabilities", "labels"],
        "regression": ["values"],
    }[schema.task]


def _needed(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError:
        raise AyatoriError(
            f"ONNX needs the package {name}, however it is missing; pip install 'ayatori[onnx]'"
        ) from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Exporters narrate; what matters is compared afterwards."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
