"""Windows that overlap are found, to the last bit, and stay on one side of every split."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ayatori.data import load
from ayatori.data.overlap import overlaps
from ayatori.data.twins import bind, find_twins
from ayatori.plan import make_plan
from ayatori.recipe import DataRecipe, PlanRecipe
from ayatori.records import SCORE, STOP


def cut(recording: np.ndarray, steps: int, hop: int) -> np.ndarray:
    """Windows (n, channels, steps) of a recording (channels, length), a ``hop`` apart."""
    starts = range(0, recording.shape[1] - steps + 1, hop)
    return np.stack([recording[:, start : start + steps] for start in starts])


@given(hop=st.integers(1, 60), channels=st.integers(1, 3), seed=st.integers(0, 20))
@settings(max_examples=40, deadline=None)
def test_neighbouring_windows_overlap_as_far_as_their_hop_says(hop: int, channels: int, seed: int) -> None:
    chance = np.random.default_rng(seed)
    windows = cut(chance.normal(size=(channels, 260)).astype(np.float32), 64, hop)
    order = chance.permutation(len(windows))
    scale = 2.0 ** chance.integers(-3, 4, (len(order), channels, 1))  # exact
    pairs, apart = overlaps((windows[order] * scale).astype(np.float32))
    starts = hop * order
    far = np.abs(starts[:, None] - starts[None, :])
    expected = {(a, b) for a in range(len(order)) for b in range(a + 1, len(order)) if far[a, b] <= 64 - 16}
    assert set(map(tuple, pairs.tolist())) == expected
    np.testing.assert_allclose(apart, far[tuple(pairs.T)] / 64)


def test_windows_that_were_scaled_one_by_one_and_rounded_are_known_again() -> None:
    windows = cut(np.random.default_rng(0).normal(size=(2, 6400)), 64, 32)
    scaled = (windows - windows.mean(axis=2, keepdims=True)) / windows.std(axis=2, keepdims=True)
    pairs, _ = overlaps(scaled.round(4).astype(np.float32))
    assert (np.diff(pairs, axis=1) == 1).all()
    assert len(pairs) >= 0.95 * (len(windows) - 1)


def test_silence_steps_and_noise_are_no_overlap() -> None:
    chance = np.random.default_rng(0)
    silence = np.zeros((5, 1, 64), np.float32)
    switches = chance.integers(0, 2, (200, 1, 64)).astype(np.float32)
    padded = np.full((6, 1, 64), np.nan, np.float32)
    padded[:, :, :10] = chance.normal(size=(6, 1, 10))
    for series in (silence, switches, padded, chance.normal(size=(50, 2, 64)).astype(np.float32)):
        assert len(overlaps(series)[0]) == 0


def test_gaps_are_compared_as_gaps() -> None:
    recording = np.random.default_rng(0).normal(size=(1, 120)).astype(np.float32)
    recording[0, 70:75] = np.nan
    assert overlaps(cut(recording, 64, 32))[0].tolist() == [[0, 1]]


def test_windows_of_one_recording_stay_on_one_side_of_every_split() -> None:
    chance = np.random.default_rng(0)
    windows = np.concatenate(
        [cut(chance.normal(size=(1, 128)).astype(np.float32), 64, 32) for _ in range(40)]
    )
    dataset = load(windows, y=["a"] * 60 + ["b"] * 60, recipe=DataRecipe(series="row"))
    twins = find_twins(dataset)
    assert set(twins.kind.tolist()) == {"near"}
    bound, note = bind(dataset, twins, PlanRecipe())
    assert note == (
        "120 rows are copies of one another or overlap (40 groups): copies stay on one side of every split"
    )
    plan = make_plan(bound, PlanRecipe(), 0)
    recording = np.arange(120) // 3
    for member in range(plan.members):
        judged = set(recording[plan.rows(member, SCORE)]) | set(recording[plan.sealed])
        taught = {*recording[plan.train_rows(member)], *recording[plan.rows(member, STOP)]}
        assert not judged & taught
