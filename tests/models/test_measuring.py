"""The networks of the metrics, tiny or random, against their authors' programs or the recipe written out."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from backends.pictures import dino, i3d, inception, lpips
from backends.pictures.dino import DinoViT
from backends.pictures.i3d import I3D
from backends.pictures.image_embedder import ReadsTexts
from backends.pictures.inception import Inception
from backends.pictures.laion_aesthetic import LaionAesthetic
from backends.pictures.lpips import LpipsAlexNet
from backends.pictures.openclip import OpenClipEmbedder
from backends.pictures.raft import Raft
from backends.store.weights import Weights
from tests.models.tiny_vision import BUILDERS

Store = Callable[[str], Weights]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Weights by name, made once."""
    made: dict[str, Path] = {}

    def weights(name: str) -> Weights:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            BUILDERS[name](made[name])
        return Weights(name, made[name], "0123abcd", is_random=True)

    return weights


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Soft blobs of colour, with some noise."""
    rng = np.random.default_rng(seed)
    blobs = Image.fromarray(rng.integers(0, 256, (5, 7, 3), np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    return np.clip(np.asarray(blobs) + rng.normal(0, 6, (height, width, 3)), 0, 255).astype(np.uint8)


def loaded(path: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(path, weights_only=True)
    return state


# What they are called.

KINDS: dict[str, tuple[type[Any], str]] = {
    "inception-2015-12-05": (Inception, "inception"),
    "i3d-kinetics-400": (I3D, "i3d"),
    "lpips-alexnet": (LpipsAlexNet, "lpips_alexnet"),
    "laion-aesthetic-vit-l-14": (LaionAesthetic, "laion_linear"),
    "raft-things": (Raft, "raft"),
    "dino-vit-b-16": (DinoViT, "dino_vit_b_16"),
    "clip-vit-b-32": (OpenClipEmbedder, "openclip"),
}


@pytest.mark.parametrize("name", KINDS)
def test_only_published_weights_leave_the_name_of_a_number_alone(name: str) -> None:
    kind, method = KINDS[name]
    here = Path("/nowhere")
    assert kind(Weights(name, here, "ab", is_published=True)).network == ""
    assert kind(Weights(name, here, "ab")).network == f"unverified_{method}"
    assert kind(Weights(name, here, "ab", is_random=True)).network == f"stand_in_random_{method}"
    assert kind(Weights("some-other.v2", here, "ab", is_published=True)).network == "some_other_v2"
    assert f"{name}@ab" in kind(Weights(name, here, "ab")).id


@pytest.mark.parametrize("name", KINDS)
def test_missing_weights_are_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"no such file among the weights of {name}"):
        KINDS[name][0](Weights(name, tmp_path), device="cpu").setup()


@pytest.mark.parametrize(
    ("name", "file", "said"),
    [
        ("inception-2015-12-05", inception.FILE, "not the weights of FID's Inception"),
        ("lpips-alexnet", lpips.HEADS, "not the weights of LPIPS"),
        ("laion-aesthetic-vit-l-14", "sa_0_4_vit_l_14_linear.pth", "not a linear head for vectors of 16"),
        ("raft-things", "raft_large_C_T_V1-22a6c225.pth", "not the weights of torchvision's large RAFT"),
        ("dino-vit-b-16", dino.FILE, "not the weights of DINO's ViT"),
    ],
)
def test_other_weights_are_refused(store: Store, tmp_path: Path, name: str, file: str, said: str) -> None:
    shutil.copytree(store(name).folder, tmp_path / name)
    torch.save({"weight": torch.zeros(1, 3)}, tmp_path / name / file)
    with pytest.raises(ValueError, match=said):
        KINDS[name][0](Weights(name, tmp_path / name), device="cpu").setup()


# Inception.


def fid_features(net: Any, x: torch.Tensor) -> torch.Tensor:
    """pytorch-fid's network up to the pooled features, block by block (fid_inception_v3, inception.py)."""

    def mean(x: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(x, kernel_size=3, stride=1, padding=1, count_include_pad=False)

    def largest(x: torch.Tensor) -> torch.Tensor:
        return F.max_pool2d(x, kernel_size=3, stride=1, padding=1)

    def a(b: Any, x: torch.Tensor) -> torch.Tensor:
        five = b.branch5x5_2(b.branch5x5_1(x))
        double = b.branch3x3dbl_3(b.branch3x3dbl_2(b.branch3x3dbl_1(x)))
        return torch.cat([b.branch1x1(x), five, double, b.branch_pool(mean(x))], 1)

    def c(b: Any, x: torch.Tensor) -> torch.Tensor:
        seven = b.branch7x7_3(b.branch7x7_2(b.branch7x7_1(x)))
        double = b.branch7x7dbl_1(x)
        for i in range(2, 6):
            double = getattr(b, f"branch7x7dbl_{i}")(double)
        return torch.cat([b.branch1x1(x), seven, double, b.branch_pool(mean(x))], 1)

    def e(b: Any, x: torch.Tensor, pool: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        three, double = b.branch3x3_1(x), b.branch3x3dbl_2(b.branch3x3dbl_1(x))
        return torch.cat(
            [
                b.branch1x1(x),
                b.branch3x3_2a(three),
                b.branch3x3_2b(three),
                b.branch3x3dbl_3a(double),
                b.branch3x3dbl_3b(double),
                b.branch_pool(pool(x)),
            ],
            1,
        )

    x = net.Conv2d_2b_3x3(net.Conv2d_2a_3x3(net.Conv2d_1a_3x3(x)))
    x = net.Conv2d_4a_3x3(net.Conv2d_3b_1x1(F.max_pool2d(x, 3, 2)))
    x = F.max_pool2d(x, 3, 2)
    for name in "bcd":
        x = a(getattr(net, f"Mixed_5{name}"), x)
    x = net.Mixed_6a(x)
    for name in "bcde":
        x = c(getattr(net, f"Mixed_6{name}"), x)
    x = e(net.Mixed_7b, net.Mixed_7a(x), mean)
    return e(net.Mixed_7c, x, largest).mean((2, 3))


def test_inception_gives_what_pytorch_fid_gives(store: Store) -> None:
    from torchvision.models import Inception3

    weights = store("inception-2015-12-05")
    images = [picture(120, 200), picture(320, 180, 1)]
    plain = Inception3(num_classes=1008, aux_logits=False, init_weights=False).eval()
    plain.load_state_dict(loaded(weights.file(inception.FILE)))
    plain.fc = torch.nn.Identity()
    inputs = torch.cat(
        [
            F.interpolate(
                torch.from_numpy(image / 255).float().permute(2, 0, 1)[None], (299, 299), mode="bilinear"
            )
            for image in images
        ]
    )
    with torch.inference_mode():
        expected, torchvisions = fid_features(plain, 2 * inputs - 1).numpy(), plain(2 * inputs - 1).numpy()
    found = Inception(weights, device="cpu").features(images)
    assert found.shape == (2, 2048) and found.dtype == np.float32
    scale = float(expected.std())
    assert scale > 1e-3
    np.testing.assert_allclose(found, expected, atol=1e-4 * scale)
    assert np.abs(torchvisions - expected).max() > 0.01 * scale  # its pools count the padding


# I3D.


@pytest.mark.parametrize("size", [(180, 320), (320, 180), (256, 256), (224, 224)])
def test_windows_are_prepared_as_common_metrics_does_it(size: tuple[int, int]) -> None:
    from torchvision.transforms.v2.functional import center_crop, resize

    window = [picture(*size, seed) for seed in range(3)]
    found = i3d.prepared(window)
    values = torch.from_numpy(np.stack(window)).permute(0, 3, 1, 2).double() / 255
    height, width = size
    scale = 224 / min(size)
    to = [224, int(np.ceil(width * scale))] if height < width else [int(np.ceil(height * scale)), 224]
    small = values if size == (224, 224) else resize(values, to, antialias=False)
    top, left = (small.shape[2] - 224) // 2, (small.shape[3] - 224) // 2
    expected = small[:, :, top : top + 224, left : left + 224]
    assert (
        abs(top - (small.shape[2] - 224) / 2) < 1 and center_crop(small, [224, 224]).shape == expected.shape
    )
    assert found.shape == (3, 3, 224, 224) and float(found.abs().max()) < 1 + 1e-5
    np.testing.assert_allclose(found, expected.permute(1, 0, 2, 3) * 2 - 1, atol=1e-4)


def test_i3d_gives_what_its_archive_gives(store: Store) -> None:
    weights = store("i3d-kinetics-400")
    windows = [[picture(224, 224, seed + i) for i in range(12)] for seed in (0, 50)]
    raw = torch.from_numpy(np.stack([np.stack(w) for w in windows])).permute(0, 4, 1, 2, 3).float()
    net = torch.jit.load(weights.file(i3d.FILE))
    with torch.inference_mode():
        expected = net(raw, rescale=True, resize=False, return_features=True).numpy()
    model = I3D(weights, frames=12, device="cpu")
    found = model.features(windows)
    assert found.shape == (2, 400) and found.dtype == np.float32 and float(expected.std()) > 1e-3
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(model.features([windows[0][::-1]]) - found[:1]).max() > 1e-6  # it knows the direction
    with pytest.raises(ValueError, match="I3D needs 10 pictures or more, got frames=9"):
        I3D(weights, frames=9)


# LPIPS.


def test_lpips_gives_what_torchmetrics_gives_with_the_published_heads(store: Store, tmp_path: Path) -> None:
    import torchmetrics.functional.image.lpips as theirs

    heads = Path(theirs.__file__).parent / "lpips_models" / "alex.pth"
    folder = tmp_path / "lpips"
    shutil.copytree(store("lpips-alexnet").folder, folder)
    shutil.copy(heads, folder / lpips.HEADS)
    reference = theirs._LPIPS(pretrained=True, net="alex", pnet_rand=True).eval()
    trunk = {k.removeprefix("features."): v for k, v in loaded(folder / lpips.TRUNK).items()}
    own = {name: int(name.split(".")[1]) for name in reference.net.state_dict()}
    reference.net.load_state_dict(
        {name: trunk[f"{place}.{name.split('.')[2]}"] for name, place in own.items()}
    )
    one, other = picture(150, 210), picture(150, 210, 1)
    small, darker = picture(96, 80), (picture(96, 80) * 0.7).astype(np.uint8)

    def tensor(image: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(image).permute(2, 0, 1)[None].float() / 127.5 - 1

    with torch.inference_mode():
        expected = [float(reference(tensor(a), tensor(b))) for a, b in ((one, other), (small, darker))]
    model = LpipsAlexNet(Weights("lpips-alexnet", folder), device="cpu")
    found = model.distances([one, small, other, one], [other, darker, one, one])  # two sizes in one batch
    np.testing.assert_allclose(found[:2], expected, rtol=1e-3, atol=1e-6)
    assert found[2] == pytest.approx(found[0], rel=1e-5) and abs(found[3]) < 1e-7 and min(expected) > 1e-4


def test_lpips_grows_with_noise(store: Store) -> None:
    clean, rng = picture(128, 128), np.random.default_rng(0)
    noise = rng.normal(0, 1, clean.shape)
    worse = [np.clip(clean + noise * d, 0, 255).astype(np.uint8) for d in (0, 8, 24, 72)]
    found = LpipsAlexNet(store("lpips-alexnet"), device="cpu").distances([clean] * 4, worse)
    assert found[0] == 0 and (np.diff(found) > 0).all()


# CLIP out of OpenAI's archives, and LAION's head on it.


def test_an_archive_of_openai_gives_what_open_clip_gives(store: Store) -> None:
    import open_clip

    weights = store("clip-vit-b-32")
    net = open_clip.load_openai_model(str(weights.file("ViT-B-32.pt")), precision="fp32", device="cpu").eval()
    images, texts = [picture(97, 161), picture(300, 211, 1)], ["a woman holds a cup", "a man juggles"]
    inputs = []
    for image in images:  # openai/CLIP: shorter side, middle, ImageNet-like colours of their own
        height, width = image.shape[:2]
        scale = 32 / min(height, width)
        small = Image.fromarray(image).resize(
            (int(width * scale), int(height * scale)), Image.Resampling.BICUBIC
        )
        top, left = round((small.height - 32) / 2), round((small.width - 32) / 2)
        values = np.asarray(small.crop((left, top, left + 32, top + 32)), np.float32) / 255
        values = (values - open_clip.OPENAI_DATASET_MEAN) / open_clip.OPENAI_DATASET_STD
        inputs.append(torch.from_numpy(values).permute(2, 0, 1).float())
    with torch.inference_mode():
        seen = net.encode_image(torch.stack(inputs), normalize=True).numpy()
        read = net.encode_text(open_clip.tokenize(texts, 16), normalize=True).numpy()
    model = OpenClipEmbedder(weights, device="cpu", precision="float32")
    np.testing.assert_allclose(model.embed(images), seen, atol=1e-4)
    np.testing.assert_allclose(model.embed_texts(texts), read, atol=1e-5)
    assert isinstance(model, ReadsTexts) and model.width == 16
    assert model.id == f"{OpenClipEmbedder(weights).id} float32"
    with pytest.raises(ValueError, match="there is no precision 'half'"):
        OpenClipEmbedder(weights, precision="half")  # type: ignore[arg-type]


def test_laions_head_is_a_line_through_clips_unit_vectors(store: Store) -> None:
    weights = store("laion-aesthetic-vit-l-14")
    images = [picture(97, 161), picture(300, 211, 1), picture(64, 64, 2)]
    head = loaded(weights.file("sa_0_4_vit_l_14_linear.pth"))
    unit = OpenClipEmbedder(weights, device="cpu").embed(images)
    expected = unit @ head["weight"][0].numpy() + head["bias"].numpy()
    found = LaionAesthetic(weights, device="cpu").scores(images)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.dtype == np.float32 and len(set(found.round(5))) == 3


# RAFT.


def reference_flow(weights: Weights, first: np.ndarray, second: np.ndarray, rounds: int) -> np.ndarray:
    """Of pictures whose sides are multiples of 8, and 128 or more."""
    from torchvision.models.optical_flow import Raft_Large_Weights, raft_large

    net = raft_large(weights=None).eval()
    net.load_state_dict(loaded(weights.file("raft_large_C_T_V1-22a6c225.pth")))
    one, other = (torch.from_numpy(image).permute(2, 0, 1)[None] for image in (first, second))
    with torch.inference_mode():
        found: np.ndarray = net(*Raft_Large_Weights.C_T_V1.transforms()(one, other), num_flow_updates=rounds)[
            -1
        ][0].numpy()
    return found.transpose(1, 2, 0)


def test_raft_gives_what_torchvision_gives(store: Store) -> None:
    weights = store("raft-things")
    first, second = picture(136, 160), picture(136, 160, 1)
    expected = reference_flow(weights, first, second, 3)
    found = Raft(weights, iterations=3, device="cpu").flow(first, second)
    assert found.shape == (136, 160, 2) and found.dtype == np.float32 and float(expected.std()) > 1e-3
    np.testing.assert_allclose(found, expected, atol=1e-4 * float(np.abs(expected).max()))
    assert Raft(weights).iterations == 20  # VBench's


@pytest.mark.parametrize("size", [(131, 150), (60, 133)])
def test_raft_fills_sides_up_by_repeating_the_border(store: Store, size: tuple[int, int]) -> None:
    weights = store("raft-things")
    first, second = picture(*size), picture(*size, 1)
    sides = [max(128, -(-side // 8) * 8) - side for side in size]
    before, after = [s // 2 for s in sides], [s - s // 2 for s in sides]
    margins = [*zip(before, after, strict=True), (0, 0)]
    whole = reference_flow(weights, *(np.pad(p, margins, mode="edge") for p in (first, second)), rounds=2)
    expected = whole[before[0] : before[0] + size[0], before[1] : before[1] + size[1]]
    found = Raft(weights, iterations=2, device="cpu").flow(first, second)
    np.testing.assert_allclose(found, expected, atol=1e-4 * float(np.abs(expected).max()))


# DINO.


def vbench_input(image: np.ndarray) -> torch.Tensor:
    """VBench's dino_transform(224)."""
    from torchvision.transforms import Normalize, Resize

    small = Resize(224, antialias=False)(torch.from_numpy(image).permute(2, 0, 1))
    values: torch.Tensor = Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))(small.float().div(255.0))
    return values[None]


def authors_net(weights: Weights) -> Any:
    from timm.models.vision_transformer import VisionTransformer

    net = VisionTransformer(embed_dim=128, depth=2, num_heads=2, num_classes=0, dynamic_img_size=True).eval()
    net.load_state_dict(loaded(weights.file(dino.FILE)))
    return net


def test_dino_gives_what_timm_gives_for_squares(store: Store) -> None:
    weights = store("dino-vit-b-16")
    images = [picture(224, 224), picture(300, 300, 1)]
    with torch.inference_mode():
        seen = authors_net(weights)(torch.cat([vbench_input(image) for image in images])).numpy()
    found = DinoViT(weights, device="cpu").embed(images)
    assert found.shape == (2, 128) and found.dtype == np.float32
    np.testing.assert_allclose(found, seen / np.linalg.norm(seen, axis=1, keepdims=True), atol=1e-5)
    assert found[0] @ found[1] < 0.999


@pytest.mark.parametrize("size", [(240, 426), (500, 230)])
def test_dino_sees_the_whole_of_a_picture_that_is_not_square(store: Store, size: tuple[int, int]) -> None:
    weights = store("dino-vit-b-16")
    image = picture(*size)
    net, x = authors_net(weights), vbench_input(image)
    rows, columns = x.shape[2] // 16, x.shape[3] // 16
    places = net.pos_embed[:, 1:].reshape(1, 14, 14, 128).permute(0, 3, 1, 2)
    scale = ((rows + 0.1) / 14, (columns + 0.1) / 14)  # interpolate_pos_encoding of facebookresearch/dino
    places = F.interpolate(places, scale_factor=scale, mode="bicubic").permute(0, 2, 3, 1).reshape(1, -1, 128)
    with torch.inference_mode():
        patches = net.patch_embed.proj(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([net.cls_token, patches], 1) + torch.cat([net.pos_embed[:, :1], places], 1)
        seen = net.norm(net.blocks(tokens))[:, 0].numpy()
    model = DinoViT(weights, device="cpu")
    found = model.embed([image, picture(224, 224), image])  # two sizes in one batch
    np.testing.assert_allclose(found[[0, 2]], np.repeat(seen / np.linalg.norm(seen), 2, 0), atol=1e-5)
    assert model.embed([image[:, ::-1]])[0] @ found[0] < 0.9999
    assert model.embed([]).shape == (0, 128)
