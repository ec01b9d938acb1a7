"""The server: its answers are the model's, and whatever else it is sent gets one sentence."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import hashlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from look_browser import CHROMIUM, Browser
from PIL import Image
from starlette.testclient import TestClient

import ayatori
from ayatori import serve as serving
from ayatori.errors import AyatoriError
from ayatori.model import Model
from ayatori.model_files import load_model
from ayatori.recipe import DataRecipe, EvaluateRecipe, ExploreRecipe
from ayatori.records import Dataset
from ayatori.serve import app as web
from ayatori.serve import bodies, make_app, serve
from ayatori.serve.describe import json_example

QUICK = ayatori.Recipe(
    net=ayatori.NetRecipe(name="mlp"),
    plan=ayatori.PlanRecipe(folds=2),
    train=ayatori.TrainRecipe(epochs=2),
    explore=ExploreRecipe(look=False),
    evaluate=EvaluateRecipe(baselines=()),
)
JSON, CSV, FORM = "application/json", "text/csv", "multipart/form-data; boundary=edge"
START = "import sys; from ayatori.serve import serve; serve(sys.argv[1], port=int(sys.argv[2]))"


def table(rows: int = 160) -> pd.DataFrame:
    """Numbers, a flag, dates, a category and an id."""
    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.normal(size=(rows, 3)).round(3), columns=["a", "b", "size in cm"])
    frame["flag"] = random.random(rows) > 0.5
    frame["day"] = pd.date_range("2026-01-01", periods=rows).strftime("%Y-%m-%d")
    frame["word"] = random.choice(["x", "yy", "zzz"], rows)
    frame["code"] = [f"row {number}" for number in range(rows)]
    frame["y"] = np.where(frame["a"] > 0, "yes", "no")
    return frame


def png(seed: int, size: tuple[int, int] = (16, 16), kind: str = "PNG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 150, (*size[::-1], 3)).astype(np.uint8)
    pixels[..., seed % 3] += 80
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def form(*files: tuple[str, bytes], end: bytes = b"--edge--\r\n") -> bytes:
    head = '--edge\r\nContent-Disposition: form-data; name="file"; filename="{}"\r\n\r\n'
    return b"".join(head.format(name).encode() + content + b"\r\n" for name, content in files) + end


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("serve")
    table().to_csv(folder / "table.csv", index=False)
    data = DataRecipe(target="y", ids="code")
    ayatori.run(str(folder / "table.csv"), dataclasses.replace(QUICK, data=data), out=folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def model(run: Path) -> Model:
    return load_model(run)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of pictures, and the run on them beside it."""
    folder = tmp_path_factory.mktemp("photos")
    recipe = dataclasses.replace(QUICK, net=ayatori.NetRecipe())
    for number in range(60):
        path = folder / "pets" / "abc"[number % 3] / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(number))
    ayatori.run(str(folder / "pets"), recipe, out=folder / "run")
    return folder / "pets"


@pytest.fixture(scope="module")
def picture_model(photos: Path) -> Model:
    return load_model(photos.parent / "run")


