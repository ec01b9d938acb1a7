"""`ayatori serve` under load: 32 connections, one request in ten malformed, every answer checked.

For a small table model and a small picture model: requests a second, latency, right and wrong answers, how
bad requests were refused, and the server's memory at the start, after ten seconds and at the end. Where wrk
is installed, also its plain throughput of one good request. All of it stays on 127.0.0.1.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import collections
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
from common import machine, say
from PIL import Image

import ayatori
from ayatori.model_files import load_model

ROWS = 400  # of the pool that requests are drawn from
CLOSE = 1e-5
BAD_SHARE = 0.1
EARLY = 10.0  # seconds after which memory is read for the second time
START = "import sys; from ayatori.serve import serve; serve(sys.argv[1], port=int(sys.argv[2]))"
RECIPE = ayatori.Recipe(
    plan=ayatori.PlanRecipe(folds=3),
    train=ayatori.TrainRecipe(epochs=5),
    explore=ayatori.recipe.ExploreRecipe(look=False),
    evaluate=ayatori.recipe.EvaluateRecipe(baselines=()),
)


@dataclass(frozen=True)
class Request:
    """Bytes to send; the known answer, or none for what must be refused."""

    sent: bytes
    labels: Sequence[str] = ()
    probabilities: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    bad: str = ""


@dataclass
class Count:
    """What was seen, over all connections."""

    seconds: list[float] = field(default_factory=list)
    right: int = 0
    wrong: list[str] = field(default_factory=list)
    refused: collections.Counter[str] = field(default_factory=collections.Counter)
    not_refused: list[str] = field(default_factory=list)


def post(content: bytes, kind: str, path: str = "/predict", method: str = "POST") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\n"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content


def form(files: Sequence[tuple[str, bytes]]) -> bytes:
    parts = [
        f'--edge\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'.encode() + content
        for name, content in files
    ]
    return b"\r\n".join([*parts, b"--edge--\r\n"])


def table(rows: int) -> pd.DataFrame:
    random = np.random.default_rng(0)
    frame = pd.DataFrame(random.normal(size=(rows, 8)).round(4), columns=list("abcdefgh"))
    frame["word"] = random.choice(["x", "yy", "zzz"], rows)
    frame["y"] = np.where(frame["a"] + (frame["word"] == "x") > 0.3, "yes", "no")
    return frame


def photos(folder: Path, count: int) -> list[Path]:
    """So many coloured pictures of 48 x 64 pixels in three classes."""
    random, found = np.random.default_rng(0), []
    for number in range(count):
        name = number % 3
        pixels = random.integers(0, 150, (48, 64, 3))
        pixels[..., name] += 80
        path = folder / "abc"[name] / f"{number:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(path)
        found.append(path)
    return sorted(found)


def table_requests(folder: Path, random: np.random.Generator) -> tuple[Path, list[Request]]:
    frame = table(ROWS)
    frame.to_csv(folder / "table.csv", index=False)
    ayatori.run(str(folder / "table.csv"), RECIPE, out=folder / "table")
    model, rows = load_model(folder / "table"), frame.drop(columns="y")
    known = model.predict_table(model.read(rows))
    labels, shares = known["label"].to_numpy(), known[["p_no", "p_yes"]].to_numpy()
    found = []
    for number in range(1000):
        some = random.choice(ROWS, random.integers(1, 9))
        part = rows.iloc[some]
        if number % 4:
            sent = post(json.dumps({"rows": part.to_dict("records")}).encode(), "application/json")
        elif number % 8:
            sent = post(part.to_csv(index=False).encode(), "text/csv")
        else:
            content = form([("new.csv", part.to_csv(index=False).encode())])
            sent = post(content, "multipart/form-data; boundary=edge")
        found.append(Request(sent, labels[some].tolist(), shares[some]))
    good = rows.iloc[:1].to_dict("records")[0]
    odd = [{**good, "a": "many"}, {**good, "extra": 1}, {"a": 1}, {**good, "b": [1]}, {**good, "c": 1e999}]
    bodies = [json.dumps({"rows": [row]}).encode() for row in odd]
    bodies += [b"{", b'{"rows": []}', b"[" * 100_000, b'{"rows": [NaN]}', b"\xff\xfe", b""]
    bad = [(f"JSON {number}", post(body, "application/json")) for number, body in enumerate(bodies)]
    bad += [("CSV", post(b"a,b\n1,2,3\n", "text/csv")), ("kind", post(b"1", "text/plain"))]
    return folder / "table", found + refusals(bad)


def picture_requests(folder: Path, random: np.random.Generator) -> tuple[Path, list[Request]]:
    files = photos(folder / "photos", ROWS)
    ayatori.run(str(folder / "photos"), RECIPE, out=folder / "pictures")
    model = load_model(folder / "pictures")
    known = model.predict_table(model.read(folder / "photos"))
    assert known["id"].tolist() == [f"{path.parent.name}/{path.name}" for path in files]
    labels, shares = known["label"].to_numpy(), known[["p_a", "p_b", "p_c"]].to_numpy()
    contents, found = [path.read_bytes() for path in files], []
    for number in range(1000):
        some = random.choice(ROWS, 1 if number % 2 else random.integers(1, 5))
        if number % 2:
            sent = post(contents[some[0]], ("image/jpeg", "application/octet-stream")[number % 4 // 2])
        elif number % 4:
            texts = [base64.b64encode(contents[row]).decode() for row in some]
            sent = post(json.dumps({"pictures": texts}).encode(), "application/json")
        else:
            content = form([(files[row].name, contents[row]) for row in some])
            sent = post(content, "multipart/form-data; boundary=edge")
        found.append(Request(sent, labels[some].tolist(), shares[some]))
    bomb = io.BytesIO()
    Image.new("1", (12_000, 12_000)).save(bomb, "PNG")
    bodies = {"cut": contents[0][:700], "bomb": bomb.getvalue(), "text": b"no picture", "empty": b""}
    bad = [(name, post(body, "image/jpeg")) for name, body in bodies.items()]
    bad += [("path", post(b'{"pictures": ["/etc/passwd"]}', "application/json"))]
    bad += [("form", post(form([("a.jpg", contents[0])])[:-20], "multipart/form-data; boundary=edge"))]
    return folder / "pictures", found + refusals(bad)


def refusals(bad: Sequence[tuple[str, bytes]]) -> list[Request]:
    more = [("path", post(b"1", "text/csv", "/none")), ("method", post(b"1", "text/csv", method="PUT"))]
    return [Request(sent, bad=name) for name, sent in (*bad, *more)]


@contextmanager
def served(run: Path) -> Iterator[tuple[int, psutil.Process]]:
    """A real server on a free port of the loopback, until Ctrl-C."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-c", START, str(run), str(port)]
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}  # as the command `ayatori` has it
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield port, psutil.Process(process.pid)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


