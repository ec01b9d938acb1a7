"""A model's schema -> the OpenAPI document of its server, and the facts that its page is made of."""

from __future__ import annotations

import importlib.metadata
from typing import Any

from ayatori.model import Model
from ayatori.records import Schema
from ayatori.serve.answers import value_names
from ayatori.serve.bodies import (
    FILE,
    Kind,
    columns_of,
    files_of_schema,
    is_beside,
    is_one_each,
    media_types,
    others_of,
    takes_pictures,
    takes_rows,
)
from ayatori.serve.files import FORMATS, MEGAPIXELS, MEGAPIXELS_TOGETHER, MEGAVOXELS, MINUTES, SOUND_FORMATS
from ayatori.serve.limits import Limits

MOST_WORDS = 200  # of a category that the document lists
REFUSALS = {
    400: "The body is empty, or is not the JSON or the form that it is said to be",
    403: "The request comes from a page of another site, or by another name of this machine",
    408: "The body does not arrive in time",
    413: "The request is larger than the limits, or a file is",
    415: "The body is of a kind that this model does not take",
    422: "The rows do not fit the model",
    503: "Too many requests wait; try again after the seconds in Retry-After",
}
JSON = "application/json"


def facts_of(model: Model) -> dict[str, Any]:
    """What /health says of the model; ``classes`` is empty where numbers are predicted."""
    schema = model.schema
    return {
        "model": model.name,
        "task": schema.task,
        "classes": list(schema.classes),
        "input": files_of_schema(schema) if takes_pictures(schema) else schema.kind,
    }


def page_facts(model: Model, limits: Limits) -> dict[str, Any]:
    """What the page needs beside: columns with their kinds and words, and a row to begin with."""
    schema = model.schema
    columns = [
        {"name": name, "kind": kind, "words": list(schema.categories.get(name, ()))[:MOST_WORDS]}
        for name, kind in columns_of(schema).items()
    ]
    return facts_of(model) | {
        "target": ", ".join(schema.target),
        "columns": columns if schema.kind == "table" or is_beside(schema) else [],
        "file": is_beside(schema),
        "pictures": takes_pictures(schema),
        "csv": schema.image is None,
        "several": is_one_each(schema),
        "example": json_example(schema),
        "rows": limits.rows,
        "megabytes": limits.bytes / 10**6,
    }


def json_example(schema: Schema) -> dict[str, Any]:
    """JSON that the model takes: one row, of whatever values."""
    if schema.kind == "series":
        return {"series": [[[0, 0, 0]] * len(schema.channels)]}
    if not takes_rows(schema):
        first = {"recordings": "UklGRg==", "scans": "H4sIAAAAAAA=", "pictures": "iVBORw0KGgo="}
        return {files_of_schema(schema): [first[files_of_schema(schema)]]}
    if schema.kind == "table" or is_beside(schema):
        values: dict[Kind, Any] = {"number": 0, "date": "2026-01-31", "text": "some words"}
        row = {
            name: schema.categories[name][0] if kind == "category" else values[kind]
            for name, kind in columns_of(schema).items()
        }
        return {"rows": [row | ({FILE: "iVBORw0KGgo="} if is_beside(schema) else {})]}
    zeros: Any = 0
    for size in reversed(schema.image or schema.series or (len(schema.numbers),)):
        zeros = [zeros] * size
    return {"rows": [zeros]}


def openapi(model: Model, limits: Limits) -> dict[str, Any]:
    """The OpenAPI 3.1 document: which bodies /predict takes, what it answers and what it refuses."""
    schema = model.schema
    answer = {"description": "The answer for each row, in their order", **_json("Answer")}
    refused = {str(code): {"description": text, **_json("Error")} for code, text in REFUSALS.items()}
    refused["503"]["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds"}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"Ayatori: {model.name}",
            "version": importlib.metadata.version("ayatori"),
            "description": _in_words(schema, limits),
        },
        "paths": {
            "/predict": {
                "post": {
                    "operationId": "predict",
                    "summary": "Predict rows",
                    "requestBody": {"required": True, "content": _bodies(schema)},
                    "responses": {"200": answer, **refused},
                }
            },
            "/health": {
                "get": {
                    "operationId": "health",
                    "summary": "Which model answers here",
                    "responses": {"200": {"description": "It answers", **_json("Health")}},
                }
            },
            "/openapi.json": {
                "get": {
                    "operationId": "describe",
                    "summary": "This document",
                    "responses": {
                        "200": {
                            "description": "OpenAPI 3.1",
                            "content": {JSON: {"schema": {"type": "object"}}},
                        }
                    },
                }
            },
        },
        "components": {"schemas": _schemas(model, limits)},
    }


def _json(name: str) -> dict[str, Any]:
    return {"content": {JSON: {"schema": {"$ref": f"#/components/schemas/{name}"}}}}


def _in_words(schema: Schema, limits: Limits) -> str:
    text = f"A request holds at most {limits.rows} rows and {limits.bytes} bytes."
    if schema.kind == "recordings":
        text += f" Recordings are {', '.join(SOUND_FORMATS)}, of at most {MINUTES} minutes together."
    elif schema.kind == "scans":
        text += (
            f" Scans are NIfTI, or DICOM whose slices in one form are one scan, of at most {MEGAVOXELS} "
            "million voxels together."
        )
    elif takes_pictures(schema):
        text += (
            f" Pictures are {', '.join(FORMATS)}, of at most {MEGAPIXELS} megapixels each and "
            f"{MEGAPIXELS_TOGETHER} together."
        )
    return text


