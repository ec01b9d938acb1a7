"""What happens to a batch: moves of picture, mask and points, colours, pairs of rows, own transforms."""

import dataclasses
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torchvision.transforms import v2

from ayatori.augment import PRESETS, Changes, augment, changes_of, resolve, views
from ayatori.augment.chance import Chance
from ayatori.augment.colour import LUMA, recolour
from ayatori.augment.mix import draw_pairs, mix_rows, mix_targets, vary_table
from ayatori.records import AyatoriError

MOVES = {
    "flip": 0.5,
    "upside_down": 0.5,
    "shift": 0.2,
    "turn": 180.0,
    "zoom": 0.5,
    "stretch": 0.5,
    "shear": 30.0,
    "perspective": 0.4,
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, generator=generator(9), dtype=torch.uint8)


def vary(image: torch.Tensor, seed: int = 0, **changes: float) -> torch.Tensor:
    return augment(changes)({"image": image}, generator(seed))["image"]


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(list(PRESETS)),
    st.integers(1, 5),
    st.integers(1, 4),
    st.integers(1, 30),
    st.integers(1, 30),
)
def test_every_preset_keeps_shape_and_kind_and_leaves_its_input_alone(name, b, c, h, w):
    image = pictures(b, c, h, w)
    before = image.clone()
    out = augment(name)({"image": image, "numbers": torch.ones(b, 2)}, generator())
    assert out["image"].shape == image.shape
    assert out["image"].dtype == torch.uint8
    assert torch.equal(image, before)
    assert torch.equal(out["numbers"], torch.ones(b, 2))


@pytest.mark.parametrize("name", list(PRESETS))
def test_the_generator_decides_everything_and_the_global_one_is_left_alone(name):
    image = pictures(20, 3, 28, 28)
    state = torch.random.get_rng_state()
    first, again, other = (augment(name)({"image": image}, generator(s))["image"] for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (name == "none")
    assert torch.equal(torch.random.get_rng_state(), state)


def test_each_picture_of_a_batch_moves_differently():
    same = pictures(1, 3, 28, 28).expand(64, -1, -1, -1)
    for name in ("light", "digits", "sound", "standard", "strong", "random"):
        out = augment(name)({"image": same}, generator())["image"]
        distinct = torch.unique(out.flatten(1), dim=0)
        assert len(distinct) >= (20 if name == "light" else 40), name


def test_a_large_batch_is_changed_in_parts_and_all_of_it():
    image = pictures(40, 3, 160, 160)
    out = vary(image, flip=1.0)
    assert torch.equal(out, image.flip(-1))


def test_a_shift_moves_each_picture_by_its_own_whole_pixels_mirrored_at_the_border():
    image = pictures(200, 2, 28, 28)
    moved = vary(image, shift=1 / 12).numpy()
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


@pytest.mark.parametrize(("name", "axis"), [("flip", -1), ("upside_down", -2)])
def test_a_flip_mirrors_about_half_of_the_pictures_and_interpolates_nothing(name, axis):
    image = pictures(400, 1, 5, 6)
    flipped = vary(image, **{name: 0.5})
    mirrored = (flipped == image.flip(axis)).flatten(1).all(1)
    assert torch.equal(flipped[~mirrored], image[~mirrored])
    assert 150 < mirrored.sum() < 250


@pytest.mark.parametrize("shape", [(25, 25), (21, 31)])
def test_a_turn_keeps_angles_and_lengths_on_oblong_pictures_too(shape):
    """Two dots, above and right of the middle, stay at one distance from it and at a right angle."""
    h, w = shape
    image = torch.zeros(50, 1, h, w)
    image[:, 0, h // 2 - 6, w // 2] = 255.0
    image[:, 0, h // 2, w // 2 + 6] = 255.0
    for picture in vary(image, turn=10.0, zoom=0.1).numpy()[:, 0]:
        labels, n = ndimage.label(picture > 20)
        assert n == 2
        up, right = sorted(ndimage.center_of_mass(picture, labels, [1, 2]))
        middle = np.array([(h - 1) / 2, (w - 1) / 2])
        first, second = np.array(up) - middle, np.array(right) - middle
        cosine = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
        assert 0.87 < np.linalg.norm(first) / 6 < 1.14
        assert abs(np.linalg.norm(first) / np.linalg.norm(second) - 1) < 0.08
        assert abs(cosine) < 0.08


def test_a_crop_keeps_at_least_its_share_of_the_area():
    places = torch.arange(64.0).expand(64, 64)  # each pixel knows its column
    image = places.expand(200, 1, 64, 64).contiguous()
    kept = vary(image, crop=0.25).amax((1, 2, 3)) - vary(image, crop=0.25).amin((1, 2, 3))
    assert kept.min() >= 0.5 * 63 - 2
    assert kept.max() > 55
    assert kept.min() < 40


def test_one_warp_blurs_less_than_one_after_another():
    image = pictures(64, 1, 40, 40).float()
    once = vary(image, turn=20.0, zoom=0.2, shear=10.0)
    twice = vary(vary(vary(image, turn=20.0), 1, zoom=0.2), 2, shear=10.0)
    roughness = [(x.diff(dim=-1).abs().mean() + x.diff(dim=-2).abs().mean()).item() for x in (once, twice)]
    assert roughness[0] > 1.15 * roughness[1]


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**31),
    st.sets(st.sampled_from(sorted(MOVES)), min_size=1),
    st.integers(20, 40),
    st.integers(20, 40),
)
def test_a_mask_that_marks_a_colour_still_marks_it_to_within_a_pixel_at_edges(seed, names, h, w):
    rng = np.random.default_rng(seed)
    mask = np.zeros((6, h, w), np.int64)
    for one in mask:
        top, left = rng.integers(0, h - 8), rng.integers(0, w - 8)
        one[top : top + 8, left : left + 7] = 1
    mask = torch.from_numpy(mask)
    image = (mask[:, None] * 200).to(torch.uint8)
    out = augment({name: MOVES[name] for name in names})(
        {"image": image, "mask": mask}, generator(seed % 1000)
    )
    marked, coloured = out["mask"].numpy() == 1, out["image"].numpy()[:, 0] > 100
    for mine, theirs in ((marked, coloured), (~marked, ~coloured)):
        inside = np.stack([ndimage.binary_erosion(part, np.ones((3, 3)), border_value=1) for part in mine])
        assert not (inside & ~theirs).any()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.sets(st.sampled_from(sorted(MOVES)), min_size=1))
