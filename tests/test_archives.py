"""ZIP and tar archives are read as what they hold, unpacked once, whole or not at all."""

from __future__ import annotations

import os
import shutil
import tarfile
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pytest
from helpers import command
from PIL import Image

from ayatori.archives import existing, unpacked
from ayatori.data import load, load_like, read_blocks
from ayatori.prepare import Event
from ayatori.recipe import DataRecipe, Recipe, change
from ayatori.records import AyatoriError
from ayatori.report import write_report
from ayatori.run import resume, run


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache" / "ayatori"


def frame(rows: int = 120) -> pd.DataFrame:
    chance = np.random.default_rng(0)
    table = pd.DataFrame(chance.normal(size=(rows, 3)), columns=list("abc"))
    return table.assign(kind=np.where(table["a"] > 0, "yes", "no"))


def pictures(folder: Path) -> Path:
    chance = np.random.default_rng(0)
    for kind, light in (("cat", 60), ("dog é", 180)):
        (folder / kind).mkdir(parents=True)
        for number in range(30):
            pixels = chance.integers(light - 40, light + 40, (8, 8, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / kind / f"{number}.png")
    return folder


def zipped(path: Path, entries: dict[str, Path | str]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            if isinstance(content, str):
                archive.writestr(name, content)
            else:
                archive.write(content, name)
    return path


def zip_of(folder: Path) -> Path:
    files = {str(file.relative_to(folder.parent)): file for file in folder.rglob("*.png")}
    return zipped(folder.parent / "pets.zip", {**files, "__MACOSX/._pets": "", ".DS_Store": ""})


def tar_of(folder: Path, kind: Literal["", "gz", "bz2", "xz"] = "gz") -> Path:
    path = folder.parent / f"pets.tar.{kind}".rstrip(".")
    with tarfile.open(path, f"w:{kind}") as archive:
        archive.add(folder, folder.name)
    return path


@pytest.mark.parametrize("packed", [zip_of, tar_of])
def test_an_archive_with_one_folder_is_that_folder(packed: Callable[[Path], Path], tmp_path: Path) -> None:
    folder = pictures(tmp_path / "my pets")
    there, within = load(str(folder)), load(packed(folder))
    assert within.classes == there.classes == ("cat", "dog é")
    assert within.fingerprint == there.fingerprint
    assert list(within.ids) == list(there.ids)
    assert within.notes[0].startswith("unpacked from 'pets.")


def test_an_archive_with_one_table_is_that_table(tmp_path: Path) -> None:
    frame().to_csv("t.csv", index=False)
    archive = zipped(tmp_path / "t.zip", {"here/t.csv": Path("t.csv"), "here/README.txt": "about"})
    assert load(archive).fingerprint == load("t.csv").fingerprint


def test_a_path_may_lead_into_an_archive(tmp_path: Path) -> None:
    text = frame().to_csv(index=False)
    archive = zipped(tmp_path / "all.zip", {"train.csv": text, "test.csv": "a,b,c\n1,2,3\n"})
    data = load(archive / "train.csv")
    assert len(data) == 120
    assert len(load_like(archive / "test.csv", data.schema)) == 1
    assert sum(len(block) for block in read_blocks(str(archive / "test.csv"), data.schema)) == 1
    with pytest.raises(AyatoriError, match=r"however that holds test\.csv, train\.csv"):
        load(archive / "other.csv")
    with pytest.raises(AyatoriError, match="however it holds tables; give one"):
        load(archive)


def test_an_archive_may_hold_others(tmp_path: Path) -> None:
    inner = zip_of(pictures(tmp_path / "pets"))
    table = zipped(tmp_path / "labels.zip", {"labels.csv": "a,y\n1,2\n"})
    held: dict[str, Path | str] = {"train.zip": inner, "labels.zip": table, "sample.csv": "id,y\n"}
    outer = zipped(tmp_path / "all.zip", held)
    assert len(load(outer / "train.zip")) == 60
    assert unpacked(outer / "labels.zip").name == "labels.csv"
    assert unpacked(outer).is_dir()  # there is one table, but it is not what the others are about


def test_it_is_unpacked_once_and_anew_when_it_has_changed(tmp_path: Path, cache: Path) -> None:
    archive = zipped(tmp_path / "t.zip", {"t.csv": "a,y\n1,2\n"})
    first = unpacked(archive)
    before = first.stat().st_mtime_ns
    assert unpacked(archive) == first
    assert first.stat().st_mtime_ns == before
    zipped(archive, {"t.csv": "a,y\n1,2\n3,4\n"})
    assert unpacked(archive).read_text() == "a,y\n1,2\n3,4\n"
    assert len(list(cache.iterdir())) == 2


def test_what_is_no_archive_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.zip").mkdir()
    for name in ("a.zip", "b.csv"):
        (tmp_path / name / "x").parent.mkdir(exist_ok=True)
        assert unpacked(tmp_path / name) == tmp_path / name
    with pytest.raises(AyatoriError, match="does not exist"):
        existing(tmp_path / "b.csv" / "c.zip")


def locked(path: Path) -> None:
    """Set the mark of a password in all headers of a ZIP archive."""
    content = bytearray(path.read_bytes())
    for head, flag in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(head) + flag] |= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


HARM: dict[str, tuple[Callable[[Path], None], str]] = {
    "cut short": (cut, "must be a whole archive, however it cannot be unpacked"),
    "locked": (locked, "it is locked by a password; unpack it"),
    "something else": (lambda path: path.write_text("a,b\n1,2\n") and None, "must be a whole archive"),
}


@pytest.mark.parametrize("harm", HARM)
def test_a_damaged_archive_is_refused_and_leaves_nothing(harm: str, tmp_path: Path, cache: Path) -> None:
    archive = zipped(tmp_path / "t.zip", {"t.csv": frame().to_csv(index=False)})
    spoil, words = HARM[harm]
    spoil(archive)
    with pytest.raises(AyatoriError, match=words):
        load(archive)
    assert not list(cache.iterdir())


@pytest.mark.parametrize("harm", ["cut", "spoiled"])
@pytest.mark.parametrize("kind", ["", "gz", "bz2", "xz"])
def test_a_damaged_tar_archive_is_refused_and_leaves_nothing(
    kind: Literal["", "gz", "bz2", "xz"], harm: str, tmp_path: Path, cache: Path
) -> None:
    archive = tar_of(pictures(tmp_path / "pets"), kind)
    content = archive.read_bytes()
    half = len(content) // 2
    archive.write_bytes(content[:half] + (b"" if harm == "cut" else b"x" * 1024 + content[half + 1024 :]))
    with pytest.raises(AyatoriError, match="must be a whole archive"):
        load(archive)
    assert not list(cache.iterdir())


def test_no_file_goes_outside_of_its_folder(tmp_path: Path, cache: Path) -> None:
    archive = zipped(tmp_path / "t.zip", {"../../out.csv": "a,y\n1,2\n", "/etc/t.csv": "a,y\n1,2\n"})
    unpacked(archive)
    assert {file.name for file in tmp_path.rglob("*.csv") if cache not in file.parents} == set()
    with tarfile.open(tmp_path / "u.tar", "w") as tar:
        tar.add(archive, "../../out.csv")
    with pytest.raises(AyatoriError, match="must be a whole archive"):
        unpacked(tmp_path / "u.tar")
    assert not list(tmp_path.rglob("out.csv.zip"))


def test_what_does_not_fit_on_the_disk_is_refused_before_it_is_unpacked(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = zipped(tmp_path / "t.zip", {"t.csv": frame().to_csv(index=False)})
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 100}))
    with pytest.raises(AyatoriError, match=r"must fit into .* or name another place by XDG_CACHE_HOME"):
        load(archive)
    assert not list(cache.iterdir())