@contextlib.contextmanager
def asked(model: Model, rows: int = 100, size: int = 10**6) -> Iterator[TestClient]:
    app = make_app(model, max_rows=rows, max_bytes=size)
    with TestClient(app, "http://127.0.0.1", raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module")
def client(model: Model) -> Iterator[TestClient]:
    with asked(model) as one:
        yield one


@pytest.fixture(scope="module")
def picture_client(picture_model: Model) -> Iterator[TestClient]:
    with asked(picture_model) as one:
        yield one


def post(client: Any, content: bytes, kind: str = JSON, **headers: str) -> Any:
    return client.post("/predict", content=content, headers={"Content-Type": kind, **headers})


def rows_json(frame: pd.DataFrame) -> bytes:
    return json.dumps({"rows": json.loads(frame.to_json(orient="records"))}).encode()


def answered(reply: Any) -> list[dict[str, Any]]:
    assert reply.status_code == 200, reply.text
    return reply.json()["rows"]


def refused(reply: Any) -> str:
    """The sentence of a refusal."""
    assert 400 <= reply.status_code < 500, reply.text
    assert reply.headers["content-type"] == JSON
    said = reply.json()
    assert list(said) == ["error"]
    sentence = said["error"]
    assert sentence
    assert "\n" not in sentence
    assert len(sentence) < 600
    assert "Traceback" not in sentence
    assert "/tmp" not in sentence
    return sentence


def assert_says(rows: list[dict[str, Any]], known: pd.DataFrame) -> None:
    """The answer is that of ``Model.predict_table``."""
    assert [row["id"] for row in rows] == known["id"].tolist()
    assert [row["label"] for row in rows] == known["label"].tolist()
    shares = [[row["probabilities"][name.removeprefix("p_")] for name in known.columns[2:]] for row in rows]
    np.testing.assert_allclose(np.array(shares), known.iloc[:, 2:].to_numpy(), atol=1e-5)


@pytest.mark.parametrize("how", ["json", "csv", "form", "whole csv"])
def test_every_kind_of_body_gets_what_predict_table_says(client: TestClient, model: Model, how: str) -> None:
    rows = table().iloc[[5, 2, 9, 31]]
    rows = rows if how == "whole csv" else rows.drop(columns="y")
    text = rows.to_csv(index=False).encode()
    bodies = {"json": (rows_json(rows), JSON), "form": (form(("new.csv", text)), FORM)}
    reply = post(client, *bodies.get(how, (text, CSV)))
    assert_says(answered(reply), model.predict_table(model.read(rows)))


def test_a_row_has_the_same_answer_in_whatever_company(client: TestClient, model: Model) -> None:
    rows = table().drop(columns=["y", "code"])
    known = model.predict_table(model.read(rows))
    together = answered(post(client, rows_json(rows.iloc[:90])))
    odd = {**rows.iloc[7].to_dict(), "flag": None, "word": 7, "a": "0.5"}
    for number in (0, 7, 30):
        alone = json.loads(rows_json(rows.iloc[[number]]))["rows"]
        (first,) = answered(post(client, json.dumps({"rows": alone}).encode()))
        beside = json.dumps({"rows": [json.loads(json.dumps(odd, default=bool)), *alone]}).encode()
        for row in (first, answered(post(client, beside))[1], together[number]):
            assert row["label"] == known["label"][number]
            assert row["probabilities"]["yes"] == pytest.approx(known["p_yes"][number], abs=1e-5)


def test_json_values_are_read_as_a_table_reads_them(client: TestClient, model: Model) -> None:
    frame = pd.DataFrame(
        {
            "a": [1.0, np.nan, 2.0],
            "b": [0.5, 3.0, np.nan],
            "size in cm": [1e-7, 2.0, 4.0],
            "flag": [True, False, True],
            "day": ["2026-01-31", None, "2026/02/01 12:30"],
            "word": ["never seen", "x", None],
        }
    )
    rows = [
        {"a": 1, "b": "0.5", "size in cm": 1e-7, "flag": True, "day": "2026-01-31", "word": "never seen"},
        {"a": "", "b": 3, "size in cm": "2", "flag": False, "day": None, "word": "x"},
        {"a": 2.0, "b": None, "size in cm": 4, "flag": 1, "day": "2026/02/01 12:30", "word": None},
    ]
    reply = post(client, json.dumps({"rows": rows}).encode())
    assert_says(answered(reply), model.predict_table(model.read(frame)))


def test_labels_follow_the_decision_rule_of_the_run(model: Model) -> None:
    strict = dataclasses.replace(model, rule=np.diag([1.0, 0.2]))
    rows = table().iloc[:40]
    known = strict.predict_table(strict.read(rows))
    assert known["label"].tolist() != model.predict_table(model.read(rows))["label"].tolist()
    with asked(strict) as client:
        assert_says(answered(post(client, rows_json(rows))), known)


@pytest.mark.parametrize("how", ["form", "json", "one", "bytes", "jpeg"])
def test_pictures_in_every_form_get_what_predict_table_says(
    picture_client: TestClient, picture_model: Model, tmp_path: Path, how: str
) -> None:
    contents = [png(70 + number, (40, 30), "JPEG" if how == "jpeg" else "PNG") for number in range(4)]
    for number, content in enumerate(contents):
        (tmp_path / f"{number}.png").write_bytes(content)
    known = picture_model.predict_table(picture_model.read(tmp_path))
    known["id"] = [f"{number}.png" if how == "form" else str(number) for number in range(4)]
    if how == "form":
        files = [(f"{number}.png", content) for number, content in enumerate(contents)]
        rows = answered(post(picture_client, form(*files), FORM))
    elif how == "json":
        texts = [base64.b64encode(content).decode() for content in contents]
        rows = answered(post(picture_client, json.dumps({"pictures": texts}).encode()))
    else:
        kind = {"one": "image/png", "bytes": "application/octet-stream", "jpeg": "image/jpeg"}[how]
        rows = [answered(post(picture_client, content, kind))[0] for content in contents]
        known["id"] = "0"
    assert_says(rows, known)


def test_lists_of_numbers_and_of_pixels_are_answered() -> None:
    random = np.random.default_rng(0)
    target = random.integers(0, 2, 60)
    pixels = random.integers(0, 200, (60, 1, 5, 6)) + 50 * target[:, None, None, None]
    for values in (random.normal(size=(60, 3)) + target[:, None], pixels.astype(np.uint8)):
        recipe = dataclasses.replace(QUICK, net=ayatori.NetRecipe())
        model = ayatori.run(values, recipe, y=target.astype(str)).model
        with asked(model) as client:
            reply = post(client, json.dumps({"rows": values[:9].tolist()}).encode())
            assert_says(answered(reply), model.predict_table(model.read(values[:9])))
            for rows in (
                [[1, 2]],
                [["a", "b", "c"]],
                [1, 2, 3],
                [[[1]]],
                [{}],
                [[10**400] * 3],
                [[1e999] * 3],
            ):
                refused(post(client, json.dumps({"rows": rows}).encode()))
    with asked(model) as client:  # a picture of 5 x 6 pixels has the shape of no file that is read
        assert "Content-Type" in refused(post(client, png(0), "image/png"))


def test_numbers_and_several_labels_are_answered() -> None:
    frame = table().drop(columns=["code", "y"])
    frame["price"], frame["cost"] = frame["a"] * 2 + 1, frame["b"]
    frame["red"], frame["blue"] = frame["a"] > 0, frame["b"] > 0
    made = ("price", "cost", "red", "blue")
    for target, task in ((("price",), "auto"), (("price", "cost"), "auto"), (("red", "blue"), "multilabel")):
        drop = tuple(name for name in made if name not in target)
        recipe = dataclasses.replace(QUICK, data=DataRecipe(target=target, task=task, drop=drop))
        model = ayatori.run(frame, recipe).model
        values = model.predict_values(model.read(frame.iloc[:12]))
        needed = frame.iloc[:12][list(bodies.columns_of(model.schema))]
        with asked(model) as client:
            said = answered(post(client, rows_json(needed)))
        if task == "multilabel":
            found = [list(row["probabilities"].values()) for row in said]
            for row, shares in zip(said, values, strict=True):
                assert row["labels"] == [
                    n for n, p in zip(model.schema.classes, shares, strict=True) if p > 0.5
                ]
        elif len(target) == 2:
            found = [[row["values"]["price"], row["values"]["cost"]] for row in said]
        else:
            found = [[row["value"]] for row in said]
        np.testing.assert_allclose(np.array(found), values, atol=1e-5)


def test_a_column_of_lists_is_answered_as_it_was_learned() -> None:
    values = np.random.default_rng(0).normal(size=(60, 3))
    frame = pd.DataFrame({"vector": list(values), "y": np.where(values[:, 0] > 0, "yes", "no")})
    model = ayatori.run(frame, dataclasses.replace(QUICK, data=DataRecipe(target="y"))).model
    rows: list[dict[str, Any]] = [{"vector": row} for row in values[:9].tolist()]
    apart = [{f"vector[{place}]": value for place, value in enumerate(row)} for row in values[:9].tolist()]
    with asked(model) as client:
        for asked_so in (rows, apart):
            said = answered(post(client, json.dumps({"rows": asked_so}).encode()))
            assert_says(said, model.predict_table(model.read(frame.iloc[:9])))
        for vector in ([1.0, 2.0], [1.0, 2.0, 3.0, 4.0], [1.0, [2.0], 3.0], [], "x", None):
            refused(post(client, json.dumps({"rows": [{"vector": vector}]}).encode()))


ROW = {"a": 1, "b": 2, "size in cm": 3, "flag": True, "day": "2026-01-31", "word": "x"}
HEAD = b"a,b,size in cm,flag,day,word\n"
RUBBISH: dict[str, tuple[int, str, bytes]] = {
    "nothing": (400, JSON, b""),
    "no JSON": (400, JSON, b"{"),
    "NaN": (400, JSON, b'{"rows": [{"a": NaN}]}'),
    "infinity": (400, JSON, b'{"rows": [{"a": -Infinity}]}'),
    "bytes": (400, JSON, b"\xff\xfe\x00"),
    "UTF-16": (400, JSON, '{"rows": []}'.encode("utf-16")),
    "deep": (400, JSON, b'{"rows":' + b"[" * 200_000),
    "deep objects": (400, JSON, b'{"a":' * 100_000),
    "endless number": (400, JSON, b'{"rows": [' + b"9" * 5000 + b"]}"),
    "a list": (422, JSON, b"[]"),
    "null": (422, JSON, b"null"),
    "other keys": (422, JSON, b'{"data": []}'),
    "two keys": (422, JSON, b'{"rows": [], "more": 1}'),
    "paths": (422, JSON, b'{"pictures": ["/etc/passwd"]}'),
    "no list": (422, JSON, b'{"rows": {"a": 1}}'),
    "no rows": (422, JSON, b'{"rows": []}'),
    "numbers": (422, JSON, b'{"rows": [1, 2]}'),
    "lists": (422, JSON, b'{"rows": [[1, 2]]}'),
    "an empty row": (422, JSON, b'{"rows": [{}]}'),
    "half of a character": (422, JSON, json.dumps({"rows": [{**ROW, "word": "\ud800"}]}).encode()),
    "half of a name": (422, JSON, json.dumps({"rows": [{**ROW, "\ud800": 1}]}).encode()),
    "missing": (422, JSON, json.dumps({"rows": [ROW, {k: v for k, v in ROW.items() if k != "b"}]}).encode()),
    "unknown": (422, JSON, json.dumps({"rows": [{**ROW, "other": 1}]}).encode()),
    "text for a number": (422, JSON, json.dumps({"rows": [ROW, {**ROW, "a": "many"}]}).encode()),
    "a list for a number": (422, JSON, json.dumps({"rows": [{**ROW, "a": [1]}]}).encode()),
    "an object for a word": (422, JSON, json.dumps({"rows": [{**ROW, "word": {}}]}).encode()),
    "no date": (422, JSON, json.dumps({"rows": [{**ROW, "day": "soon"}]}).encode()),
    "a number for a date": (422, JSON, json.dumps({"rows": [{**ROW, "day": 20260131}]}).encode()),
    "infinite": (422, JSON, json.dumps({"rows": [ROW]}).replace('"a": 1', '"a": 1e999').encode()),
    "a huge whole number": (422, JSON, json.dumps({"rows": [{**ROW, "a": 10**400}]}).encode()),
    "too many rows": (413, JSON, json.dumps({"rows": [ROW] * 101}).encode()),
    "too many values": (413, JSON, b'{"rows": [' + b"[]," * 100_000 + b"[]]}"),
    "an empty CSV": (400, CSV, b""),
    "blank lines": (422, CSV, b"\n\n\n"),
    "only a header": (422, CSV, HEAD),
    "other columns": (422, CSV, b"a,b\n1,2\n"),
    "one column twice": (422, CSV, b"a," + HEAD + b"1,1,2,3,1,2026-01-31,x\n"),
    "a ragged CSV": (422, CSV, HEAD + b"1,2,3\n"),
    "text in a CSV": (422, CSV, HEAD + b"many,2,3,true,2026-01-31,x\n"),
    "a CSV with a column more": (422, CSV, b"z," + HEAD + b"1,1,2,3,1,2026-01-31,x\n"),
    "too many lines": (413, CSV, HEAD + b"1,2,3,true,2026-01-31,x\n" * 101),
    "no UTF-8": (422, CSV, HEAD + b"1,2,3,true,2026-01-31,\xe9\n"),
    "UTF-16 CSV": (422, CSV, HEAD.decode().encode("utf-16")),
    "a binary CSV": (422, CSV, b"\0" * 100),
    "Parquet": (422, CSV, b"PAR1" + b"\0" * 100 + b"PAR1"),
    "a quote that stays open": (422, CSV, HEAD + b'"1,2,3,true,2026-01-31,x\n' * 3),
    "text": (415, "text/plain", b"1"),
    "no kind": (415, "", b"1"),
    "an odd kind": (415, "\u00e9;;=", b"1"),
    "a picture": (415, "image/png", png(0)),
    "a web form": (415, "application/x-www-form-urlencoded", b"a=1"),
    "another charset": (415, "application/json; charset=latin-1", b"{}"),
    "no boundary": (400, "multipart/form-data", form(("a.csv", HEAD))),
    "another boundary": (400, "multipart/form-data; boundary=other", form(("a.csv", HEAD))),
    "no form": (400, FORM, b"a,b\n1,2\n"),
    "an empty form": (400, FORM, b"--edge--\r\n"),
    "an empty body for a form": (400, FORM, b""),
    "an empty file": (400, FORM, form(("a.csv", b""))),
    "a form that is cut": (400, FORM, form(("a.csv", HEAD), end=b"--ed")),
    "a part without a name": (400, FORM, b"--edge\r\nX: y\r\n\r\n1\r\n--edge--\r\n"),
    "a form without a file": (
        400,
        FORM,
        b'--edge\r\nContent-Disposition: form-data; name="rows"\r\n\r\n1\r\n--edge--\r\n',
    ),
    "two files": (422, FORM, form(("a.csv", HEAD), ("b.csv", HEAD))),
    "too many parts": (413, FORM, form(*[("a.csv", HEAD)] * 120)),
}


@pytest.mark.parametrize("name", RUBBISH)
def test_rubbish_gets_one_sentence_and_the_server_goes_on(client: TestClient, name: str) -> None:
    status, kind, content = RUBBISH[name]
    reply = client.post("/predict", content=content, headers={"Content-Type": kind.encode("latin-1")})
    refused(reply)
    assert reply.status_code == status, reply.text
    assert client.get("/health").json()["status"] == "ok"


def bomb(side: int) -> bytes:
    file = io.BytesIO()
    Image.new("1", (side, side)).save(file, "PNG")
    return file.getvalue()


def eps() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "EPS")
    return file.getvalue()