def test_a_key_point_stays_on_what_it_points_at(seed, names):
    rng = np.random.default_rng(seed)
    h, w = 41, 51
    place = np.stack([rng.integers(4, w - 4, 8), rng.integers(4, h - 4, 8)], 1)
    image = torch.zeros(8, 1, h, w)
    for number, (x, y) in enumerate(place):
        image[number, 0, y - 1 : y + 2, x - 1 : x + 2] = 255.0
    points = torch.cat([torch.from_numpy(place).float(), torch.ones(8, 1)], 1)[:, None]
    changes = {name: MOVES[name] for name in names}
    out = augment(changes)({"image": image, "points": points}, generator(seed % 1000))
    for picture, (x, y, seen) in zip(out["image"][:, 0].numpy(), out["points"][:, 0].tolist(), strict=True):
        inside = 3 < x < w - 4 and 3 < y < h - 4
        assert seen == float(-0.5 <= x < w - 0.5 and -0.5 <= y < h - 0.5)
        if inside:  # its mirror image may stand beside it, at the border
            near = picture[int(y) - 2 : int(y) + 4, int(x) - 2 : int(x) + 4]
            assert near.max() > 60


def test_colour_never_touches_mask_or_points():
    names = {"brightness": 0.5, "contrast": 0.5, "saturation": 0.5, "hue": 0.3, "grey": 0.5}
    names |= {"posterise": 0.5, "blur": 0.5, "noise": 0.5}
    mask, points = torch.randint(0, 5, (9, 30, 30)), torch.rand(9, 4, 3)
    image = pictures(9, 3, 30, 30)
    out = augment(names)({"image": image, "mask": mask, "points": points}, generator())
    assert torch.equal(out["mask"], mask)
    assert torch.equal(out["points"], points)
    assert not torch.equal(out["image"], image)


