"""Tables that are not UTF-8 are read as if they were, and never by a guess."""

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ayatori.data import load, load_like
from ayatori.data.blocks import read_blocks
from ayatori.recipe import DataRecipe
from ayatori.records import AyatoriError, Dataset
from tests.helpers import command

TOWNS = ("東京", "大阪", "京都")


def shops(n: int = 120, towns: tuple[str, ...] = TOWNS) -> pd.DataFrame:
    chance = np.random.default_rng(0)
    table = pd.DataFrame({"面積 é" if towns is not TOWNS else "面積": chance.normal(size=n).round(3)})
    return table.assign(town=chance.choice(towns, n), y=np.where(table.iloc[:, 0] > 0, towns[0], towns[1]))


def write(path: Path, table: pd.DataFrame, encoding: str) -> Path:
    path.write_bytes(table.to_csv(index=False).encode(encoding))
    return path


def assert_same(found: Dataset, expected: Dataset) -> None:
    assert found.classes == expected.classes
    assert dict(found.schema.categories) == dict(expected.schema.categories)
    assert found.fingerprint == expected.fingerprint


@pytest.mark.parametrize("encoding", ["cp932", "euc-jp", "utf-16", "utf-16-le", "utf-16-be", "gb18030"])
def test_a_table_is_the_same_in_every_encoding(encoding: str, tmp_path: Path) -> None:
    plain = load(write(tmp_path / "plain.csv", shops(), "utf-8"), target="y")
    recipe = DataRecipe(target="y", encoding=encoding)
    assert_same(load(write(tmp_path / "other.csv", shops(), encoding), recipe=recipe), plain)
    packed = tmp_path / "other.csv.gz"
    packed.write_bytes(gzip.compress((tmp_path / "other.csv").read_bytes()))
    assert_same(load(packed, recipe=recipe), plain)
    # what is UTF-8 is read as UTF-8, whatever other files are
    assert_same(load(tmp_path / "plain.csv", recipe=recipe), plain)


def test_the_mark_of_utf_16_needs_no_name(tmp_path: Path) -> None:
    plain = load(write(tmp_path / "plain.csv", shops(), "utf-8"), target="y")
    assert_same(load(write(tmp_path / "excel.csv", shops(), "utf-16"), target="y"), plain)


def test_rows_to_predict_may_have_another_encoding_than_those_learned_from(tmp_path: Path) -> None:
    recipe = DataRecipe(target="y", encoding="cp932")
    learned = load(write(tmp_path / "learned.csv", shops(), "cp932"), recipe=recipe)
    for encoding in ("cp932", "utf-8", "utf-16"):
        path = write(tmp_path / f"{encoding}.csv", shops(), encoding)
        rows = load_like(path, learned.schema)
        blocks = list(read_blocks(path, learned.schema))
        for name, values in learned.inputs.items():
            np.testing.assert_array_equal(rows.inputs[name], values)
            np.testing.assert_array_equal(np.concatenate([one.inputs[name] for one in blocks]), values)


@pytest.mark.parametrize("shift", range(3))
def test_a_letter_on_the_border_of_two_blocks_stays_whole(shift: int, tmp_path: Path) -> None:
    table = pd.DataFrame(
        {"x": np.arange(50_000) % 7, "y": ["東京都千代田区丸の内", "大阪府大阪市北区梅田"] * 25_000}
    )
    table = table.rename(columns={"x": "x" * (1 + shift)})  # the border falls on another byte
    path = write(tmp_path / "long.csv", table, "cp932")
    assert path.stat().st_size > 2**20
    found = load(path, recipe=DataRecipe(target="y", encoding="cp932"))
    assert found.classes == ("大阪府大阪市北区梅田", "東京都千代田区丸の内")
    assert len(found) == 50_000


@pytest.mark.parametrize(
    ("encoding", "spoil", "says"),
    [
        ("", b"", "however byte 0 is 0x96; save it as UTF-8 (in Excel: 'CSV UTF-8'), or name its encoding"),
        ("klingon", b"", "`encoding` must be one that Python knows, such as cp932 or cp1252"),
        ("rot13", b"", "`encoding` must be one that Python knows"),
        ("a\0b", b"", "`encoding` must be one that Python knows"),
        ("ascii", b"", "'t.csv' must be text in ascii, however it holds 0x96"),
        ("cp932", b"\x81\xff", "'t.csv' must be text in cp932, however it holds 0x81 0xff"),
    ],
)
def test_what_cannot_be_decoded_is_refused_with_a_sentence(
    encoding: str,
    spoil: bytes,
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    whole = shops(20_000).to_csv(index=False).encode("cp932")
    line = whole.index(b"\n", 100_000) + 1
    (tmp_path / "t.csv").write_bytes(whole[:line] + spoil + whole[line:])
    monkeypatch.chdir(tmp_path)
    more = ("--encoding", encoding) if encoding else ()
    assert command(monkeypatch, "run", "t.csv", "--target", "y", *more, "--out", "r") == 2
    said = capsys.readouterr().err
    assert says in said
    assert len(said.strip().splitlines()) == 1
    assert not (tmp_path / "r").exists()


def test_a_list_of_pictures_may_have_another_encoding(tmp_path: Path) -> None:
    from PIL import Image

    for number in range(12):
        Image.new("L", (8, 8), 20 * number).save(tmp_path / f"写真{number}.png")
    table = pd.DataFrame({"path": [f"写真{n}.png" for n in range(12)], "kind": ["暗い", "明るい"] * 6})
    found = load(
        write(tmp_path / "list.csv", table, "cp932"), recipe=DataRecipe(target="kind", encoding="cp932")
    )
    assert found.classes == ("明るい", "暗い")
    with pytest.raises(AyatoriError, match="must be text in UTF-8"):
        load(tmp_path / "list.csv", target="kind")
