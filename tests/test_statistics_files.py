"""Tables of Weka and Stata are read as their programs mean them; others are refused by what they are."""

from __future__ import annotations

import io
import pickle
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.io import arff, savemat

from ayatori.data import load, load_like
from ayatori.data.files import open_table
from ayatori.data.sheet_files import read_sheets
from ayatori.records import AyatoriError

HEAD = """% a comment, longer than what is looked at first: {comment}
@RELATION 'a name, with a comma'

@attribute width REAL
@ATTRIBUTE 'two words' numeric
@attribute shade {{light, 'very dark'}}
@attribute kind {{1, 2}}
@DATA
"""


def written(path: Path, rows: str, comment: str = "% and on\n" * 300) -> Path:
    path.write_text(HEAD.format(comment=comment) + rows)
    return path


def frame_of(path: Path) -> pd.DataFrame:
    found = read_sheets(path)
    assert found is not None
    return found[0]


def test_arff_is_read_as_scipy_reads_it(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    shades = chance.choice(["light", "'very dark'"], 60)
    rows = "".join(
        f"{a:.4f},{b:.2e},{shade},{kind}\n"
        for (a, b), shade, kind in zip(
            chance.normal(size=(60, 2)), shades, chance.integers(1, 3, 60), strict=True
        )
    )
    path = written(tmp_path / "table.arff", rows + "% the end\n\n")
    found = frame_of(path)
    expected = pd.DataFrame(arff.loadarff(io.StringIO(path.read_text()))[0])
    assert list(found.columns) == ["width", "two words", "shade", "kind"]
    for name in ("width", "two words"):
        assert (found[name] == expected[name]).all()
    for name in ("shade", "kind"):
        assert (found[name].astype(str) == expected[name].str.decode("utf-8")).all()


def test_classes_that_are_called_by_numbers_are_classes(tmp_path: Path) -> None:
    rows = "".join(f"{n % 7}.5, {n}, light, {n % 2 + 1}\n" for n in range(40))
    dataset = load(written(tmp_path / "table.arff", rows))
    assert (dataset.task, dataset.classes) == ("classification", ("1", "2"))
    assert len(load_like(tmp_path / "table.arff", dataset.schema)) == 40


def test_values_may_be_parted_by_spaces_and_a_question_mark_is_a_gap(tmp_path: Path) -> None:
    path = written(tmp_path / "table.arff", "1.5 2\t'very dark'  1 ,\n? , ?, ? 2\n", "short")
    assert frame_of(path).astype(object).where(lambda f: f.notna(), None).to_numpy().tolist() == [
        [1.5, 2.0, "very dark", "1"],
        [None, None, None, "2"],
    ]
    path.rename(tmp_path / "no ending")  # what it is shows in its first lines, too
    assert len(frame_of(tmp_path / "no ending")) == 2


def test_texts_with_marks_in_them_stay_whole(tmp_path: Path) -> None:
    path = tmp_path / "table.arff"
    path.write_text("@relation t\n@attribute text string\n@data\n'it\\'s, well, \"so\"'\n\"don't\"\n")
    assert frame_of(path)["text"].tolist() == ['it\'s, well, "so"', "don't"]


def test_arff_in_another_encoding_is_read_and_told(tmp_path: Path) -> None:
    path = tmp_path / "table.arff"
    path.write_bytes(b"% caf\xe9\n@relation t\n@attribute a numeric\n@data\n1\n2\n")
    opened = open_table(path)
    assert opened.notes == ("it is read as cp1252, not UTF-8",)
    assert opened.read(["a"], ()).column("a").to_pylist() == [1, 2]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("1,2,light\n", "must have 4 values, one for each @attribute, however one has 3"),
        ("{0 1.5, 3 2}\n", "rows are sparse"),
    ],
)
def test_arff_that_cannot_be_a_table_is_refused(tmp_path: Path, rows: str, words: str) -> None:
    with pytest.raises(AyatoriError, match=words):
        load(written(tmp_path / "table.arff", rows))
    (tmp_path / "head.arff").write_text("@relation t\n@attribute a numeric\n")
    with pytest.raises(AyatoriError, match="must have a line @data"):
        load(tmp_path / "head.arff")


def test_stata_gives_labels_where_all_values_have_one_and_numbers_where_some_do(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"age": chance.integers(20, 80, 50), "sex": np.arange(50) % 2, "vote": np.arange(50) % 3}
    )
    frame["gap"] = np.where(np.arange(50) % 5 == 0, np.nan, chance.normal(size=50))
    path = tmp_path / "survey.dta"
    frame.to_stata(
        path,
        write_index=False,
        value_labels={"age": {99: "refused", 20: "young"}, "sex": {0: "man", 1: "woman"}},
    )
    found = frame_of(path)
    assert found["sex"].tolist() == ["man", "woman"] * 25
    assert found["age"].tolist() == frame["age"].tolist()
    assert found["gap"].isna().sum() == 10
    dataset = load(path, target="vote")
    assert dataset.schema.categories.keys() == {"sex"}
    assert set(dataset.schema.numbers) == {"age", "gap"}


@pytest.mark.parametrize("version", [114, 117, 118])
def test_every_version_of_stata_is_known_by_its_beginning(tmp_path: Path, version: int) -> None:
    frame = pd.DataFrame({"a": [1.0, 2.0, 3.0]})
    frame.to_stata(tmp_path / "table", write_index=False, version=version)
    assert frame_of(tmp_path / "table")["a"].tolist() == [1.0, 2.0, 3.0]


def test_a_damaged_stata_file_is_refused_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "survey.dta"
    pd.DataFrame({"a": np.arange(100.0)}).to_stata(path, write_index=False, version=118)
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(AyatoriError, match="must be a whole file"):
        load(path)


def saved(values: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, values)
    return content.getvalue()


def write_database(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("create table t (a)")
    database.close()


OTHERS: dict[str, Callable[[Path], object]] = {
    "one array": lambda path: path.write_bytes(saved(np.eye(3))),
    "a MATLAB file": lambda path: savemat(path, {"X": np.eye(3)}, appendmat=False),
    "a pickle": lambda path: path.write_bytes(pickle.dumps({"a": 1})),
    "a database": write_database,
    "an SPSS file": lambda path: path.write_bytes(b"$FL2@(#) SPSS DATA FILE" + bytes(200)),
    "a SAS file": lambda path: path.write_bytes(bytes(12) + b"\xc2\xea\x81\x60" + bytes(200)),
    "an HDF5 file": lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(200)),
    "a web page": lambda path: path.write_text("<table>\n<tr><td>1</td></tr>\n</table>\n"),
}


@pytest.mark.parametrize("what", OTHERS)
def test_files_of_other_kinds_are_refused_by_what_they_are(tmp_path: Path, what: str) -> None:
    path = tmp_path / "data"
    OTHERS[what](path)
    with pytest.raises(AyatoriError, match=f"however it is {what}; |however it is {what}, "):
        load(path)