def test_what_is_erased_is_one_colour_in_the_picture_nothing_in_the_mask_and_hides_its_points():
    image, mask = pictures(60, 3, 32, 32), torch.ones(60, 32, 32, dtype=torch.int64)
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    points = torch.stack([x, y, torch.ones_like(x)], -1).view(1, -1, 3).repeat(60, 1, 1)
    out = augment({"erase": 1.0})({"image": image, "mask": mask, "points": points}, generator())
    gone = out["mask"] == 0
    share = gone.float().mean((1, 2))
    assert share.min() >= 0.01
    assert share.max() <= 0.25
    assert torch.equal(out["points"][..., 2].view(60, 32, 32) == 0, gone)
    for picture, before, hole in zip(out["image"], image, gone, strict=True):
        assert (picture[:, hole] == picture[:, hole][:, :1]).all()
        assert torch.equal(picture[:, ~hole], before[:, ~hole])


def test_brightness_contrast_and_saturation_are_those_of_torchvision():
    image = pictures(4, 3, 20, 20)
    own = {
        "brightness": v2.functional.adjust_brightness,
        "contrast": v2.functional.adjust_contrast,
        "saturation": v2.functional.adjust_saturation,
    }
    for name, reference in own.items():
        changes = Changes(**{name: 0.4})
        found = recolour(image, changes, Chance(changes, 4, generator(3)))
        factors = 1 + Chance(changes, 4, generator(3)).within(name, 0.4)
        for picture, wanted, factor in zip(found, image, factors.tolist(), strict=True):
            expected = reference(wanted.float() / 255, factor) * 255
            torch.testing.assert_close(picture, expected, atol=1.5, rtol=0)


def test_a_change_of_hue_keeps_the_lightness_of_every_pixel_and_turns_around():
    image = (80 + pictures(3, 3, 10, 10).float() / 5).clamp(0, 255)
    turned = recolour(image, Changes(hue=0.2), Chance(Changes(hue=0.2), 3, generator()))
    luma = torch.tensor(LUMA)[:, None, None]
    torch.testing.assert_close((turned * luma).sum(1), (image * luma).sum(1), atol=0.05, rtol=0)
    grey = torch.full((2, 3, 4, 4), 77.0)
    torch.testing.assert_close(
        recolour(grey, Changes(hue=0.5), Chance(Changes(hue=0.5), 2, generator())), grey
    )


def test_colours_come_in_an_order_of_each_pictures_own():
    """Contrast after brightness is not brightness after contrast, where the mean has moved."""
    changes = Changes(contrast=0.9, saturation=0.9, hue=0.4)
    image = pictures(1, 3, 8, 8).expand(200, -1, -1, -1)
    order = Chance(changes, 200, generator(4)).order(3)
    assert len(torch.unique(order, dim=0)) == 6
    assert (
        len(torch.unique(recolour(image, changes, Chance(changes, 200, generator())).flatten(1), dim=0))
        == 200
    )


def test_with_choices_each_picture_gets_so_many_of_the_changes():
    image = pictures(300, 1, 16, 16)
    out = vary(image, flip=1.0, upside_down=1.0, choices=1)
    kinds = [(out == image.flip(axis)).flatten(1).all(1) for axis in (-1, -2)]
    assert (kinds[0] ^ kinds[1]).all()
    assert 100 < kinds[0].sum() < 200


def test_only_the_presets_that_say_so_flip_and_digits_does_not():
    flips = [name for name, changes in PRESETS.items() if changes.flip or changes.upside_down]
    assert flips == ["standard", "strong", "random"]


