"""facenet-pytorch's weights in our network: PyTorch's own answers, and files that are not what they should be."""

from __future__ import annotations

import importlib
import importlib.util
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

from config import Config
from facekit.facenet_weights import load_facenet
from facekit.weights import load_weights
from model import build_embedding_model

SETTINGS: dict[str, Any] = {"backbone": "inception_resnet_v1", "embedding_size": 512, "image_size": 160}

# PyTorch's parameters as facenet-pytorch 2.6.0 counts them (its BatchNorm statistics are buffers, not parameters).
PARAMETERS = 23_482_624


# ---- The architecture, once more, from facenet-pytorch's source ----------------------------------------------


def facenet_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of a state dict, classifier and counters left out."""
    shapes: dict[str, tuple[int, ...]] = {}

    def norm(name: str, channels: int) -> None:
        shapes.update({f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")})

    def basic(name: str, inputs: int, *convolutions: tuple[int, int, int]) -> None:
        """A chain of (channels, height, width), numbered where it has several."""
        for number, (channels, height, width) in enumerate(convolutions):
            unit = f"{name}.{number}" if len(convolutions) > 1 else name
            shapes[f"{unit}.conv.weight"] = (channels, inputs, height, width)
            norm(f"{unit}.bn", channels)
            inputs = channels

    def joined(name: str, inputs: int, channels: int) -> None:
        shapes[f"{name}.conv2d.weight"], shapes[f"{name}.conv2d.bias"] = (channels, inputs, 1, 1), (channels,)

    for name, inputs, channels, side in (
        *(("1a", 3, 32, 3), ("2a", 32, 32, 3), ("2b", 32, 64, 3), ("3b", 64, 80, 1), ("4a", 80, 192, 3)),
        ("4b", 192, 256, 3),
    ):
        basic(f"conv2d_{name}", inputs, (channels, side, side))
    for block in range(5):
        name = f"repeat_1.{block}"
        basic(f"{name}.branch0", 256, (32, 1, 1))
        basic(f"{name}.branch1", 256, (32, 1, 1), (32, 3, 3))
        basic(f"{name}.branch2", 256, (32, 1, 1), (32, 3, 3), (32, 3, 3))
        joined(name, 96, 256)
    basic("mixed_6a.branch0", 256, (384, 3, 3))
    basic("mixed_6a.branch1", 256, (192, 1, 1), (192, 3, 3), (256, 3, 3))
    for block in range(10):
        name = f"repeat_2.{block}"
        basic(f"{name}.branch0", 896, (128, 1, 1))
        basic(f"{name}.branch1", 896, (128, 1, 1), (128, 1, 7), (128, 7, 1))
        joined(name, 256, 896)
    basic("mixed_7a.branch0", 896, (256, 1, 1), (384, 3, 3))
    basic("mixed_7a.branch1", 896, (256, 1, 1), (256, 3, 3))
    basic("mixed_7a.branch2", 896, (256, 1, 1), (256, 3, 3), (256, 3, 3))
    for name in (*(f"repeat_3.{block}" for block in range(5)), "block8"):
        basic(f"{name}.branch0", 1792, (192, 1, 1))
        basic(f"{name}.branch1", 1792, (192, 1, 1), (192, 1, 3), (192, 3, 1))
        joined(name, 384, 1792)
    shapes["last_linear.weight"] = (512, 1792)
    norm("last_bn", 512)
    return shapes


@pytest.fixture(scope="module")
def tensors() -> dict[str, np.ndarray]:
    """A state dict of random numbers; copy before changing."""
    rng = np.random.default_rng(0)
    return {name: rng.random(shape, np.float32) for name, shape in facenet_shapes().items()}


@pytest.fixture(scope="module")
def network() -> keras.Model:
    """The embedding model that takes everything. Its weights change from test to test."""
    return build_embedding_model(Config(**SETTINGS))


def saved(tensors: dict[str, np.ndarray], folder: Path) -> Path:
    save_file(tensors, folder / "facenet.safetensors")
    return folder / "facenet.safetensors"


def test_every_number_lands_in_its_place(network: keras.Model, tensors: dict[str, np.ndarray], tmp_path: Path):
    left_out = {
        "logits.weight": np.ones((10, 512), np.float32),
        "logits.bias": np.ones(10, np.float32),
        "last_bn.num_batches_tracked": np.array(7),
    }
    path = saved(tensors | left_out, tmp_path)
    numbers = sum(tensor.size for tensor in tensors.values())
    statistics = sum(tensor.size for name, tensor in tensors.items() if ".running_" in name)
    assert numbers - statistics == PARAMETERS
    answer = load_weights(network, path, "inception_resnet_v1")
    assert answer == f"{path}: all {len(tensors)} tensors, {numbers:,} parameters taken."
    assert numbers == network.count_params()

    backbone = network.get_layer("inception_resnet_v1")
    wide = backbone.get_layer("repeat_2.3.branch1.1.conv").kernel.numpy()
    assert wide.shape == (1, 7, 128, 128)
    assert wide[0, 2, 5, 9] == tensors["repeat_2.3.branch1.1.conv.weight"][9, 5, 0, 2]
    square = backbone.get_layer("conv2d_4a.conv").kernel.numpy()
    assert square[2, 1, 70, 150] == tensors["conv2d_4a.conv.weight"][150, 70, 2, 1]
    bn = backbone.get_layer("mixed_7a.branch2.2.bn")
    for variable, part in (
        (bn.gamma, "weight"),
        (bn.beta, "bias"),
        (bn.moving_mean, "running_mean"),
        (bn.moving_variance, "running_var"),
    ):
        np.testing.assert_array_equal(variable, tensors[f"mixed_7a.branch2.2.bn.{part}"])
    np.testing.assert_array_equal(backbone.get_layer("block8.conv2d").bias, tensors["block8.conv2d.bias"])
    np.testing.assert_array_equal(network.get_layer("embedding").kernel, tensors["last_linear.weight"].T)
    np.testing.assert_array_equal(network.get_layer("embedding_bn").beta, tensors["last_bn.bias"])


@pytest.mark.parametrize("head", [{"embedding_size": 128}, {"embedding_norm": "none"}, {"pooling": "flatten"}])
def test_of_another_head_the_backbone_alone(
    head: dict[str, Any], tensors: dict[str, np.ndarray], tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    path = saved(tensors, tmp_path)
    model = build_embedding_model(Config(**(SETTINGS | {"image_size": 112} | head), weights=str(path)))
    assert "the embedding head differs and keeps its start, so only the backbone's" in caplog.text
    kernel = model.get_layer("inception_resnet_v1").get_layer("conv2d_1a.conv").kernel
    np.testing.assert_array_equal(kernel, tensors["conv2d_1a.conv.weight"].transpose(2, 3, 1, 0))
    start = model.get_layer("embedding").kernel.numpy()
    assert np.abs(start).mean() < 0.1  # the file's are means of 0.5


def test_files_that_do_not_fit(network: keras.Model, tensors: dict[str, np.ndarray], tmp_path: Path):
    without = {name: tensor for name, tensor in tensors.items() if not name.startswith("repeat_1.0.branch0.bn")}
    nan = tensors | {"last_bn.bias": np.full(512, np.nan, np.float32)}
    cases = [
        (
            without,
            f"is not facenet-pytorch's InceptionResnetV1 of {len(tensors)} tensors: 4 missing "
            "(repeat_1.0.branch0.bn.weight, repeat_1.0.branch0.bn.bias, repeat_1.0.branch0.bn.running_mean, ...).",
        ),
        (tensors | {"fc.weight": np.zeros(3, np.float32)}, "tensors: 1 unexpected (fc.weight)."),
        (
            tensors | {"conv2d_1a.conv.weight": np.zeros((3, 3, 3, 32), np.float32)},
            "tensors: 1 of another shape (conv2d_1a.conv.weight (3, 3, 3, 32) instead of (32, 3, 3, 3)).",
        ),
        (
            without | {"last_linear.weight": np.zeros((128, 1792), np.float32), "x": np.zeros(1, np.float32)},
            "tensors: 4 missing (repeat_1.0.branch0.bn.weight, repeat_1.0.branch0.bn.bias, "
            "repeat_1.0.branch0.bn.running_mean, ...), 1 unexpected (x), "
            "1 of another shape (last_linear.weight (128, 1792) instead of (512, 1792)).",
        ),
        (nan, "is damaged: last_bn.bias holds numbers that are not finite."),
    ]
    before = network.get_weights()
    for state, message in cases:
        path = saved(state, tmp_path)
        with pytest.raises(ValueError, match=re.escape(message)) as caught:
            load_facenet(network, path)
        assert str(caught.value).startswith(f"`weights`: {path} ") and "\n" not in str(caught.value)
    for old, new in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_half_precision_is_taken(network: keras.Model, tensors: dict[str, np.ndarray], tmp_path: Path):
    half = {name: tensor.astype(np.float16) for name, tensor in tensors.items()}
    load_facenet(network, saved(half, tmp_path))
    kernel = network.get_layer("embedding").kernel
    np.testing.assert_array_equal(kernel, half["last_linear.weight"].T.astype(np.float32))


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "brain_float"])
def test_damaged_safetensors(damage: str, network: keras.Model, tmp_path: Path):
    header = b'{"a":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}}'
    brain = len(header).to_bytes(8, "little") + header + b"\0\0"
    path = saved({"a": np.zeros(100, np.float32)}, tmp_path)
    contents = {"cut": path.read_bytes()[:-9], "empty": b"", "text": b"not a network at all", "brain_float": brain}
    path.write_bytes(contents[damage])
    with pytest.raises(ValueError, match="`weights`: .*facenet.safetensors (cannot be read as safetensors|is not|"
                       "holds numbers of a type that NumPy has not)") as caught:  # fmt: skip
        load_facenet(network, path)
    assert "\n" not in str(caught.value)


def test_other_backbones_and_suffixes(network: keras.Model, tensors: dict[str, np.ndarray], tmp_path: Path):
    path = saved(tensors, tmp_path)
    with pytest.raises(ValueError, match="is for the backbone inception_resnet_v1; `backbone` is small"):
        build_embedding_model(Config(image_size=32, weights=str(path)))
    with pytest.raises(ValueError, match=r"`weights`: expected a \.pt, \.pth, \.safetensors file of"):
        load_facenet(network, tmp_path / "weights.onnx")
    with pytest.raises(ValueError, match=r"`weights`: there is no file .*gone\.pt\."):
        build_embedding_model(Config(**SETTINGS, weights=str(tmp_path / "gone.pt")))


def test_without_pytorch(network: keras.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "facenet.pt"
    path.touch()
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ValueError) as caught:
        load_weights(network, path, "inception_resnet_v1")
    assert str(caught.value) == (
        f"`weights`: {path} needs PyTorch to be read. Run: pip install 'torch>=2.6' - or, where PyTorch is, turn "
        "it into facenet.safetensors: python -c 'import torch, safetensors.torch as s; "
        's.save_file(torch.load("facenet.pt", weights_only=True), "facenet.safetensors")\''
    )


def test_a_pytorch_that_a_file_can_fool_is_refused(
    network: keras.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    old = ModuleType("torch")
    old.__version__ = "2.5.1+cpu"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", old)
    with pytest.raises(ValueError, match=r"is not read with PyTorch 2\.5\.1\+cpu, .* pip install 'torch>=2\.6'"):
        load_facenet(network, tmp_path / "facenet.pth")


# ---- Beside PyTorch ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def torch() -> Any:
    return pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")


@pytest.fixture(scope="module")
def facenet(torch: Any) -> Any:
    """facenet-pytorch's network with random weights, scales, shifts and statistics."""
    pytest.importorskip("requests", reason="facenet-pytorch needs requests: pip install requests")
    package = importlib.util.find_spec("facenet_pytorch")
    if package is None:
        pytest.skip("facenet-pytorch is not installed: pip install --no-deps facenet-pytorch")
    # The package's own __init__ needs torchvision; the network does not.
    models = ModuleType("facenet_models")
    models.__path__ = [os.path.join(place, "models") for place in package.submodule_search_locations or ()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "facenet_models", models)
        module = importlib.import_module("facenet_models.inception_resnet_v1")
    torch.manual_seed(0)
    net = module.InceptionResnetV1(pretrained=None, classify=False)
    norms = [m for m in net.modules() if isinstance(m, (torch.nn.BatchNorm2d, torch.nn.BatchNorm1d))]
    with torch.no_grad():
        for norm in norms:
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.normal_(0, 0.3)
            norm.momentum = 1.0  # the statistics become those of the next batch, so that pictures stay apart
        net.train()(torch.from_numpy(standardised(pictures(160, 8))))
        for norm in norms:
            norm.running_mean.add_(0.1 * norm.running_var.sqrt() * torch.randn_like(norm.running_mean))
            norm.running_var.mul_(torch.empty_like(norm.running_var).uniform_(0.5, 1.5))
    net.logits = torch.nn.Linear(512, 10)  # as in the published files
    return net.eval()