def unpacked(*texts: Any) -> bytes:
    return json.dumps({"pictures": texts}).encode()


ODD_PICTURES: dict[str, tuple[int, str, Callable[[], bytes]]] = {
    "nothing": (400, "image/png", lambda: b""),
    "text": (422, "image/png", lambda: b"no picture"),
    "cut": (422, "image/png", lambda: png(1, (60, 60))[:-400]),
    "only a head": (422, "image/png", lambda: png(1)[:40]),
    "endless segments": (422, "image/jpeg", lambda: b"\xff\xd8" + b"\xff\xe1\x00\x02" * 200_000),
    "a large bomb": (413, "image/png", lambda: bomb(12_000)),
    "a bomb": (413, "image/png", lambda: bomb(7_000)),
    "small bombs": (413, FORM, lambda: form(*[("a.png", bomb(6_000))] * 6)),
    "EPS": (422, "application/octet-stream", eps),
    "one is broken": (422, FORM, lambda: form(("a.png", png(1)), ("b.png", png(1)[:60]))),
    "too many": (413, FORM, lambda: form(*[("a.png", png(1))] * 101)),
    "a CSV of paths": (415, CSV, lambda: b"path\n/etc/hostname.png\n"),
    "a CSV in a form": (422, FORM, lambda: form(("a.csv", b"path\n/etc/hostname.png\n"))),
    "rows of paths": (422, JSON, lambda: b'{"rows": [{"path": "/etc/hostname.png"}]}'),
    "a path": (422, JSON, lambda: unpacked("/etc/hostname.png")),
    "a path of base64": (422, JSON, lambda: unpacked(base64.b64encode(b"/etc/hostname.png").decode())),
    "a data address": (422, JSON, lambda: unpacked("data:image/png;base64,AAAA")),
    "no text": (422, JSON, lambda: unpacked(1)),
    "other characters": (422, JSON, lambda: unpacked("ねこ")),
    "an empty text": (422, JSON, lambda: unpacked("")),
    "no pictures": (422, JSON, lambda: unpacked()),
}