async def answer_of(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head)
    return int(head[9:12]), await reader.readexactly(int(length[1]) if length else 0)


def check(request: Request, status: int, content: bytes, count: Count) -> None:
    said = json.loads(content)
    if request.bad:
        good = 400 <= status < 500 and isinstance(said.get("error"), str)
        count.refused[str(status)] += good
        if not good:
            count.not_refused.append(f"{request.bad}: {status}")
        return
    if status != 200:
        count.wrong.append(f"{status} {content[:200]!r}")
        return
    rows = said["rows"]
    shares = np.array([list(row["probabilities"].values()) for row in rows])
    close = shares.shape == request.probabilities.shape and (
        np.abs(shares - request.probabilities).max() <= CLOSE
    )
    if close and [row["label"] for row in rows] == list(request.labels):
        count.right += 1
    else:
        count.wrong.append(f"other answers: {content[:200]!r}")


async def drive(port: int, requests: Sequence[Request], seed: int, end: float, count: Count) -> None:
    """One connection, one request after another."""
    random = np.random.default_rng(seed)
    good = [request for request in requests if not request.bad]
    bad = [request for request in requests if request.bad]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while time.perf_counter() < end:
        pool = bad if random.random() < BAD_SHARE else good
        request = pool[random.integers(len(pool))]
        start = time.perf_counter()
        writer.write(request.sent)
        await writer.drain()
        status, content = await answer_of(reader)
        if not request.bad:
            count.seconds.append(time.perf_counter() - start)
        check(request, status, content, count)
    writer.close()
    await writer.wait_closed()