def test_settings_in_a_file_start_from_a_preset_and_are_checked(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('base = "digits"\nturn = 5\nerase = 0.25\n')
    found = changes_of(resolve(str(path)))
    assert (found.turn, found.erase, found.zoom, found.flip) == (5, 0.25, 0.1, 0.0)
    for text, message in (
        ("trun = 5", "did you mean 'turn'"),
        ("turn = 'a lot'", "must be a number"),
        ("flip = 1.5", "from 0 to 1"),
        ("choices = 1.5", "a whole number"),
        ("turn =", "valid TOML"),
        ("erase_least = 0.5", "at most `erase_most`"),
    ):
        path.write_text(text)
        with pytest.raises(AyatoriError, match=message):
            resolve(str(path))
    with pytest.raises(AyatoriError, match="can be read"):
        resolve(str(tmp_path / "none.toml"))


def test_an_unknown_name_is_refused_with_a_hint():
    with pytest.raises(AyatoriError, match="did you mean 'light'"):
        augment("ligth")
    with pytest.raises(AyatoriError, match="can be imported"):
        augment("no_such_package:thing")


def test_a_transform_of_torchvision_gets_one_picture_after_another_and_moves_the_mask_along():
    image, mask = pictures(40, 3, 12, 12), torch.arange(12).expand(40, 12, 12).clone()
    states = torch.random.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    how = augment(v2.RandomHorizontalFlip(0.5))
    out = how({"image": image, "mask": mask}, generator())
    flipped = (out["image"] == image.flip(-1)).flatten(1).all(1)
    assert 8 < flipped.sum() < 32
    assert torch.equal(out["mask"][flipped], mask[flipped].flip(-1))
    assert torch.equal(out["mask"][~flipped], mask[~flipped])
    assert torch.equal(how({"image": image, "mask": mask}, generator())["image"], out["image"])
    after = torch.random.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    assert torch.equal(states[0], after[0])
    assert states[1:] == after[1:]


def test_a_function_of_a_batch_and_a_generator_is_called_as_ours_are():
    def darker(batch, generator):
        factor = torch.rand(len(batch["image"]), 1, 1, 1, generator=generator)
        return {**batch, "image": (batch["image"] * factor).to(torch.uint8)}

    image = pictures(5, 1, 4, 4)
    out = augment(darker)({"image": image}, generator())["image"]
    assert (out <= image).all()
    assert torch.equal(out, augment(darker)({"image": image}, generator())["image"])


def test_a_transform_of_kornia_gets_floats_of_a_whole_batch():
    kornia = pytest.importorskip("kornia.augmentation")
    image = pictures(64, 3, 16, 16)
    out = augment(kornia.RandomHorizontalFlip(p=0.5))({"image": image}, generator())["image"]
    flipped = (out == image.flip(-1)).flatten(1).all(1)
    assert 16 < flipped.sum() < 48
    with pytest.raises(AyatoriError, match="masks"):
        augment(kornia.RandomHorizontalFlip(p=0.5))({"image": image, "mask": image[:, 0]}, generator())


def test_a_transform_that_changes_the_shape_is_refused():
    with pytest.raises(AyatoriError, match="keep the shape"):
        augment(v2.Resize(4))({"image": pictures(2, 3, 8, 8)}, generator())


# pairs of rows, and rows of tables


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.05, 4), st.floats(0.05, 4), st.integers(2, 12))
def test_a_mixed_row_is_made_of_its_own_members_rows_alone(seed, mixup, cutmix, own):
    changes, rows = Changes(mixup=mixup, cutmix=cutmix), 16
    pairs = draw_pairs(changes, rows, [own, rows], [seed, seed + 1])
    image = torch.zeros(2, rows, 1, 6, 6, dtype=torch.uint8)
    image[0, own:] = 255  # rows that fill the batch up: of somebody else
    mixed, keep = mix_rows({"image": image}, pairs)
    assert (mixed["image"][0, :own] == 0).all()
    assert (pairs.partner[0, :own] < own).all()
    assert ((keep >= 0) & (keep <= 1)).all()


def test_the_share_of_a_label_is_the_share_of_the_picture():
    rows = 400
    for changes in (Changes(mixup=1.0), Changes(cutmix=1.0)):
        pairs = draw_pairs(changes, rows, [rows], [0])
        white = torch.zeros(1, rows, 1, 20, 20)
        white[:, ::2] = 255.0
        target = torch.eye(2)[(torch.arange(rows) % 2 == 0).long()][None]
        mixed, keep = mix_rows({"image": white}, pairs)
        shares, _ = mix_targets(target, None, pairs, keep)
        torch.testing.assert_close(
            shares[0, :, 1], mixed["image"][0].mean((1, 2, 3)) / 255, atol=1e-5, rtol=0
        )
        torch.testing.assert_close(shares.sum(-1), torch.ones(1, rows))
        assert len(torch.unique(keep)) > 15


def test_weighted_rows_that_are_mixed_pull_as_both_apart_would():
    changes, rows = Changes(mixup=1.0), 50
    pairs = draw_pairs(changes, rows, [rows], [3])
    keep, partner = pairs.keep, pairs.partner
    target, weight = (
        torch.rand(1, rows, 4, generator=generator()),
        torch.rand(1, rows, generator=generator(1)),
    )
    mixed, total = mix_targets(target, weight, pairs, keep)
    apart = (weight * keep)[..., None] * target
    apart = apart + (weight.gather(1, partner) * (1 - keep))[..., None] * target[0][partner[0]][None]
    torch.testing.assert_close(mixed * total[..., None], apart)