@pytest.mark.parametrize("name", ODD_PICTURES)
def test_odd_pictures_get_one_sentence_and_nothing_is_opened(picture_client: TestClient, name: str) -> None:
    status, kind, content = ODD_PICTURES[name]
    reply = post(picture_client, content(), kind)
    sentence = refused(reply)
    assert reply.status_code == status, reply.text
    assert "/etc" not in sentence


def test_a_file_of_the_server_is_not_read_where_a_request_names_it(
    picture_client: TestClient, photos: Path
) -> None:
    path = next(photos.rglob("*.png"))
    named = [str(path), path.as_uri(), f"../{path.name}"]
    for content, kind in [
        (json.dumps({"pictures": named}).encode(), JSON),
        (json.dumps({"rows": [{"path": str(path)}]}).encode(), JSON),
        (form((path.name, b"path\n" + str(path).encode())), FORM),
    ]:
        refused(post(picture_client, content, kind))
    (row,) = answered(post(picture_client, form(("../../x.png", png(1))), FORM))
    assert row["id"] == "../../x.png"  # only ever shown


@given(st.binary(max_size=300), st.sampled_from([JSON, CSV, FORM, "text/html"]))
@settings(max_examples=150, deadline=None)
def test_bytes_of_any_kind_never_break_it(client: TestClient, content: bytes, kind: str) -> None:
    refused(post(client, content, kind))


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*ROW, "z"]), inner)
)


