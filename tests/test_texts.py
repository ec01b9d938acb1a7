"""Texts: read as terms, learned of own rows alone, compared, shown, served; and copies of them."""

from __future__ import annotations

import dataclasses
import json
import string
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import ENGINES, assert_close, command, plain_loop, settled, texts
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.naive_bayes import BernoulliNB
from test_stack import assert_foreign_rows_change_nothing
from torch.nn import functional

from ayatori import Classifier, load
from ayatori.data import load_like, words
from ayatori.data.like_texts import ALIKE, near_texts
from ayatori.data.twins import find_twins
from ayatori.data.words import terms
from ayatori.evaluate.encode import LOUD, Terms
from ayatori.explore.telling import telling
from ayatori.learned import hidden
from ayatori.model_files import load_model, schema_from
from ayatori.nets import build, measure
from ayatori.nets.joined import Joined
from ayatori.nets.words import BEGIN, Said, begin_texts
from ayatori.recipe import DataRecipe, NetRecipe
from ayatori.records import AyatoriError, SchemaError
from ayatori.train import train

GOOD, BAD = (
    ("lovely soft warm dress", "fits well and is lovely"),
    ("poor seams and torn cloth", "sent it back, poor"),
)


def reviews(n: int = 120, seed: int = 0) -> pd.DataFrame:
    chance = np.random.default_rng(seed)
    kinds = chance.integers(0, 2, n)
    fillers = [" ".join(chance.choice(list(string.ascii_lowercase), 9)) for _ in range(n)]
    meant = [(BAD, GOOD)[kind][chance.integers(2)] for kind in kinds]
    said = [f"{fillers[row]} {meant[row]} no {row}" for row in range(n)]
    return pd.DataFrame({"review": said, "size": chance.normal(size=n), "kept": np.where(kinds, "yes", "no")})


def folder_of(path: Path, n: int = 40) -> Path:
    frame = reviews(n)
    for row, (said, kept) in enumerate(zip(frame["review"], frame["kept"], strict=True)):
        (path / kept).mkdir(parents=True, exist_ok=True)
        (path / kept / f"{row:03}.txt").write_text(said, encoding="utf-8")
    return path


# reading


def test_texts_are_found_and_names_and_numbers_are_not() -> None:
    frame = reviews()
    frame["person"] = [f"Ada{row} Smith{row}" for row in range(len(frame))]
    frame["key"] = [f"A-{row:05}" for row in range(len(frame))]
    dataset = load(frame, target="kept")
    assert list(dataset.schema.texts) == ["review"]
    assert "lovely" in dataset.schema.texts["review"]
    assert set(dataset.schema.ignored) == {"person", "key"}
    assert dataset.inputs["words"].shape == (len(frame), dataset.schema.text_widths[0])


def test_a_column_that_is_named_is_read_as_texts_however_short_it_is() -> None:
    frame = pd.DataFrame({"title": ["red dress", "blue shirt"] * 30, "kept": ["yes", "no"] * 30})
    assert list(load(frame, target="kept").schema.categories) == ["title"]
    dataset = load(frame, recipe=DataRecipe(target="kept", texts=("title",)))
    assert set(dataset.schema.texts["title"]) == {"red", "dress", "red dress", "blue", "shirt", "blue shirt"}
    frame["size"] = 1.5
    frame.loc[0, "size"] = 2
    with pytest.raises(AyatoriError, match="column 'size' must hold texts, however"):
        load(frame, recipe=DataRecipe(target="kept", texts=("size",)))


def test_rows_that_are_read_later_hold_the_same_terms() -> None:
    frame = reviews()
    dataset = load(frame, target="kept")
    again = load_like(frame, dataset.schema)
    np.testing.assert_array_equal(again.inputs["words"], dataset.inputs["words"])
    np.testing.assert_array_equal(again.begins, dataset.begins)
    for odd in ({"review": [None, "zzz qqq"], "size": [0, 1]}, {"review": [1.5, 2.0], "size": [0, 1]}):
        assert load_like(pd.DataFrame(odd), dataset.schema).inputs["words"].max() < len(
            dataset.schema.texts["review"]
        )
    with pytest.raises(SchemaError, match="column 'review' must be in the rows"):
        load_like(pd.DataFrame({"size": [1.0]}), dataset.schema)