def test_of_categories_a_mixed_row_has_one_rows_value_or_the_others():
    pairs = draw_pairs(Changes(mixup=2.0), 30, [30], [0])
    codes = torch.arange(30)[:, None].repeat(1, 5)[None].int()
    mixed, _ = mix_rows({"categories": codes}, pairs)
    own = mixed["categories"][0] == codes[0]
    other = mixed["categories"][0] == pairs.partner[0][:, None]
    assert (own | other).all()
    assert not own.all()


def test_a_table_gets_noise_gaps_and_values_of_other_rows_of_the_same_member():
    rows = 2000
    numbers = torch.stack([torch.randn(rows, generator=generator()), 100 * torch.ones(rows)], 1)[
        None
    ].double()
    codes = torch.randint(0, 4, (1, rows, 2), generator=generator(), dtype=torch.int32)
    found = vary_table({"numbers": numbers, "categories": codes}, Changes(jitter=0.5), [rows], [0])
    noise = (found["numbers"] - numbers)[0]
    assert abs(noise[:, 0].std() - 0.5) < 0.05
    assert torch.equal(noise[:, 1], torch.zeros(rows, dtype=torch.float64))  # a constant stays what it is
    assert torch.equal(found["categories"], codes)
    found = vary_table({"numbers": numbers, "categories": codes}, Changes(hide=0.25), [rows], [0])
    assert abs(found["numbers"].isnan().float().mean() - 0.25) < 0.03
    assert abs((found["categories"] == -1).float().mean() - 0.25) < 0.03
    found = vary_table({"numbers": numbers, "categories": codes}, Changes(swap=0.5), [rows], [0])
    assert torch.isin(found["numbers"][0, :, 0], numbers[0, :, 0]).all()
    assert 0.4 < (found["numbers"][0, :, 0] != numbers[0, :, 0]).float().mean() < 0.6
    foreign = numbers.clone()
    foreign[0, 10:] = 1e9
    found = vary_table({"numbers": foreign}, Changes(swap=0.9, jitter=0.1), [10], [0])
    assert (found["numbers"][0, :10].abs() < 1e6).all()


def test_a_view_treats_all_pictures_alike_and_the_first_is_as_they_are():
    image = pictures(1, 3, 24, 24).repeat(6, 1, 1, 1)
    ways = views("strong", 4)
    seen = [way({"image": image})["image"] for way in ways]
    assert torch.equal(seen[0], image)
    for one in seen[1:]:
        assert (one == one[:1]).all()
        assert not torch.equal(one, image)
    for number, way in enumerate(ways):
        assert torch.equal(way({"image": image[:2]})["image"], seen[number][:2])
    with pytest.raises(AyatoriError, match="of your own"):
        views(v2.RandomHorizontalFlip(0.5), 2)
    with pytest.raises(AyatoriError, match="augmentation of pictures"):
        views("none", 2)


def test_every_setting_of_changes_has_an_effect():
    image, numbers = pictures(64, 3, 24, 24), torch.randn(1, 64, 3, generator=generator())
    values = {"crop": 0.5, "choices": 1}
    for field in dataclasses.fields(Changes):
        name = field.name
        if name in ("erase_least", "erase_most", "choices", "mixup", "cutmix"):
            continue
        how = augment({name: values.get(name, 0.5 if field.type == "float" else 1)})
        if how.tables:
            assert not torch.equal(
                vary_table({"numbers": numbers}, how.changes, [64], [0])["numbers"], numbers
            )
        else:
            assert not torch.equal(how({"image": image}, generator())["image"], image), name


def test_stripes_hide_one_run_of_columns_and_one_of_rows_and_nothing_else():
    image = torch.full((200, 1, 40, 40), 200, dtype=torch.uint8)
    out = vary(image, stripes=0.25)[:, 0]
    assert out.unique().tolist() == [0, 200]
    widths = []
    for picture in (out == 0).numpy():
        columns, rows = picture.all(axis=0), picture.all(axis=1)
        assert np.array_equal(picture, columns[None, :] | rows[:, None])
        for line in (columns, rows):
            places = np.flatnonzero(line)
            assert len(places) == 0 or places[-1] - places[0] == len(places) - 1
            assert len(places) <= 11  # a quarter of the side, which need not begin where a pixel does
            widths.append(len(places))
    assert 3.5 < np.mean(widths) < 6.5
    assert torch.equal(views("sound", 2)[1]({"image": image})["image"], image)  # no view of a test is covered