def test_a_stop_in_the_middle_leaves_nothing_and_the_next_call_begins_anew(
    tmp_path: Path, cache: Path
) -> None:
    archive = zip_of(pictures(tmp_path / "pets"))
    told: list[int] = []

    def stop(done: int, size: int) -> None:
        told.append(done)
        if len(told) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unpacked(archive, stop)
    assert not list(cache.iterdir())
    assert told == sorted(told)
    assert len(list(unpacked(archive).rglob("*.png"))) == 60


def test_what_a_killed_process_left_is_cleared_away(tmp_path: Path, cache: Path) -> None:
    archive = zipped(tmp_path / "t.zip", {"t.csv": "a,y\n1,2\n"})
    folder = unpacked(archive).parent
    for seconds in (10, 10_000):
        (cache / f".{folder.name}-{seconds}").mkdir()
        os.utime(cache / f".{folder.name}-{seconds}", (time.time() - seconds,) * 2)
    shutil.rmtree(folder)
    unpacked(archive)
    assert {path.name for path in cache.iterdir()} == {folder.name, f".{folder.name}-10"}


def test_two_processes_may_unpack_the_same_archive(tmp_path: Path, cache: Path) -> None:
    archive = zip_of(pictures(tmp_path / "pets"))
    with ProcessPoolExecutor(4, mp_context=get_context("spawn")) as pool:
        found = set(pool.map(unpacked, [archive] * 8))
    assert len(found) == 1
    assert len(list(found.pop().rglob("*.png"))) == 60
    assert len(list(cache.iterdir())) == 1


