import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from ayatori.augment import PRESETS, augment, flip, shift, turn
from ayatori.records import AyatoriError


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, generator=generator(9), dtype=torch.uint8)


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(list(PRESETS)),
    st.integers(1, 5),
    st.integers(1, 3),
    st.integers(1, 30),
    st.integers(1, 30),
)
def test_every_preset_keeps_shape_kind_range_and_its_input(name, b, c, h, w):
    image = pictures(b, c, h, w)
    before = image.clone()
    out = augment(name)({"image": image, "numbers": torch.ones(b, 2)}, generator())
    assert out["image"].shape == image.shape
    assert out["image"].dtype == torch.uint8
    assert out["image"].min() >= image.min()
    assert out["image"].max() <= image.max()
    assert torch.equal(image, before)
    assert torch.equal(out["numbers"], torch.ones(b, 2))


@pytest.mark.parametrize("name", list(PRESETS))
def test_the_generator_decides_everything_and_the_global_one_is_left_alone(name):
    image = pictures(20, 1, 28, 28)
    state = torch.random.get_rng_state()
    first, again, other = (augment(name)({"image": image}, generator(s))["image"] for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (name == "none")
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_shift_moves_each_picture_by_its_own_whole_pixels_mirrored_at_the_border():
    image = pictures(200, 2, 28, 28)
    moved = shift(image, generator()).numpy()
    padded = np.pad(image.numpy(), ((0, 0), (0, 0), (2, 2), (2, 2)), mode="reflect")
    seen = set()
    for row in range(200):
        match = [
            (y, x)
            for y in range(5)
            for x in range(5)
            if np.array_equal(moved[row], padded[row, :, y : y + 28, x : x + 28])
        ]
        assert len(match) == 1
        seen.add(match[0])
    assert len(seen) == 25


def test_a_flip_mirrors_about_half_of_the_pictures():
    image = pictures(400, 1, 5, 6)
    flipped = flip(image, generator())
    mirrored = (flipped == image.flip(-1)).flatten(1).all(1)
    assert torch.equal(flipped[~mirrored], image[~mirrored])
    assert 150 < mirrored.sum() < 250


@pytest.mark.parametrize("shape", [(25, 25), (21, 31)])
def test_a_turn_keeps_angles_and_lengths_on_oblong_pictures_too(shape):
    """Two dots, above and right of the middle, stay at one distance from it and at a right angle."""
    h, w = shape
    image = torch.zeros(50, 1, h, w)
    image[:, 0, h // 2 - 6, w // 2] = 255.0
    image[:, 0, h // 2, w // 2 + 6] = 255.0
    for picture in turn(image, generator()).numpy()[:, 0]:
        labels, n = ndimage.label(picture > 20)
        assert n == 2
        up, right = sorted(ndimage.center_of_mass(picture, labels, [1, 2]))
        middle = np.array([(h - 1) / 2, (w - 1) / 2])
        first, second = np.array(up) - middle, np.array(right) - middle
        cosine = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
        assert 0.87 < np.linalg.norm(first) / 6 < 1.14
        assert abs(np.linalg.norm(first) / np.linalg.norm(second) - 1) < 0.08
        assert abs(cosine) < 0.08


def test_only_the_presets_standard_and_strong_flip():
    assert [name for name, steps in PRESETS.items() if flip in steps] == ["standard", "strong"]


def test_a_table_comes_back_as_it_was():
    batch = {"numbers": torch.ones(3, 2)}
    assert augment("standard")(batch, generator()) is batch


def test_an_unknown_name_is_refused_with_a_hint():
    with pytest.raises(AyatoriError, match="did you mean 'light'"):
        augment("ligth")
