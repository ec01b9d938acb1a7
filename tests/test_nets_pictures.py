import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ayatori.nets import pictures
from ayatori.nets.network import NetSpec, Network, lay_out
from ayatori.nets.own import build_own
from ayatori.nets.pictures import PictureFront, build_pictures, measure_pictures, picture_defaults
from ayatori.records import AyatoriError, Schema


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def network(image: tuple[int, int, int], name: str = "cnn", outputs: int = 3, **spec) -> Network:
    spec = NetSpec(name, "classification", outputs, {"image": list(image)}, **spec)
    return Network(*build_pictures(spec), spec)


def test_the_front_gives_mean_zero_and_deviation_one_per_channel():
    image = noise(50, 3, 9, 7) // np.array([1, 2, 3], np.uint8)[:, None, None]
    schema = Schema("pictures", "classification", ("a", "b"), image=(3, 9, 7))
    sizes = measure_pictures({"image": image}, schema)
    assert sizes == {"image": [3, 9, 7]}
    front = PictureFront(sizes)
    front.fit({"image": image})
    np.testing.assert_allclose(front.mean.numpy(), image.mean(axis=(0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(front.std.numpy(), image.std(axis=(0, 2, 3)), rtol=1e-6)
    out = front({"image": torch.from_numpy(image)}).numpy()
    np.testing.assert_allclose(out.mean(axis=(0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(out.std(axis=(0, 2, 3)), 1, atol=1e-5)


def test_the_front_reads_a_memory_map_in_blocks_and_at_most_a_sample(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "SAMPLE", 100)
    monkeypatch.setattr(pictures, "BLOCK", 8)
    np.save(tmp_path / "image.npy", noise(1000, 1, 4, 4))
    image = np.load(tmp_path / "image.npy", mmap_mode="r")
    front = PictureFront({"image": [1, 4, 4]})
    front.fit({"image": image})
    sample = image[np.linspace(0, 999, 100).astype(int)]
    np.testing.assert_allclose(front.mean.numpy(), sample.mean(), rtol=1e-6)
    np.testing.assert_allclose(front.std.numpy(), sample.std(), rtol=1e-6)


def test_pictures_of_one_colour_stay_finite():
    front = PictureFront({"image": [1, 4, 4]})
    front.fit({"image": np.full((5, 1, 4, 4), 7, np.uint8)})
    assert torch.isfinite(front({"image": torch.full((2, 1, 4, 4), 9, dtype=torch.uint8)})).all()


@settings(max_examples=25, deadline=None)
@given(st.sampled_from([1, 3, 4]), st.integers(1, 70), st.integers(1, 70), st.sampled_from(["cnn", "linear"]))
def test_pictures_of_any_size_become_finite_logits_and_every_weight_learns(channels, height, width, name):
    net = network((channels, height, width), name)
    image = noise(4, channels, height, width)
    net.fit({"image": image}, np.zeros(4, np.int64))
    logits = net({"image": torch.from_numpy(image)})
    assert logits.shape == (4, 3)
    assert torch.isfinite(logits).all()
    logits.square().sum().backward()
    assert all(p.grad is not None for p in net.parameters())


@pytest.mark.parametrize("image", [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 96, 96)])
def test_a_picture_costs_few_multiplications_whatever_its_size(image):
    count = []
    net = network(image).eval()
    for layer in net.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(lambda m, _, out: count.append(out[0].numel() * m.weight[0].numel()))
    net({"image": torch.zeros(1, *image)})
    assert 0.5e6 < sum(count) < 40e6


def test_a_cnn_learns_shapes_that_a_linear_model_cannot():
    """A bright bar that lies or stands anywhere: its mean picture is the same for both classes."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 600)
    image = np.zeros((600, 1, 8, 8), np.uint8)
    for row, (kind, at) in enumerate(zip(label, rng.integers(0, 8, 600), strict=True)):
        (image[row, 0] if kind else image[row, 0].T)[at] = 255
    torch.manual_seed(0)
    net = network((1, 8, 8), outputs=2)
    net.fit({"image": image[:400]}, label[:400])
    optimiser = torch.optim.AdamW(net.parameters(), 3e-3)
    for step in range(60):
        rows = np.arange(step * 40, step * 40 + 40) % 400
        loss = torch.nn.functional.cross_entropy(
            net({"image": torch.from_numpy(image[rows])}), torch.from_numpy(label[rows])
        )
        optimiser.zero_grad(), loss.backward(), optimiser.step()
    net.eval()
    accuracy = (net.predict({"image": torch.from_numpy(image[400:])}).argmax(1).numpy() == label[400:]).mean()
    assert accuracy > 0.95


def test_channels_last_gives_the_same_logits():
    net = network((3, 32, 32)).eval()
    image = torch.from_numpy(noise(4, 3, 32, 32))
    expected = net({"image": image})
    net.to(memory_format=torch.channels_last)
    got = net({"image": image.to(memory_format=torch.channels_last)})
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_channels_of_a_pixel_lie_side_by_side_through_the_network_and_on_the_way_back(channels):
    net = network((channels, 28, 28))
    lay_out(net)
    forth, back = [], []

    def watch(module, given, said):
        if said.ndim == 4 and said.requires_grad:
            forth.append(side_by_side(said))
            said.register_hook(lambda gradient: back.append(side_by_side(gradient)))

    for part in net.body.modules():
        if isinstance(part, nn.Conv2d | nn.MaxPool2d | nn.BatchNorm2d | nn.ReLU):
            part.register_forward_hook(watch)
    net({"image": torch.from_numpy(noise(6, channels, 28, 28))}).sum().backward()
    assert len(forth) == len(back) > 12
    assert all(forth)
    assert all(back)


def side_by_side(pixels: torch.Tensor) -> bool:
    return pixels.stride(1) == 1


def test_weights_in_the_order_of_an_earlier_version_say_the_same():
    net, picture = network((1, 28, 28)).eval(), torch.from_numpy(noise(6, 1, 28, 28))
    parts = list(net.body)
    earlier = nn.Linear(parts[-1].in_features, parts[-1].out_features)
    earlier.load_state_dict(parts[-1].state_dict())
    with torch.no_grad():
        maps = nn.Sequential(*parts[:-3])(net.front({"image": picture}))
        torch.testing.assert_close(net({"image": picture}), earlier(maps.flatten(1)))


def test_any_activation_and_the_options_reach_the_network():
    net = network((1, 28, 28), activation="SiLU", options={"width": 16, "depth": 2, "dropout": 0.5})
    kinds = [type(layer).__name__ for layer in net.modules()]
    assert "SiLU" in kinds
    assert "ReLU" not in kinds
    assert max(m.out_channels for m in net.modules() if isinstance(m, torch.nn.Conv2d)) == 16
    assert kinds.count("Residual") == 2
    assert next(m.p for m in net.modules() if type(m).__name__ == "Dropout") == 0.5


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"options": {"widht": 3}}, "did you mean 'width'"),
        ({"options": {"width": -1}}, "width"),
        ({"options": {"width": 1.5}}, "width"),
        ({"options": {"depth": True}}, "depth"),
        ({"options": {"dropout": 1}}, "dropout"),
        ({"name": "cnnn"}, "did you mean 'cnn'"),
        ({"activation": "rellu"}, "did you mean 'relu'"),
    ],
)
def test_a_wrong_name_or_option_is_refused_with_a_hint(spec, words):
    with pytest.raises(AyatoriError, match=words):
        network((1, 8, 8), **spec)


@pytest.mark.parametrize("preset", ["quick", "good", "best"])
@pytest.mark.parametrize("rows", [1, 1000, 48_000, 1_000_000])
def test_the_defaults_are_complete_and_never_flip(preset, rows):
    settings = picture_defaults("classification", rows, (1, 28, 28), 10, preset)
    assert set(settings) == {
        "epochs", "batch_size", "learning_rate", "weight_decay", "warmup", "label_smoothing", "beta2",
        "patience", "augment",
    }  # fmt: skip
    assert settings["epochs"] >= 1
    assert settings["augment"] in ("none", "light", "digits")
    assert picture_defaults("regression", rows, (1, 28, 28), 1, preset)["label_smoothing"] == 0


def test_pooling_before_a_relu_changes_no_bit_there_or_back():
    def layers(shape, outputs):
        return nn.Sequential(
            *(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2, padding=1)),
            nn.Sequential(
                nn.Conv2d(8, 8, 3), nn.ReLU(inplace=True), nn.MaxPool2d(3, stride=2, ceil_mode=True)
            ),
            *(nn.Flatten(), nn.LazyLinear(outputs)),
        )

    torch.manual_seed(0)
    plain = layers((3, 13, 17), 4)
    x = torch.randn(5, 3, 13, 17).round(decimals=1)
    x[0] = 0  # every place of a window is as large as the others
    expected = plain(x)
    _, own = build_own(NetSpec("own", "classification", 4, {"image": [3, 13, 17]}), layers)
    own(x)
    own.load_state_dict(plain.state_dict())
    found = own(x)
    assert torch.equal(found, expected)
    for network, logits in ((plain, expected), (own, found)):
        logits.square().sum().backward()
        assert all(value.grad.abs().sum() > 0 for value in network.parameters() if value.ndim > 1)
    for mine, other in zip(own.parameters(), plain.parameters(), strict=True):
        assert torch.equal(mine.grad, other.grad)
    assert repr(own) == repr(plain)