def pictures(size: int, count: int) -> np.ndarray:
    """Random pictures, coarse patterns with noise: (count, size, size, 3) uint8."""
    rng = np.random.default_rng(1)
    coarse = rng.random((count, 8, 8, 3)).repeat(size // 8 + 1, 1).repeat(size // 8 + 1, 2)[:, :size, :size]
    return (255 * (0.7 * coarse + 0.3 * rng.random(coarse.shape))).astype(np.uint8)


def standardised(images: np.ndarray) -> np.ndarray:
    """facenet-pytorch's `fixed_image_standardization`, channels first."""
    return ((images.astype(np.float32) - 127.5) / 128.0).transpose(0, 3, 1, 2).copy()


def write(torch: Any, net: Any, path: Path, legacy: bool) -> Path:
    if path.suffix == ".safetensors":
        from safetensors.torch import save_file as save

        save(net.state_dict(), path)
    else:
        torch.save(net.state_dict(), path, _use_new_zipfile_serialization=not legacy)
    return path


@pytest.mark.torch
@pytest.mark.parametrize(
    ("name", "legacy"), [("zip.pt", False), ("legacy.pt", True), ("zip.pth", False), ("plain.safetensors", False)]
)
def test_embeddings_are_pytorchs(name: str, legacy: bool, torch: Any, facenet: Any, network: keras.Model, tmp_path):
    network.set_weights([np.zeros_like(weight) for weight in network.get_weights()])
    answer = load_facenet(network, write(torch, facenet, tmp_path / name, legacy))
    assert f"all {len(facenet_shapes())} tensors" in answer
    compare(torch, facenet, network, 160)


@pytest.mark.torch
@pytest.mark.parametrize("size", [131, 182])
def test_pictures_of_other_sizes(size: int, torch: Any, facenet: Any, tmp_path: Path):
    """Sides at which strided convolutions leave cells over, and others."""
    path = write(torch, facenet, tmp_path / "facenet.pt", legacy=False)
    model = build_embedding_model(Config(**(SETTINGS | {"image_size": size}), weights=str(path)))
    compare(torch, facenet, model, size)


def compare(torch: Any, facenet: Any, network: keras.Model, size: int) -> None:
    images = pictures(size, 4)
    with torch.no_grad():
        theirs = facenet(torch.from_numpy(standardised(images))).numpy()
    ours = network(images, training=False).numpy()
    similarities = (theirs @ theirs.T)[np.triu_indices(4, 1)]
    assert similarities.max() < 0.99  # pictures are told apart, so agreement means something
    assert np.abs(ours - theirs).max() < 1e-4


@pytest.mark.torch
def test_names_and_shapes_are_pytorchs(facenet: Any):
    theirs = {name: tuple(tensor.shape) for name, tensor in facenet.state_dict().items()}
    kept = {n: s for n, s in theirs.items() if not n.startswith("logits") and "num_batches" not in n}
    assert kept == facenet_shapes()


class Payload:
    """What a hostile file does when its pickle runs."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.torch
@pytest.mark.parametrize("kind", ["pickle", "zip", "legacy"])
def test_a_file_that_runs_code_is_refused(kind: str, torch: Any, network: keras.Model, tmp_path: Path):
    mark, path = tmp_path / "code_ran", tmp_path / "hostile.pt"
    state = {"conv2d_1a.conv.weight": Payload(mark)}
    if kind == "pickle":
        path.write_bytes(pickle.dumps(state))
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
    with pytest.raises(ValueError, match="hostile.pt is damaged, or holds more than tensors, .*could run code"):
        load_facenet(network, path)
    assert not mark.exists()
    # The same file does run code where it is unpickled.
    if kind == "pickle":
        pickle.loads(path.read_bytes())
        assert mark.exists()


@pytest.mark.torch
def test_pt_files_of_other_things(torch: Any, network: keras.Model, tmp_path: Path):
    path = tmp_path / "other.pt"
    zero = torch.zeros(1)
    for content, message in (
        ({"state_dict": {"a": zero}, "epoch": 3}, "is not a state dict, which has a tensor for each name"),
        (zero, "is not a state dict"),
        ({"a": zero}, "of 602 tensors: 602 missing .*1 unexpected"),
    ):
        torch.save(content, path)
        with pytest.raises(ValueError, match=message):
            load_facenet(network, path)
    whole = path.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], b"PK\x03\x04 and no more", b"text"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="other.pt (cannot be read by PyTorch: it )?is damaged") as caught:
            load_facenet(network, path)
        assert "\n" not in str(caught.value) and "weights_only" not in str(caught.value)


@pytest.mark.torch
def test_the_command_that_the_error_gives_converts(
    torch: Any, facenet: Any, network: keras.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = write(torch, facenet, tmp_path / "it's $HOME.pt", legacy=False)
    with monkeypatch.context() as patch, pytest.raises(ValueError) as caught:
        patch.setitem(sys.modules, "torch", None)
        load_facenet(network, path)
    command = str(caught.value).rpartition(": ")[2].replace("python", f"'{sys.executable}'", 1)
    subprocess.run(command, shell=True, cwd=tmp_path, check=True)
    network.set_weights([np.zeros_like(weight) for weight in network.get_weights()])
    load_facenet(network, path.with_suffix(".safetensors"))
    compare(torch, facenet, network, 160)