def test_a_cache_that_cannot_be_written_to_gives_way_to_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = zipped(tmp_path / "t.zip", {"t.csv": "a,y\n1,2\n"})
    (tmp_path / "file").write_text("")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    assert unpacked(archive).is_relative_to(tmp_path / "tmp" / "ayatori")


def test_a_run_and_its_model_take_archives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = frame()
    new = table.drop(columns="kind").to_csv(index=False)
    sample = pd.DataFrame({"id": range(120), "kind": "yes"}).to_csv(index=False)
    zipped(
        tmp_path / "all.zip", {"train.csv": table.to_csv(index=False), "new.csv": new, "sample.csv": sample}
    )
    words = ("--preset", "quick", "--no-look", "--epochs", 2, "-o", "mine")
    assert command(monkeypatch, "run", "all.zip/train.csv", *words) == 0
    assert "unpacked from 'all.zip'" in " ".join(capsys.readouterr().out.split())
    assert command(monkeypatch, "predict", "mine", "all.zip/new.csv", "-o", "said.csv") == 0
    assert len(pd.read_csv("said.csv")) == 120
    like = ("--like", "all.zip/sample.csv", "-o", "like.csv")
    assert command(monkeypatch, "predict", "mine", "all.zip/new.csv", *like) == 0
    assert list(pd.read_csv("like.csv").columns) == ["id", "kind"]


def test_a_run_goes_on_from_its_archive_and_its_page_names_that(tmp_path: Path, cache: Path) -> None:
    archive = zipped(tmp_path / "all.zip", {"train.csv": frame().to_csv(index=False)})

    def stop(event: Event) -> None:
        if event.epoch is not None:
            raise KeyboardInterrupt

    recipe = change(change(Recipe(), "train", epochs=3), "explore", look=False)
    with pytest.raises(KeyboardInterrupt):
        run(archive, recipe, out=tmp_path / "mine", show=stop)
    shutil.rmtree(cache)
    resume(tmp_path / "mine")
    page = write_report(tmp_path / "mine").read_text(encoding="utf-8")
    assert f"ayatori run {archive} --recipe recipe.toml" in page


def test_pictures_that_a_table_names_may_be_in_an_archive(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "pets")
    names = sorted(str(file.relative_to(folder)) for file in folder.rglob("*.png"))
    table = pd.DataFrame({"file": names, "kind": [name.split("/")[0] for name in names]})
    table.to_csv("labels.csv", index=False)
    found = load("labels.csv", recipe=DataRecipe(pictures=str(zip_of(folder))))
    assert (len(found), found.schema.kind) == (60, "pictures")