def test_terms_are_kept_in_their_order_each_once_and_numbered_on_from_column_to_column() -> None:
    frame = pd.DataFrame(
        {"a": ["x y z x", "x y z z", "x y z u", "q q q q"], "b": ["k l m", "k l m", "k l m n", "o o o"]}
    )
    dataset = load(pd.concat([frame] * 12), y=["yes", "no"] * 24, recipe=DataRecipe(texts=("a", "b")))
    known = [term for column in dataset.schema.texts.values() for term in column]
    first = dataset.schema.text_widths[0]
    row = dataset.inputs["words"][0]
    assert [known[place] for place in row[:first] if place >= 0] == ["x", "y", "x y", "z", "y z", "z x"]
    assert [known[place] for place in row[first:] if place >= 0] == ["k", "l", "k l", "m", "l m"]


def test_of_very_many_texts_some_decide_the_vocabulary_and_all_are_read_by_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    frame = reviews(400)
    whole = load(frame, target="kept")
    monkeypatch.setattr(words, "DRAWN", 100)
    some = load(frame, target="kept")
    assert set(some.schema.texts["review"]) < set(whole.schema.texts["review"])
    assert len(some.schema.texts["review"]) > 20
    again = load_like(frame, some.schema)
    np.testing.assert_array_equal(again.inputs["words"], some.inputs["words"])
    assert (some.inputs["words"] >= 0).any(axis=1).all()


def test_a_schema_of_texts_is_the_same_after_json() -> None:
    schema = load(reviews(), target="kept").schema
    again = schema_from(json.loads(json.dumps(dataclasses.asdict(schema))))
    assert again == schema
    assert again.texts == schema.texts


@given(st.text(max_size=60))
def test_any_text_gives_terms_that_do_not_depend_on_case_or_spaces_around_it(text: str) -> None:
    found = list(terms(text))
    assert all(term.strip() for term in found)
    assert list(terms(f"  {text}\n")) == found


def test_a_folder_of_texts_in_any_encoding_is_read_predicted_and_tested(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "mails")
    (folder / "yes" / "latin.txt").write_bytes("très lovely, naïve".encode("latin-1"))
    (folder / "yes" / "marked.txt").write_bytes("lovely dress".encode("utf-16"))
    (folder / "no" / "empty.txt").write_bytes(b"")
    (folder / "README.TXT").write_text("about these files")
    dataset = load(folder)
    assert dataset.classes == ("no", "yes")
    assert len(dataset) == 43
    assert any("1 of 43 files are no UTF-8" in note for note in dataset.notes)
    assert any("1 of 43 files hold no text" in note for note in dataset.notes)
    begins = dict(zip(dataset.ids.tolist(), dataset.begins[:, 0], strict=True))
    assert begins["yes/latin.txt"] == "très lovely, naïve"
    assert begins["yes/marked.txt"] == "lovely dress"
    one = load_like(folder / "yes" / "latin.txt", dataset.schema)
    assert len(one) == 1
    tested = load(folder, test=folder_of(tmp_path / "later", 20))
    assert tested.fixed_test is not None
    assert tested.fixed_test.sum() == 20


def test_folders_of_one_class_and_empty_files_are_refused(tmp_path: Path) -> None:
    for name in "abc":
        for kind in ("one", "empty"):
            (tmp_path / kind / "yes").mkdir(parents=True, exist_ok=True)
            (tmp_path / kind / "yes" / f"{name}.txt").write_text("a few words" if kind == "one" else "")
    with pytest.raises(AyatoriError, match=r"two folders of texts or more.* only 'yes' has texts"):
        load(tmp_path / "one")
    (tmp_path / "empty" / "no").mkdir()
    (tmp_path / "empty" / "no" / "d.txt").write_text(" ")
    with pytest.raises(AyatoriError, match="must hold text, however all 4 are empty"):
        load(tmp_path / "empty")


def test_files_without_endings_are_texts_where_they_hold_letters_alone(tmp_path: Path) -> None:
    for row, (said, kept) in enumerate(zip(reviews(40)["review"], reviews(40)["kept"], strict=True)):
        (tmp_path / kept).mkdir(exist_ok=True)
        (tmp_path / kept / str(51_000 + row)).write_text(said)
    (tmp_path / "yes" / "program").write_bytes(b"\x7fELF\x02\x01\x01\0\0\0")
    dataset = load(tmp_path)
    assert len(dataset) == 40
    assert any("1 file of another kind" in note for note in dataset.notes)