ROWS = (
    st.dictionaries(st.sampled_from([*ROW, "z"]), VALUES)
    | st.fixed_dictionaries(dict.fromkeys(ROW, SCALARS))
    | VALUES
)


@given(st.lists(ROWS, max_size=3))
@settings(max_examples=150, deadline=None)
def test_json_of_any_shape_never_breaks_it(client: TestClient, rows: list[Any]) -> None:
    reply = post(client, json.dumps({"rows": rows}).encode())
    assert reply.status_code == 200 or refused(reply)


@given(st.binary(min_size=1, max_size=40), st.integers(0, 700))
@settings(max_examples=60, deadline=None)
def test_damaged_pictures_never_break_it(picture_client: TestClient, damage: bytes, start: int) -> None:
    content = png(3)
    reply = post(picture_client, content[:start] + damage + content[start + len(damage) :], "image/png")
    assert reply.status_code == 200 or refused(reply)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [(method, "/predict", 405) for method in ("GET", "PUT", "OPTIONS", "DELETE")]
    + [("POST", path, 405) for path in ("/", "/health", "/openapi.json")]
    + [("GET", path, 404) for path in ("/nope", "/health/", "/../etc/passwd", "/%2e%2e/%00", "/docs")],
)
def test_other_paths_and_methods_are_refused(client: TestClient, method: str, path: str, status: int) -> None:
    reply = client.request(method, path)
    assert reply.status_code == status
    refused(reply)
    assert ("allow" in reply.headers) == (status == 405)
    assert "access-control-allow-origin" not in reply.headers


def test_a_compressed_body_is_refused(client: TestClient) -> None:
    assert "compressed" in refused(post(client, b"\x1f\x8b", JSON, **{"Content-Encoding": "gzip"}))


