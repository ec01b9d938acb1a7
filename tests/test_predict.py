"""New rows, however many: blocks say what all rows at once say, in bounded memory, and files are whole."""

from __future__ import annotations

import dataclasses
import gzip
import os
import resource
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import ayatori
from ayatori import cli
from ayatori.data import blocks, files, load, load_like, read_blocks
from ayatori.data.files import open_table
from ayatori.model_files import load_model
from ayatori.records import AyatoriError, Dataset, Schema
from ayatori.store import write_csv

QUICK = ayatori.Recipe(
    plan=ayatori.PlanRecipe(folds=2),
    train=ayatori.TrainRecipe(epochs=1),
    evaluate=ayatori.recipe.EvaluateRecipe(baselines=()),
)


def table(rows: int, seed: int = 0) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    frame = pd.DataFrame(random.normal(size=(rows, 6)).round(4), columns=list("abcdef"))
    frame["word"] = random.choice(["x", "yy", "zzz"], rows)
    frame["flag"] = random.random(rows) > 0.5
    return frame


def trained_run(folder: Path, net: str) -> Path:
    """The run folder of a small network on ``table``."""
    frame = table(120)
    frame["y"] = np.where(frame["a"] > 0, "yes", "no")
    frame.to_csv(folder / "table.csv", index=False)
    recipe = dataclasses.replace(QUICK, net=ayatori.NetRecipe(name=net))
    ayatori.run(str(folder / "table.csv"), recipe, out=folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_run(tmp_path_factory.mktemp("predict"), "mlp")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 8 rows, and CSV files that are read by the kilobyte."""
    monkeypatch.setattr(blocks, "MOST_ROWS", 8)
    monkeypatch.setattr(blocks, "LEAST_ROWS", 8)
    monkeypatch.setattr(files, "_CSV_BLOCK", 1 << 10)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path) -> Callable:
    """Run a command in an empty folder: (exit code, output, what was said on stderr)."""
    monkeypatch.chdir(tmp_path)

    def command(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ayatori", *map(str, words)])
        capsys.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        return code, *capsys.readouterr()

    return command


def same(data: Any, schema: Schema, rows: int = 8) -> Dataset:
    """Assert that blocks of ``rows`` rows are what is read at once, and give that."""
    whole = load_like(data, schema)
    parts = list(read_blocks(data, schema))
    assert [len(part) for part in parts[:-1]] == [rows] * (len(parts) - 1)
    assert len(parts) == max(1, -(-len(whole) // rows)) or not len(parts[-1])
    for name, values in whole.inputs.items():
        joined = np.concatenate([part.inputs[name] for part in parts])
        assert joined.dtype == values.dtype
        np.testing.assert_array_equal(joined, values)
    assert np.concatenate([part.ids for part in parts]).tolist() == whole.ids.tolist()
    assert parts[-1].notes == whole.notes
    assert {part.source for part in parts} == {whole.source}
    return whole


def told(call: Callable[[], Any]) -> str:
    """What is said of bad rows."""
    with pytest.raises(AyatoriError) as error:
        call()
    return str(error.value)


def odd_table(rows: int = 100) -> pd.DataFrame:
    """Every kind of column, with values whose kind shows only late."""
    frame = table(rows)
    frame["late"] = ["1"] * (rows - 30) + ["2.5"] * 30
    frame["gap"] = [""] * (rows - 20) + ["7"] * 20
    frame["switch"] = ["0", "1"] * (rows // 2 - 20) + ["true", "False"] * 20
    frame["day"] = ["2026-01-31"] * (rows - 30) + ["2026-02-01 12:30"] * 30
    frame["other day"] = ["2026/01/31"] * (rows - 30) + ["2026-02-01T12:30:00Z"] * 30
    frame["clock"] = ["08:30:00", "17:15:00"] * (rows // 2)
    frame["name"] = [f"'{number}', \"quoted\"\nna" for number in range(rows)]
    frame["y"] = np.where(frame["a"] > 0, "yes", "no")
    return frame


def odd_csv(path: Path, frame: pd.DataFrame, how: str) -> Path:
    path = path / ("new.csv.gz" if how == "gz" else "new.csv")
    options: dict[str, Any] = {"semicolon": {"sep": ";", "decimal": ","}, "tab": {"sep": "\t"}}.get(how, {})
    text = frame.to_csv(index=False, **options)
    if how == "semicolon":
        text = text.replace("2.5;", "2,5;")
    content = text.replace("\n", "\r\n" if how == "windows" else "\n").encode()
    content = b"\xef\xbb\xbf" + content if how == "mark" else content
    path.write_bytes(gzip.compress(content) if how == "gz" else content)
    return path


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("how", ["plain", "semicolon", "tab", "windows", "mark", "gz"])
def test_blocks_of_a_csv_are_what_is_read_at_once(how: str, tmp_path: Path) -> None:
    frame = odd_table()
    trained = load(odd_csv(tmp_path, frame, how), target="y").schema
    assert {"late", "gap", "switch", "clock", "day: days", "other day: hour"} <= set(trained.numbers)
    assert len(same(odd_csv(tmp_path, frame.drop(columns="y"), how), trained)) == 100


@pytest.mark.usefixtures("small")
def test_an_id_column_and_unnamed_rows_are_called_as_when_read_at_once(tmp_path: Path) -> None:
    frame = odd_table()
    frame.loc[[3, 50, 99], "name"] = ""
    frame.to_csv(tmp_path / "table.csv", index=False)
    trained = load(tmp_path / "table.csv", recipe=ayatori.DataRecipe(target="y", ids="name")).schema
    assert same(tmp_path / "table.csv", trained).ids[[3, 50, 99]].tolist() == ["3", "50", "99"]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("groups", [7, 1000])
def test_blocks_of_a_parquet_file_and_of_a_data_frame_are_what_is_read_at_once(
    groups: int, tmp_path: Path
) -> None:
    frame = odd_table().drop(columns=["switch", "other day"])
    frame["day"] = pd.to_datetime(frame["day"], format="mixed")
    frame["word"] = frame["word"].astype("category")
    frame["late"] = frame["late"].astype(object)
    trained = load(frame, target="y").schema
    assert {"word", "late", "day: days"} <= {*trained.categories, *trained.numbers}
    frame.to_parquet(tmp_path / "new.parquet", row_group_size=groups)
    same(tmp_path / "new.parquet", trained)
    same(frame, trained)
    same(pa.Table.from_pandas(frame), trained)


WORDS = (
    *("1", "0", " 7 ", "0x1F", "99999999999999999999", "1.5", "1e5", "inf", "true", "False", "", "NA", "a"),
    *("2026-01-31", "10:00:00", "2026-01-31 10:00", "2026-01-31 10:00:00.5", "2026-01-31T10:00:00Z"),
)
RUNS = st.lists(st.tuples(st.sampled_from(WORDS), st.integers(1, 12)), min_size=1, max_size=5)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(columns=st.lists(RUNS, min_size=1, max_size=3))
def test_a_streamed_csv_has_the_types_and_values_of_the_whole(
    columns: list[list[tuple[str, int]]], tmp_path: Path
) -> None:
    words = [[word for word, times in runs for _ in range(times)] for runs in columns]
    rows = max(map(len, words))
    lines = zip(*[[*column, *[column[-1]] * (rows - len(column))] for column in words], strict=True)
    names = [f"c{at}" for at in range(len(columns))]
    text = "\n".join([",".join([*names, "z"]), *(",".join([*line, "z"]) for line in lines)])
    (tmp_path / "table.csv").write_text(text + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "_CSV_BLOCK", 128)
        opened = open_table(tmp_path / "table.csv")
        assert opened.stream is not None
        whole = opened.read(names, ())
        stream = opened.stream(names, (), None)
        pieces = list(stream.pieces)
    assert stream.rows == whole.num_rows == rows
    assert pa.concat_tables(pieces).equals(whole)


LATE: dict[str, tuple[str, Callable[[list[str]], None]]] = {
    "a word among numbers": (
        "row 90 (the first is 0) says 'oops'",
        lambda lines: put(lines, 90, "a", "oops"),
    ),
    "an infinite number": ("row 77 (the first is 0) is infinite", lambda lines: put(lines, 77, "b", "inf")),
    "a word among dates": ("row 95 (the first is 0) does not", lambda lines: put(lines, 95, "day", "soon")),
    "a short line": ("however one has 2: 'only,two'", lambda lines: lines.append("only,two")),
    "bytes that are not text": ("UTF-8", lambda lines: put(lines, 99, "word", "\udcff")),
    "such bytes among numbers": ("UTF-8", lambda lines: put(lines, 99, "c", "\udcff")),
}


def put(lines: list[str], row: int, column: str, word: str) -> None:
    at = lines[0].split(",").index(column)
    values = lines[row + 1].split(",")
    lines[row + 1] = ",".join([*values[:at], word, *values[at + 1 :]])


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("fault", LATE)
def test_a_bad_row_in_a_late_block_is_said_as_when_all_is_read_at_once(fault: str, tmp_path: Path) -> None:
    frame = odd_table().drop(columns="name")
    trained = load(frame, target="y").schema
    lines = frame.drop(columns="y").to_csv(index=False).splitlines()
    words, harm = LATE[fault]
    harm(lines)
    (tmp_path / "new.csv").write_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))
    said = told(lambda: load_like(tmp_path / "new.csv", trained))
    assert words in said
    assert said == told(lambda: list(read_blocks(tmp_path / "new.csv", trained)))


@pytest.mark.usefixtures("small")
def test_a_bad_row_or_page_late_in_a_parquet_file_is_said(tmp_path: Path) -> None:
    frame = table(100).assign(y=[0, 1] * 50)
    trained = load(frame, target="y").schema
    frame.loc[91, "b"] = np.inf
    path = tmp_path / "new.parquet"
    frame.to_parquet(path, row_group_size=10)
    said = told(lambda: list(read_blocks(path, trained)))
    assert "row 91 (the first is 0) is infinite" in said
    assert said == told(lambda: load_like(path, trained))
    words = pa.StringArray.from_buffers(1, pa.array([0, 1], pa.int32()).buffers()[1], pa.py_buffer(b"\xff"))
    columns = {name: pa.array(frame[name][:1]) for name in "abcdef"}
    pq.write_table(pa.table({**columns, "word": words, "flag": pa.array([True])}), path)
    assert "must be a whole Parquet file" in told(lambda: list(read_blocks(path, trained)))
    frame.drop(columns="a").to_parquet(path)
    assert "column 'a' must be in the rows" in told(lambda: list(read_blocks(path, trained)))
    frame[:0].to_parquet(path)
    assert "must hold rows" in told(lambda: list(read_blocks(path, trained)))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_blocks_of_arrays_are_what_is_read_at_once(save: Callable[..., None], tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    path = tmp_path / "new.npz"
    numbers = random.normal(size=(51, 3)).astype(np.float32)
    pictures = np.linspace(0, 1, 51 * 12 * 10 * 3).reshape(51, 12, 10, 3)  # above 1/255 only late
    for X in (numbers, pictures, (pictures * 255).astype(np.uint8), pictures[..., 0] > 0.5):
        trained = load(X, y=[0, 1, 1] * 17).schema
        save(path, X=X, ids=[f"row {number}" for number in range(51)])
        assert same(path, trained).ids[50] == "row 50"
        save(path, X=np.asfortranarray(X), y=np.zeros(51))
        same(path, trained)
        same(X, trained)
    save(path, X=numbers[:, 0])
    same(path, load(numbers[:, 0], y=[0, 1, 1] * 17).schema)


@pytest.mark.usefixtures("small")
def test_bad_arrays_are_said_as_when_read_at_once(tmp_path: Path) -> None:
    path = tmp_path / "new.npz"
    random = np.random.default_rng(0)
    trained = load(random.normal(size=(51, 3)), y=[0, 1, 1] * 17).schema
    pictures = load(random.random((51, 4, 4)), y=[0, 1, 1] * 17).schema
    bad = random.normal(size=(51, 3))
    bad[44, 1] = -np.inf
    late = np.zeros((51, 4, 4))
    late[50, 0, 0] = 256
    unknown = np.where(np.arange(51 * 16) == 800, np.nan, 0.0).reshape(51, 4, 4)
    cases = [
        (bad, trained, "row 44, column 1"),
        (bad[:44, :2], trained, "3 columns"),
        (late, pictures, "from 0 to 256"),
        (unknown, pictures, "from nan to nan"),
        (late[:9], trained, "rows of numbers"),
        (late[:9, :3], pictures, "shape (1, 4, 4)"),
        (late[:0], pictures, "must hold rows"),
        (np.array([["a"]]), trained, "array of numbers"),
    ]
    for X, schema, words in cases:
        np.savez(path, X=X)
        said = told(lambda schema=schema: list(read_blocks(path, schema)))
        assert words in said
        assert said == told(lambda schema=schema: load_like(path, schema))
    np.savez(path, X=bad[:44])
    whole = path.read_bytes()
    path.write_bytes(whole[:400] + b"\x01" + whole[401:])
    assert "must be a whole .npz" in told(lambda: list(read_blocks(path, trained)))
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("Y.npy", b"")
    assert "must hold an array 'X'" in told(lambda: list(read_blocks(path, trained)))


@pytest.mark.usefixtures("small")
def test_lists_and_torch_datasets_come_in_blocks_too() -> None:
    class Pairs:
        def __len__(self) -> int:
            return len(numbers)

        def __getitem__(self, row: int) -> tuple[np.ndarray, int]:
            return numbers[row], row % 2

    numbers = np.random.default_rng(0).normal(size=(51, 3))
    trained = load(numbers, y=[0, 1, 1] * 17).schema
    same(numbers.tolist(), trained)
    same(Pairs(), trained)


def paint(folder: Path, count: int) -> Path:
    random = np.random.default_rng(0)
    for number in range(count):
        path = folder / ("light" if number % 2 else "dark") / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 120, (12, 12, 3)) + (number % 2) * 100
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    return folder


@pytest.mark.usefixtures("small")
def test_blocks_of_pictures_are_what_is_read_at_once_and_broken_ones_are_named_once(tmp_path: Path) -> None:
    folder = paint(tmp_path / "pets", 45)
    trained = load(folder).schema
    same(folder, trained)
    for number in (0, 2, 9, 18, 20, 22, 24, 26, 28, 44):  # some at the start, some in a row, the last of all
        path = folder / ("light" if number % 2 else "dark") / f"{number:03d}.png"
        path.write_bytes(path.read_bytes()[:60])
    whole = same(folder, trained)
    assert len(whole) == 35
    assert any("10 broken pictures are skipped: 'dark/000.png'" in note for note in whole.notes)
    names = [f"pets/{name}" for name in whole.ids[:30]]
    pd.DataFrame({"path": names, "key": np.arange(30)}).to_csv(tmp_path / "list.csv", index=False)
    assert same(tmp_path / "list.csv", trained).ids[29] == names[29]
    for path in folder.rglob("*.png"):
        path.write_bytes(b"no picture")
    said = told(lambda: list(read_blocks(folder, trained)))
    assert "however 45 of them cannot be read" in said
    assert said == told(lambda: load_like(folder, trained))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", ["new.csv", "new.parquet"])
def test_the_file_of_predictions_is_that_of_all_rows_at_once(command: Callable, run: Path, name: str) -> None:
    frame = table(101, seed=1)
    frame.to_csv(name, index=False) if name.endswith("csv") else frame.to_parquet(name)
    model = load_model(run)
    code, out, _ = command("predict", run, name, "-o", "made/here/out.csv")
    assert (code, out) == (0, "101 rows -> made/here/out.csv\n")
    small_parts = pd.read_csv("made/here/out.csv", dtype={"id": str})
    whole = model.predict_table(model.read(name))
    assert small_parts["id"].tolist() == whole["id"].tolist() == [str(row) for row in range(101)]
    assert small_parts["label"].tolist() == whole["label"].tolist()
    np.testing.assert_allclose(small_parts["p_yes"], whole["p_yes"], rtol=1e-6)
    sample = pd.DataFrame({"id": np.arange(101)[::-1], "yes": 0.5})
    sample.to_csv("sample.csv", index=False)
    assert command("predict", run, name, "-o", "sub.csv", "--like", "sample.csv")[0] == 0
    made = pd.read_csv("sub.csv")
    assert made["id"].tolist() == sample["id"].tolist()
    np.testing.assert_array_equal(made["yes"], small_parts["p_yes"][::-1])


def test_blocks_of_the_usual_size_give_the_same_bytes_as_all_rows_at_once(
    command: Callable, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "MOST_ROWS", 1 << 12)  # a power of two, as the usual one
    table(10_001, seed=2).to_csv("new.csv", index=False)
    model = load_model(run)
    assert len(list(model.blocks("new.csv"))) == 3
    assert command("predict", run, "new.csv", "-o", "out.csv")[0] == 0
    whole = model.predict_table(model.read("new.csv")).to_csv(index=False)
    assert Path("out.csv").read_bytes() == whole.encode()


@pytest.mark.usefixtures("small")
def test_a_bad_last_row_leaves_no_file_and_no_folder(command: Callable, run: Path, tmp_path: Path) -> None:
    lines = table(100).to_csv(index=False).splitlines()
    put(lines, 99, "a", "oops")
    Path("new.csv").write_text("\n".join(lines))
    code, out, said = command("predict", run, "new.csv", "-o", "some/where/out.csv")
    assert (code, out) == (2, "")
    assert said == ("ayatori: column 'a' must hold numbers, however row 99 (the first is 0) says 'oops'\n")
    assert [path.name for path in tmp_path.iterdir()] == ["new.csv"]


@pytest.mark.usefixtures("small")
def test_a_full_disk_is_said_and_leaves_nothing(command: Callable, run: Path, tmp_path: Path) -> None:
    table(2000).to_csv("new.csv", index=False)
    model = load_model(run)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        said = told(lambda: write_csv("out.csv", map(model.predict_table, model.blocks("new.csv"))))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert said == "'out.csv' must be writable, however the largest allowed file size is reached"
    assert [path.name for path in tmp_path.iterdir()] == ["new.csv"]


def test_an_interrupt_between_blocks_leaves_nothing_and_keeps_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()

    def tables() -> Iterator[pd.DataFrame]:
        yield table(3)
        assert [path.name for path in (tmp_path / "here" / "new").iterdir()] == [".out.csv.part"]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_csv(tmp_path / "here" / "new" / "out.csv", tables())
    assert [path.name for path in tmp_path.rglob("*")] == ["here"]


@pytest.mark.usefixtures("small")
def test_progress_is_told_in_order_and_never_for_a_single_block(run: Path, tmp_path: Path) -> None:
    heard: list[tuple[str, float]] = []
    model = load_model(run)
    for rows, blocks_told in ((8, 0), (100, 12)):
        table(rows).to_csv(tmp_path / "new.csv", index=False)
        for _ in model.blocks(
            tmp_path / "new.csv", progress=lambda stage, share: heard.append((stage, share))
        ):
            pass
        assert [stage for stage, _ in heard] == ["predict"] * blocks_told
    shares = [share for _, share in heard]
    assert shares == sorted(shares)
    assert shares[-1] == 0.96


WATCHED = """
import os, sys, threading, time
import psutil
from ayatori import cli
run, process, now = sys.argv[1], psutil.Process(), [0]
def watch():
    while True:
        now[0] = max(now[0], process.memory_info().rss)
        time.sleep(0.01)
threading.Thread(target=watch, daemon=True).start()
for name in sys.argv[2:]:
    now[0] = 0
    sys.argv = ["ayatori", "predict", run, name, "-o", name + ".out"]
    try:
        cli.main()
    except SystemExit as stop:
        assert not stop.code
    print("peak", now[0], flush=True)
"""


def test_memory_does_not_grow_with_the_number_of_rows(tmp_path: Path) -> None:
    run = trained_run(tmp_path, "linear")
    small = table(100_000)
    header, _, lines = small.to_csv(index=False).partition("\n")
    (tmp_path / "small.csv").write_text(f"{header}\n{lines}")
    (tmp_path / "large.csv").write_text(f"{header}\n{lines * 4}")
    large = pa.concat_tables([pa.Table.from_pandas(small)] * 4)
    pq.write_table(large, tmp_path / "large.parquet", row_group_size=len(large))
    paths = [str(tmp_path / name) for name in ("small.csv", "large.csv", "large.parquet")]
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, str(run), *paths], capture_output=True, text=True, check=True
    )
    first, *later = [int(line.split()[1]) / 2**20 for line in done.stdout.splitlines() if "peak" in line]
    assert max(later) - first < 80, f"{first:.0f} MB for 100 000 rows, {later} MB for 400 000"
    with (tmp_path / "large.csv.out").open() as file:
        assert sum(1 for _ in file) == 400_001


def test_a_killed_process_leaves_no_output_and_the_next_cleans_up(
    command: Callable, run: Path, tmp_path: Path
) -> None:
    table(400_000).to_parquet("new.parquet")
    words = [sys.executable, "-m", "ayatori", "predict", str(run), "new.parquet", "-o", "out.csv"]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    draft = tmp_path / ".out.csv.part"
    deadline = time.monotonic() + 60
    while not (draft.exists() and draft.stat().st_size) and time.monotonic() < deadline:
        assert process.poll() is None, "it must still be at work when it is killed"
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert draft.stat().st_size
    assert not (tmp_path / "out.csv").exists()
    table(10).to_parquet("new.parquet")
    assert command("predict", run, "new.parquet", "-o", "out.csv")[0] == 0
    assert not draft.exists()
    assert len(pd.read_csv("out.csv")) == 10