# copies


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_texts_that_are_alike_are_grouped_as_all_comparisons_would_group_them(seed: int) -> None:
    chance = np.random.default_rng(seed)
    base = np.sort(chance.choice(500, (6, 40), replace=True), axis=1)
    rows = np.repeat(base, 4, axis=0)
    changed = chance.random(rows.shape) < 0.03
    rows = np.where(changed, chance.integers(500, 900, rows.shape), rows)
    words = np.full((len(rows), 40), -1, np.int32)
    sets = [set(row.tolist()) for row in rows]
    for line, own in zip(words, sets, strict=True):
        line[: len(own)] = sorted(own)
    pairs, apart = near_texts(words)
    for (a, b), distance in zip(pairs.tolist(), apart.tolist(), strict=True):
        assert distance == pytest.approx(1 - len(sets[a] & sets[b]) / len(sets[a] | sets[b]))
    groups = list(range(len(rows)))

    def root(at: int) -> int:
        while groups[at] != at:
            at = groups[at]
        return at

    for a in range(len(rows)):
        for b in range(a):
            if len(sets[a] & sets[b]) / len(sets[a] | sets[b]) >= ALIKE + 0.1:
                groups[root(a)] = root(b)
    joined = {frozenset(pair) for pair in pairs.tolist()}
    mine = list(range(len(rows)))
    for a, b in sorted(map(sorted, joined)):
        mine = [mine[a] if other == mine[b] else other for other in mine]
    for a in range(len(rows)):
        for b in range(a):
            if root(a) == root(b):
                assert mine[a] == mine[b]


def test_copies_are_bound_and_words_too_rare_to_be_known_tell_texts_apart() -> None:
    frame = reviews()
    twice = pd.concat([frame, frame.head(5)], ignore_index=True)
    twins = find_twins(load(twice, target="kept"))
    assert twins.pairs[twins.kind == "exact"].tolist() == [[row, 120 + row] for row in range(5)]
    frame["review"] = [f"{('lovely', 'poor')[row % 2]} dress number{row}" for row in range(len(frame))]
    frame["size"] = 1.0
    frame.loc[0, "size"] = 2.0
    assert not len(find_twins(load(frame, target="kept")).pairs)


# networks