OWN_NAMES = ("localhost:8000", "LOCALHOST", "127.0.0.1:1", "[::1]:8000", "127.9.9.9")
OTHER_NAMES = ("evil.com", "localhost.evil.com", "127.0.0.1.evil.com", "", "[", "10.0.0.1")
OTHER_PAGES = ("http://evil.com", "null", "http://localhost", "http://[", "")


@pytest.mark.parametrize(
    ("headers", "status"),
    [({"Host": host}, 200) for host in OWN_NAMES]
    + [({"Host": host}, 403) for host in OTHER_NAMES]
    + [({"Origin": origin}, 403) for origin in OTHER_PAGES]
    + [({"Origin": "http://127.0.0.1"}, 200)],
)
def test_only_pages_of_its_own_may_ask_it(client: TestClient, headers: dict[str, str], status: int) -> None:
    reply = post(client, json.dumps({"rows": [ROW]}).encode(), **headers)
    assert reply.status_code == status, reply.text
    assert client.get("/health", headers=headers).status_code == status


def test_a_server_for_others_is_called_by_any_name(model: Model) -> None:
    app = make_app(model, max_rows=1, max_bytes=1000, local=False)
    with TestClient(app, "http://some.machine") as client:
        assert client.get("/health").status_code == 200
        assert client.get("/health", headers={"Origin": "http://evil.com"}).status_code == 403


def asgi(app: Any, receive: Callable[[], Any], headers: dict[str, str]) -> tuple[int, dict[str, Any]]:
    """One request to /predict whose body is what ``receive`` gives: status and JSON."""
    messages: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        messages.append(message)

    named = {"host": "127.0.0.1", "content-type": JSON, **headers}
    raw = [(name.encode(), value.encode()) for name, value in named.items()]
    scope = {"type": "http", "method": "POST", "path": "/predict", "headers": raw, "query_string": b""}
    scope |= {"http_version": "1.1", "scheme": "http", "server": ("127.0.0.1", 80), "root_path": ""}
    asyncio.run(app(scope, receive, send))
    content = b"".join(message.get("body", b"") for message in messages)
    return messages[0]["status"], json.loads(content or b"{}")


@pytest.mark.parametrize("kind", [JSON, FORM])
def test_a_body_too_large_is_refused_while_it_arrives(model: Model, kind: str) -> None:
    app = make_app(model, max_rows=10, max_bytes=10_000)
    sent = 0

    async def endless() -> dict[str, Any]:
        nonlocal sent
        sent += 1
        start = form(("a.csv", b""), end=b"")[:-2] if sent == 1 and kind == FORM else b""
        return {"type": "http.request", "body": start + b" " * 1000, "more_body": True}

    status, said = asgi(app, endless, {"content-type": kind})
    assert status == 413
    assert "10000 bytes" in said["error"]
    assert sent <= 11
    sent = 0
    for length in ("10001", "9" * 400, "-1", "many"):
        assert asgi(app, endless, {"content-length": length})[0] == 413
    assert sent == 0  # what says that it is too large is not even read


def test_a_body_that_never_comes_is_not_waited_for(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "BODY_SECONDS", 0.05)

    async def never() -> dict[str, Any]:
        await asyncio.sleep(60)
        return {}

    async def gone() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    app = make_app(model, max_rows=10, max_bytes=10_000)
    assert asgi(app, never, {})[0] == 408
    assert asgi(app, gone, {})[0] == 400