def _bodies(schema: Schema) -> dict[str, Any]:
    found: dict[str, Any] = {**_json("Request")["content"]}
    found[JSON] = found[JSON] | {"example": json_example(schema)}
    if takes_pictures(schema):
        for kind in (*media_types(schema)[:2], "application/octet-stream"):
            found[kind] = {}
    elif schema.image is None:
        found["text/csv"] = {
            "schema": {
                "type": "string",
                "description": "A CSV with a line of names"
                if not is_one_each(schema)
                else "A CSV, a series: a step in each line",
            }
        }
    if takes_pictures(schema) or schema.image is None:
        file = {"type": "string", "contentMediaType": "application/octet-stream"}
        several = takes_pictures(schema) or is_one_each(schema)
        files: Any = {"type": "array", "items": file} if several else file
        form = {"type": "object", "properties": {"file": files}, "required": ["file"]}
        found["multipart/form-data"] = {"schema": form}
    return found


def _schemas(model: Model, limits: Limits) -> dict[str, Any]:
    health = {name: {"type": "string"} for name in ("status", "model", "task", "input")}
    return {
        "Request": _request(model.schema, limits),
        "Answer": _object({"model": {"type": "string"}, "rows": {"type": "array", "items": _said(model)}}),
        "Health": _object({**health, "classes": {"type": "array", "items": {"type": "string"}}}),
        "Error": _object({"error": {"type": "string", "description": "One sentence"}}),
    }


def _object(properties: dict[str, Any], others: dict[str, Any] | None = None) -> dict[str, Any]:
    """A JSON schema of an object that has all ``properties``, and may have ``others``."""
    return {
        "type": "object",
        "properties": {**properties, **(others or {})},
        "required": list(properties),
        "additionalProperties": False,
    }


def _request(schema: Schema, limits: Limits) -> dict[str, Any]:
    bounds = {"minItems": 1, "maxItems": limits.rows}
    found = []
    if takes_rows(schema):
        found.append(_object({"rows": {"type": "array", "items": _row(schema), **bounds}}))
    if schema.kind == "series":
        steps = {"type": "array", "items": {"type": ["number", "null"]}, "minItems": 1}
        channels = len(schema.channels)
        one = {"type": "array", "items": steps, "minItems": channels, "maxItems": channels}
        found.append(_object({"series": {"type": "array", "items": one, **bounds}}))
    if takes_pictures(schema):
        file = {"type": "string", "contentEncoding": "base64"}
        found.append(_object({files_of_schema(schema): {"type": "array", "items": file, **bounds}}))
    return found[0] if len(found) == 1 else {"oneOf": found}


def _row(schema: Schema) -> dict[str, Any]:
    if schema.kind == "table" or is_beside(schema):
        columns = {name: _value(kind, schema, name) for name, kind in columns_of(schema).items()}
        if is_beside(schema):
            columns[FILE] = {"type": "string", "contentEncoding": "base64"}
        others: dict[str, Any] = {name: {"description": "Not looked at"} for name in others_of(schema)}
        if schema.id_column:
            others[schema.id_column] = {"description": "What the row is called in the answer"}
        return _object(columns, {name: others[name] for name in others if name not in columns})
    row: dict[str, Any] = {"type": ["number", "null"] if schema.image is None else "number"}
    for size in reversed(schema.image or schema.series or (len(schema.numbers),)):
        row = {"type": "array", "items": row, "minItems": size, "maxItems": size}
    return row


def _value(kind: Kind, schema: Schema, name: str) -> dict[str, Any]:
    if kind == "number":
        return {"type": ["number", "boolean", "null"]}
    if kind == "date":
        return {"type": ["string", "null"], "description": "A date like 2026-01-31, or 2026-01-31T12:30:00Z"}
    if kind == "text":
        return {"type": ["string", "null"], "description": "A text"}
    words = list(schema.categories[name])
    known = {"enum": words[:MOST_WORDS], "description": f"{len(words)} values are known"}
    return {"anyOf": [known, {"type": ["string", "number", "boolean", "null"]}]}


def _said(model: Model) -> dict[str, Any]:
    schema = model.schema
    named = {"id": {"type": "string"}}
    if schema.task == "regression":
        outputs = model.networks[0].spec.outputs
        number = {"type": "number"}
        several = _object(dict.fromkeys(value_names(schema, outputs), number))
        return _object(named | ({"values": several} if outputs > 1 else {"value": number}))
    label: dict[str, Any] = {"type": "string", "enum": list(schema.classes)}
    share = {"type": "number", "minimum": 0, "maximum": 1}
    probabilities = _object(dict.fromkeys(schema.classes, share))
    if schema.task == "classification":
        probabilities["description"] = "They add up to 1"
        return _object(named | {"label": label, "probabilities": probabilities})
    return _object(named | {"labels": {"type": "array", "items": label}, "probabilities": probabilities})