def test_what_terms_say_is_a_product_with_all_terms_there_and_back() -> None:
    dataset = texts()
    network = build(NetRecipe(name="linear"), dataset, measure(dataset.inputs, dataset.schema), 0)
    network.fit(dataset.inputs, None)
    said = next(part for part in network.modules() if isinstance(part, Said))
    torch.nn.init.normal_(said.weight)
    found = network.front.words(torch.from_numpy(dataset.inputs["words"]))
    dense = torch.zeros(len(dataset), len(said.weight)).scatter_add_(1, found.which, found.shares)
    np.testing.assert_allclose(dense.square().sum(1), 1, rtol=1e-5)
    weight = said.weight.detach().clone().requires_grad_()
    expected, got = dense @ weight, said(found)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    goal = torch.randn_like(got)
    functional.mse_loss(got, goal).backward()
    functional.mse_loss(expected, goal).backward()
    torch.testing.assert_close(said.weight.grad[1:], weight.grad[1:], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("outputs", [2, 12])
def test_networks_in_a_stack_say_what_each_says_alone(outputs: int) -> None:
    dataset = texts()
    labels = np.arange(len(dataset)) % outputs
    dataset = dataclasses.replace(
        dataset,
        target=labels,
        schema=dataclasses.replace(dataset.schema, classes=tuple(map(str, range(outputs)))),
    )
    networks = []
    for seed in range(3):
        network = build(NetRecipe(name="linear"), dataset, measure(dataset.inputs, dataset.schema), seed)
        network.fit({name: values[seed::3] for name, values in dataset.inputs.items()}, None)
        begin_texts(network, dataset.inputs["words"][seed::3], labels[seed::3])
        networks.append(network.train())
    rows = {name: torch.from_numpy(values[:30]) for name, values in dataset.inputs.items()}
    alone, gradients = [], []
    for network in networks:
        logits = network(rows)
        functional.cross_entropy(logits, torch.from_numpy(labels[:30])).backward()
        alone.append(logits.detach())
        gradients.append(network.body.texts.weight.grad)
    joined = Joined(networks)
    said = joined.logits({name: torch.stack([values] * 3) for name, values in rows.items()}, True)
    torch.testing.assert_close(said.detach(), torch.stack(alone), rtol=1e-5, atol=1e-6)
    loss = functional.cross_entropy(said.flatten(0, 1), torch.from_numpy(labels[:30]).repeat(3)) * 3
    loss.backward()
    found = joined.parameters["body.texts.weight"].grad
    torch.testing.assert_close(found, torch.stack(gradients), rtol=1e-4, atol=1e-6)


def test_a_network_begins_at_what_naive_bayes_makes_of_its_own_rows() -> None:
    dataset = texts()
    network = build(NetRecipe(name="linear"), dataset, measure(dataset.inputs, dataset.schema), 0)
    network.fit(dataset.inputs, None)
    begin_texts(network, dataset.inputs["words"], dataset.labels)
    held = np.zeros((len(dataset), len(network.body.texts.weight) - 1))
    rows, places = np.nonzero(dataset.inputs["words"] >= 0)
    held[rows, dataset.inputs["words"][rows, places]] = 1
    for code in range(3):
        bayes = BernoulliNB(alpha=1.0).fit(held, dataset.labels == code).feature_log_prob_
        expected = BEGIN * (bayes[1] - bayes[0])
        np.testing.assert_allclose(
            network.body.texts.weight.detach()[1:, code], expected, rtol=1e-4, atol=1e-5
        )


def test_terms_that_own_rows_do_not_hold_say_nothing_whatever_is_learned() -> None:
    dataset = texts()
    plan, recipe = settled(dataset, net="linear", engine="stacked")
    for member in train(dataset, plan, recipe):
        own = dataset.inputs["words"][plan.train_rows(member.index)]
        strange = np.setdiff1d(np.arange(len(member.network.body.texts.weight) - 1), own)
        assert (member.network.front.words.weight[1 + strange] == 0).all()
        assert (member.network.body.texts.weight[1 + strange] == 0).all()


@pytest.mark.parametrize("net", ["linear", "mlp"])
@pytest.mark.parametrize("engine", ENGINES)
def test_texts_a_member_may_not_see_change_nothing_of_it(engine: str, net: str) -> None:
    dataset = texts()
    plan, recipe = settled(dataset, net=net, engine=engine, epochs=2)
    assert_foreign_rows_change_nothing(dataset, plan, recipe, (-1, 3))


@pytest.mark.parametrize("engine", ENGINES)
def test_networks_of_texts_come_to_what_a_plain_loop_comes_to(engine: str) -> None:
    dataset = texts()
    plan, recipe = settled(dataset, net="linear", engine=engine)
    for member in train(dataset, plan, recipe):
        assert_close(member, plain_loop(dataset, plan, recipe, member.index))


def test_rows_are_near_by_words_of_which_much_is_said_and_rows_without_words_are_near_nobody_else() -> None:
    dataset = texts()
    plan, recipe = settled(dataset, net="mlp", engine="stacked")
    network = train(dataset, plan, recipe)[0].network
    words = dataset.inputs["words"].copy()
    words[-2:] = -1
    points, _ = hidden(network, {**dataset.inputs, "words": words}, np.arange(len(words)))
    kinds = np.array([text.rpartition("kind")[2] for text in dataset.begins[:-2, 0]])
    alike = points @ points.T
    same = kinds[:, None] == kinds
    assert alike[:-2, :-2][same].mean() > alike[:-2, :-2][~same].mean() + 0.1
    np.testing.assert_allclose(alike[:-2, -2:], 0)
    np.testing.assert_allclose(alike[-2:, -2:], 1)


# what is said of them


def test_rivals_see_texts_as_scikit_learn_would() -> None:
    said = ["red dress", "blue shirt", "red shirt", "blue dress blue"] * 10
    dataset = load(pd.DataFrame({"t": said}), y=["a", "b"] * 20, recipe=DataRecipe(texts=("t",)))
    known = list(dataset.schema.texts["t"])
    expected = TfidfVectorizer(analyzer=lambda text: set(terms(text)), vocabulary=known).fit_transform(said)
    found = Terms().fit_transform(dataset.inputs["words"].astype(np.float32))
    np.testing.assert_allclose(found.toarray(), LOUD * expected.toarray(), rtol=1e-5)


def test_a_word_that_gives_a_class_away_is_said_and_chance_is_not() -> None:
    chance = np.random.default_rng(0)
    kinds = chance.integers(0, 2, 300)
    words = [" ".join(chance.choice(list(string.ascii_lowercase), 8)) for _ in kinds]
    frame = pd.DataFrame({"t": words, "kind": np.where(kinds, "true", "false")})
    found = telling(load(frame, target="kind"), np.arange(300))
    assert not found["alarm"]
    assert found["classes"] == []
    frame["t"] = [
        f"london (reuters) {text}" if kind else text for text, kind in zip(words, kinds, strict=True)
    ]
    found = telling(load(frame, target="kind"), np.arange(300))
    assert found["alarm"]
    assert "stands in 100.0% of the rows of 'true' and in 0.0% of others" in found["sentence"]
    assert telling(load(np.eye(30), y=list("ab") * 15), np.arange(30)) is None


def test_texts_go_all_the_way_from_the_command_line_to_a_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    frame, run = reviews(200), tmp_path / "run"
    frame.loc[::20, "kept"] = "yes"  # some labels are wrong
    frame.to_csv(tmp_path / "reviews.csv", index=False)
    words = ["run", str(tmp_path / "reviews.csv"), "--target", "kept", "--preset", "quick", "--folds", "3"]
    assert command(monkeypatch, *words, "--out", str(run)) == 0
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Words that tell" in page
    assert "by the words, as it weighs them" in page
    result = json.loads((run / "result.json").read_text())
    test = next(
        entry
        for entry in result["leaderboard"]
        if entry["split"] == "test" and entry["name"].startswith("mean of")
    )
    assert test["scores"]["accuracy"]["value"] > 0.9
    fresh = reviews(30, seed=1)
    fresh.drop(columns="kept").to_csv(tmp_path / "new.csv", index=False)
    assert (
        command(monkeypatch, "predict", str(run), str(tmp_path / "new.csv"), "-o", str(tmp_path / "p.csv"))
        == 0
    )
    said = pd.read_csv(tmp_path / "p.csv")["label"]
    assert (said == fresh["kept"]).mean() > 0.9
    model = load_model(run)
    values = model.predict_table(load_like(fresh.drop(columns="kept"), model.schema))
    assert (values["label"].to_numpy() == said.to_numpy()).all()
    assert command(monkeypatch, "export", str(run), "--onnx", str(tmp_path / "m.onnx")) == 0
    capsys.readouterr()


def test_a_folder_of_texts_is_explored_and_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, run = folder_of(tmp_path / "mails", 90), tmp_path / "run"
    assert (
        command(monkeypatch, "run", str(folder), "--preset", "quick", "--folds", "3", "--out", str(run)) == 0
    )
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "1 text" in page
    assert command(monkeypatch, "predict", str(run), str(folder / "yes"), "-o", str(tmp_path / "p.csv")) == 0
    assert (pd.read_csv(tmp_path / "p.csv")["label"] == "yes").mean() > 0.9


def test_estimators_take_a_list_of_texts_as_scikit_learn_does() -> None:
    frame = reviews()
    said, kept = frame["review"].tolist(), frame["kept"].to_numpy()
    network = Classifier(folds=3, preset="quick", random_state=0).fit(said, kept)
    assert network.score(reviews(40, seed=3)["review"].tolist(), reviews(40, seed=3)["kept"]) > 0.9
    again = Classifier(folds=3, preset="quick", random_state=0).fit(
        frame[["review"]].rename(columns={"review": "text"}), kept
    )
    np.testing.assert_array_equal(
        network.predict_proba(said), again.predict_proba(pd.DataFrame({"text": said}))
    )


def test_the_same_rows_with_other_words_have_another_fingerprint() -> None:
    frame = reviews()
    other = frame.assign(review=frame["review"].str.replace("lovely", "nicely"))
    first, second, same = (load(one, target="kept").fingerprint for one in (frame, other, frame.copy()))
    assert first == same != second


def test_a_run_that_learned_from_texts_is_no_source_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reviews().to_csv(tmp_path / "r.csv", index=False)
    words = [str(tmp_path / "r.csv"), "--target", "kept", "--preset", "quick", "--folds", "3", "--no-look"]
    assert command(monkeypatch, "run", *words, "--out", str(tmp_path / "one")) == 0
    assert (
        command(
            monkeypatch, "run", *words, "--pretrained", str(tmp_path / "one"), "--out", str(tmp_path / "two")
        )
        == 2
    )
    assert "cannot be built upon yet" in capsys.readouterr().err