def test_health_answers_and_no_more_than_so_many_wait(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a prediction takes long."""
    monkeypatch.setattr(web, "MOST_WAITING", 3)
    busy, go = threading.Event(), threading.Event()
    app = make_app(model, max_rows=10, max_bytes=10_000)

    def slow(self: Model, dataset: Dataset) -> np.ndarray:
        busy.set()
        assert go.wait(20)
        return np.tile([0.25, 0.75], (len(dataset), 1))

    monkeypatch.setattr(Model, "predict_values", slow)
    content = json.dumps({"rows": [ROW]}).encode()

    async def ask() -> None:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            waiting = [asyncio.create_task(post(client, content)) for _ in range(3)]
            while not busy.is_set():
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            reply = await post(client, content)
            assert reply.status_code == 503
            assert reply.headers["retry-after"] == "1"
            assert "try again" in reply.json()["error"]
            assert (await client.get("/health")).status_code == 200
            go.set()
            for task in waiting:
                assert answered(await task)[0]["probabilities"] == {"no": 0.25, "yes": 0.75}
            assert (await post(client, content)).status_code == 200

    asyncio.run(ask())


def test_large_bodies_share_a_bounded_memory(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "HELD", 0.5)
    with asked(model, size=10_000) as client:
        assert post(client, b" " * 6_000).status_code == 503
        assert post(client, json.dumps({"rows": [ROW]}).encode()).status_code == 200


def test_one_that_fails_does_not_spoil_those_predicted_with_it(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = Model.predict_values

    def careful(self: Model, dataset: Dataset) -> np.ndarray:
        if (dataset.inputs["numbers"] == 13).any():
            raise RuntimeError("thirteen")
        time.sleep(0.05)
        return known(self, dataset)

    app = make_app(model, max_rows=10, max_bytes=10_000)
    monkeypatch.setattr(Model, "predict_values", careful)
    rows = [{**ROW, "a": number} for number in (1, 13, 3, 4)]

    async def ask() -> list[Any]:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await asyncio.gather(*[post(client, json.dumps({"rows": [row]}).encode()) for row in rows])

    replies = asyncio.run(ask())
    assert [reply.status_code for reply in replies] == [200, 500, 200, 200]
    assert list(replies[1].json()) == ["error"]


def test_the_document_describes_what_is_taken(client: TestClient, model: Model) -> None:
    document = client.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1.")
    assert {"title", "version"} <= set(document["info"])
    assert set(document["paths"]) == {"/predict", "/health", "/openapi.json"}
    schemas = document["components"]["schemas"]
    references = re.findall(r'"\$ref": "#/components/schemas/(\w+)"', json.dumps(document))
    assert set(references) == set(schemas)
    operation = document["paths"]["/predict"]["post"]
    assert {"200", "400", "413", "415", "422", "503"} <= set(operation["responses"])
    assert all("description" in response for response in operation["responses"].values())
    assert set(operation["requestBody"]["content"]) == {JSON, CSV, "multipart/form-data"}
    rows = schemas["Request"]["properties"]["rows"]
    assert rows["maxItems"] == 100
    row = rows["items"]
    assert row["required"] == list(ROW)
    assert set(row["properties"]) == {*ROW, "y", "code"}
    assert row["properties"]["word"]["anyOf"][0]["enum"] == ["x", "yy", "zzz"]
    said = schemas["Answer"]["properties"]["rows"]["items"]["properties"]
    assert said["label"]["enum"] == ["no", "yes"]
    assert set(said["probabilities"]["properties"]) == {"no", "yes"}
    example = operation["requestBody"]["content"][JSON]["example"]
    assert example == json_example(model.schema)
    (row,) = answered(post(client, json.dumps(example).encode()))
    assert set(row) == set(said)


def test_the_document_of_pictures_names_their_kinds(picture_client: TestClient) -> None:
    document = picture_client.get("/openapi.json").json()
    content = document["paths"]["/predict"]["post"]["requestBody"]["content"]
    assert {JSON, "image/png", "image/jpeg", "application/octet-stream", "multipart/form-data"} == set(
        content
    )
    assert list(document["components"]["schemas"]["Request"]["properties"]) == ["pictures"]
    health = picture_client.get("/health").json()
    assert health["input"] == "pictures"
    assert health["classes"] == ["a", "b", "c"]


def test_the_page_is_whole_and_lets_nothing_else_run(client: TestClient, picture_client: TestClient) -> None:
    for one in (client, picture_client):
        reply = one.get("/")
        assert reply.headers["content-type"].startswith("text/html")
        policy = reply.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; ")
        assert "unsafe" not in policy
        for tag in ("script", "style"):
            (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", reply.text, re.DOTALL)
            digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
            assert f"{tag}-src 'sha256-{digest}'" in policy
        assert not re.search(r"(src|href)=\"?(https?:)?//|url\(|@import|\son\w+=|\sstyle=", reply.text)
        inputs = re.findall(r"<label.*?>.*?</label>", reply.text, re.DOTALL)
        assert sum(len(re.findall("<input|<textarea", label)) for label in inputs) == len(
            re.findall("<input|<textarea", reply.text)
        )


def test_names_of_classes_and_columns_cannot_become_code(model: Model) -> None:
    evil = "</script><script>alert(1)</script>"
    schema = dataclasses.replace(
        model.schema, classes=(evil, "\u2028'\""), categories={evil: (evil,)}, target=(evil,)
    )
    with asked(dataclasses.replace(model, schema=schema, name=evil)) as client:
        page = client.get("/").text
        assert evil not in page
        assert "<script>alert" not in page
        rows = [{**{name: value for name, value in ROW.items() if name != "word"}, evil: evil}]
        (row,) = answered(post(client, json.dumps({"rows": rows}).encode()))
        assert row["label"] in schema.classes


def test_the_extra_is_asked_for_in_one_sentence(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "NEEDED", ("starlette", "no_such_package"))
    with pytest.raises(AyatoriError, match=r"no_such_package.*pip install 'ayatori\[serve\]'"):
        make_app(model, max_rows=1, max_bytes=1)
    with pytest.raises(AyatoriError, match="no_such_package"):
        serve(Path("run"))


def test_what_cannot_be_listened_on_is_said_in_one_sentence(run: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(AyatoriError, match=r"must be free.*choose another"),
    ):
        serve(run, port=taken.getsockname()[1])
    for host in ("no such name", "203.0.113.1", "a" * 70, ""):
        with pytest.raises(AyatoriError, match="must be"):
            serve(run, host, 0 if host else 70_000)
    with pytest.raises(AyatoriError, match=r"model\.json"):
        serve(run.parent / "nothing", port=0)
    with pytest.raises(AyatoriError, match="at least 1"):
        serve(run, max_rows=0)


@contextlib.contextmanager
def running_server(run: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A real server, and its address."""
    environment = {**os.environ, "PYTHONWARNINGS": "default"}
    process = subprocess.Popen(
        [sys.executable, "-c", START, str(run), "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    address = r"(http://127\.0\.0\.1:\d+) \(Ctrl-C ends it\)"
    named = re.fullmatch(rf"model .+ of {re.escape(str(run))} on {address}\n", line)
    assert named, (line, process.stderr and process.stderr.read())
    try:
        yield process, named[1]
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def server(run: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    with running_server(run) as one:
        yield one


@pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium here")
def test_the_page_shows_answers_in_a_browser(server: tuple[Any, str], tmp_path: Path) -> None:
    with Browser(tmp_path) as browser:
        browser.open(server[1], width=390)
        browser.run(
            "document.querySelector('#one input').value = '2'; document.querySelector('#one button').click()"
        )
        browser.wait_for("document.querySelector('#answer tbody tr')")
        assert browser.run("document.documentElement.scrollWidth") == 390
        assert re.search(r"yes\n(.|\n)*%", browser.run("document.querySelector('#answer').innerText"))
        text = json.dumps(HEAD.decode() + "1,2,3,true,2026-01-31,x\n" * 3)
        browser.run(
            f"document.querySelector('#text').value = {text}; document.querySelector('#many').requestSubmit()"
        )
        browser.wait_for("document.querySelectorAll('#answer tbody tr').length === 3")
        assert browser.complaints() == []
        browser.run(
            "document.querySelector('#text').value = '[1]'; document.querySelector('#many').requestSubmit()"
        )
        browser.wait_for("document.querySelector('#answer [role=alert]')")
        assert {address.rsplit(":", 1)[-1].partition("/")[2] for address in browser.asked()} == {
            "",
            "predict",
        }


def test_a_real_server_answers_many_at_once_and_keeps_its_size(
    server: tuple[subprocess.Popen[str], str], model: Model
) -> None:
    process, address = server
    rows = table().drop(columns=["code", "y"])
    known = model.predict_table(model.read(rows))
    watched, rubbish = psutil.Process(process.pid), list(RUBBISH.values())

    def ask(number: int) -> None:
        with httpx.Client(base_url=address) as client:
            for row in range(number, number + 25):
                status, kind, content = rubbish[(25 * number + row) % len(rubbish)]
                if row % 5 == 0 and status in (400, 422):  # its limits are larger
                    refused(post(client, content, kind))
                (said,) = answered(post(client, rows_json(rows.iloc[[row]])))
                assert said["label"] == known["label"][row]
                assert said["probabilities"]["yes"] == pytest.approx(known["p_yes"][row], abs=1e-5)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(ask, range(16)))
        before = watched.memory_info().rss
        list(pool.map(ask, range(16)))
    assert watched.memory_info().rss - before < 40e6


def test_a_real_server_refuses_a_large_upload_and_ends_calmly(
    server: tuple[subprocess.Popen[str], str], run: Path
) -> None:
    process, address = server
    port = int(address.rpartition(":")[2])
    with httpx.Client(base_url=address) as client:
        assert "32000000 bytes" in refused(post(client, b" " * 40_000_000, JSON))
        assert client.get("/health").json()["status"] == "ok"

    def chunks() -> Iterator[bytes]:
        for _ in range(400):
            yield b" " * 100_000

    with httpx.Client(base_url=address) as client:
        assert post(client, chunks()).status_code == 413  # type: ignore[arg-type]
    with socket.create_connection(("127.0.0.1", port), timeout=10) as raw:
        raw.sendall(b"rubbish\r\n\r\n")
        assert raw.recv(100).startswith(b"HTTP/1.1 400")
    with pytest.raises(AyatoriError, match="must be free"):
        serve(run, port=port)
    with socket.create_connection(("127.0.0.1", port)) as idle:
        idle.sendall(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n")  # and no more
        process.send_signal(signal.SIGINT)
        late = []
        with contextlib.suppress(OSError):  # it does not listen any more
            while len(late) < 40:  # who comes while it ends
                late.append(socket.create_connection(("127.0.0.1", port), timeout=1))
                time.sleep(0.003)
        out, err = process.communicate(timeout=15)
        for one in late:
            one.close()
    assert (process.returncode, out, err) == (0, "", "")