async def load(
    port: int, process: psutil.Process, requests: Sequence[Request], options: argparse.Namespace
) -> dict[str, Any]:
    def megabytes() -> float:
        return round(process.memory_info().rss / 1e6, 1)

    count, memory = Count(), {"start": megabytes()}
    start = time.perf_counter()
    end = start + options.seconds
    tasks = [
        asyncio.create_task(drive(port, requests, seed, end, count)) for seed in range(options.connections)
    ]
    await asyncio.sleep(min(EARLY, options.seconds / 2))
    memory["after 10 s"] = megabytes()
    await asyncio.gather(*tasks)
    took = time.perf_counter() - start
    memory["end"] = megabytes()
    all_refused = sum(count.refused.values())
    done = count.right + len(count.wrong) + all_refused + len(count.not_refused)
    p50, p95, p99 = (round(float(q) * 1000, 2) for q in np.quantile(count.seconds, [0.5, 0.95, 0.99]))
    return {
        "requests": done,
        "requests_per_second": round(done / took, 1),
        "milliseconds": {"p50": p50, "p95": p95, "p99": p99},
        "right": count.right,
        "wrong": len(count.wrong),
        "bad_refused": dict(sorted(count.refused.items())),
        "bad_not_refused": len(count.not_refused),
        "examples_of_wrong": [*count.wrong[:3], *count.not_refused[:3]],
        "megabytes": memory,
    }


def plain(port: int, request: Request, options: argparse.Namespace, folder: Path) -> float | None:
    """Requests a second that wrk reaches with one good request; None where there is no wrk."""
    if not shutil.which("wrk"):
        return None
    head, _, body = request.sent.partition(b"\r\n\r\n")
    kind = re.search(rb"Content-Type: (.*)", head)
    assert kind is not None
    (folder / "body").write_bytes(body)
    script = (
        f'wrk.method = "POST"\nwrk.headers["Content-Type"] = "{kind[1].decode().strip()}"\n'
        f'wrk.body = io.open("{folder / "body"}", "rb"):read("*all")\n'
    )
    (folder / "post.lua").write_text(script)
    seconds = max(1, min(10, round(options.seconds)))
    command = ["wrk", "-t1", f"-c{options.connections}", f"-d{seconds}s", "-s", str(folder / "post.lua")]
    done = subprocess.run([*command, f"http://127.0.0.1:{port}/predict"], capture_output=True, text=True)
    rate, odd = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout), "Non-2xx" in done.stdout
    return None if rate is None or odd else float(rate[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--models", nargs="+", choices=("table", "pictures"), default=["table", "pictures"])
    options = parser.parse_args()
    before, facts = machine(), {}
    makers = {"table": table_requests, "pictures": picture_requests}
    for name in options.models:
        with tempfile.TemporaryDirectory() as folder:
            run, requests = makers[name](Path(folder), np.random.default_rng(1))
            with served(run) as (port, process):
                facts[name] = asyncio.run(load(port, process, requests, options))
                facts[name]["wrk_requests_per_second"] = plain(port, requests[1], options, Path(folder))
    say({**facts, "seconds": options.seconds, "connections": options.connections}, before)


if __name__ == "__main__":
    main()
