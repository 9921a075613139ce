"""The encoders against the libraries' own pipelines, on random weights; the marker; what a step is given."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, WanImageToVideoPipeline
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from trainer.backbones import BACKBONES
from trainer.config import ModelConfig
from trainer.data.batch import Batch
from trainer.data.decode import to_bytes, to_unit
from trainer.networks.conditions import known_steps
from trainer.networks.encoders import Encoders, PictureSettings, encode, encode_conditions
from trainer.networks.load import WeightsError, backbone_of, load_part
from trainer.networks.marker import draw_marker
from trainer.networks.tiny import random_parts, save_random_model


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("encoders")
    return {name: save_random_model(base / name, name) for name in BACKBONES}


@pytest.fixture(scope="module")
def both(folders: dict[str, Path]) -> dict[str, Encoders]:
    return {
        name: Encoders.load(ModelConfig(backbone=name, folder=str(folders[name])), folders[name])
        for name in BACKBONES
    }


def pictures(count: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    drawn = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, height, width), generator=drawn, dtype=torch.uint8)


# Latents


@pytest.mark.parametrize(
    ("backbone", "frames", "size", "latent"),
    [
        ("wan", 1, (64, 64), (1, 8, 8)),
        ("wan", 9, (64, 64), (3, 8, 8)),
        ("wan", 25, (48, 80), (7, 6, 10)),
        ("ltx", 1, (64, 64), (1, 2, 2)),
        ("ltx", 9, (64, 64), (2, 2, 2)),
        ("ltx", 25, (64, 96), (4, 2, 3)),
    ],
)
def test_latents_go_there_and_back(
    both: dict[str, Encoders],
    backbone: str,
    frames: int,
    size: tuple[int, int],
    latent: tuple[int, int, int],
) -> None:
    encoders = both[backbone]
    video = to_unit(pictures(2 * frames, *size).unflatten(0, (2, frames)).transpose(1, 2))
    latents = encoders.latents(video)
    assert latents.shape == (2, 16, *latent) and latents.dtype == torch.float32
    again = encoders.decode(latents)
    assert again.shape == (2, 3, frames, *size)
    assert again.abs().max() <= 1
    # Alone as in a batch, and without noise.
    torch.testing.assert_close(encoders.latents(video[1:]), latents[1:], atol=1e-5, rtol=1e-4)


def test_wans_latents_are_those_of_the_library(both: dict[str, Encoders]) -> None:
    """The pipeline's formula: (mode - mean) times 1 / std; decoded after z / (1 / std) + mean."""
    encoders = both["wan"]
    video = to_unit(pictures(9, 64, 64)[None].transpose(1, 2))
    mode = encoders.vae.encode(video).latent_dist.mode()
    mean = torch.tensor(encoders.vae.config.latents_mean).view(1, 16, 1, 1, 1)
    inverse = 1.0 / torch.tensor(encoders.vae.config.latents_std).view(1, 16, 1, 1, 1)
    expected = (mode - mean) * inverse
    torch.testing.assert_close(encoders.latents(video), expected)
    torch.testing.assert_close(
        encoders.decode(expected), encoders.vae.decode(expected / inverse + mean).sample, atol=1e-5, rtol=0
    )


def test_ltx_latents_are_those_of_the_library(folders: dict[str, Path]) -> None:
    from diffusers import AutoencoderKLLTXVideo, LTXImageToVideoPipeline

    config = ModelConfig(backbone="ltx", random="tiny")
    encoders = Encoders.load(config, folders["ltx"])
    drawn = torch.Generator().manual_seed(1)
    encoders.vae.latents_mean.copy_(torch.randn(16, generator=drawn))
    encoders.vae.latents_std.copy_(torch.rand(16, generator=drawn) + 0.5)
    assert isinstance(encoders.vae, AutoencoderKLLTXVideo)
    video = to_unit(pictures(9, 64, 64)[None].transpose(1, 2))
    mode = encoders.vae.encode(video).latent_dist.mode()
    scale = (encoders.vae.latents_mean, encoders.vae.latents_std, encoders.vae.config.scaling_factor)
    expected = LTXImageToVideoPipeline._normalize_latents(mode, *scale)
    torch.testing.assert_close(encoders.latents(video), expected)
    back = encoders.vae.decode(LTXImageToVideoPipeline._denormalize_latents(expected, *scale)).sample
    torch.testing.assert_close(encoders.decode(expected), back.clamp(-1, 1), atol=1e-5, rtol=0)


def test_the_id_is_the_vaes_weights(folders: dict[str, Path], both: dict[str, Encoders]) -> None:
    again = Encoders.load(ModelConfig(random="tiny"), folders["wan"])
    assert again.id == both["wan"].id and again.id.startswith("wan-vae-")
    other = Encoders.load(ModelConfig(random="tiny"), folders["wan"])
    with torch.no_grad():
        next(other.vae.parameters()).flatten()[0] += 1e-3
    assert other.id != again.id
    assert both["ltx"].id != again.id


def test_autocast_and_gradients_stay_outside(both: dict[str, Encoders]) -> None:
    encoders = both["wan"]
    video = to_unit(pictures(1, 64, 64)[None].transpose(1, 2))
    plain, text = encoders.latents(video), encoders.text(["hello"])[0]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(encoders.latents(video), plain)
        assert torch.equal(encoders.text(["hello"])[0], text)
    assert not plain.requires_grad and not text.requires_grad
    assert not any(p.requires_grad for p in encoders.vae.parameters())


def test_bytes_and_units() -> None:
    values = torch.tensor([0, 1, 127, 254, 255], dtype=torch.uint8)
    torch.testing.assert_close(to_unit(values)[[0, 4]], torch.tensor([-1.0, 1.0]))
    assert torch.equal(to_bytes(to_unit(values)), values)
    assert to_bytes(torch.tensor([-1.5, 1.5])).tolist() == [0, 255]


# Text


def wan_pipeline(folder: Path) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, WanImageToVideoPipeline
    from transformers import AutoTokenizer, CLIPImageProcessor, CLIPVisionModel, UMT5EncoderModel

    return WanImageToVideoPipeline(
        tokenizer=AutoTokenizer.from_pretrained(folder / "tokenizer"),
        text_encoder=load_part(UMT5EncoderModel, folder / "text_encoder"),
        vae=None,
        scheduler=FlowMatchEulerDiscreteScheduler(),
        image_processor=CLIPImageProcessor.from_pretrained(folder / "image_processor"),
        image_encoder=load_part(CLIPVisionModel, folder / "image_encoder"),
    )


PROMPTS = [
    "The person is reacting right after being poked.\nA woman   laughs &amp; leans back.",
    "",
    "x" * 600,
    "a   b",
]


def test_wans_text_is_that_of_the_library(folders: dict[str, Path], both: dict[str, Encoders]) -> None:
    with torch.no_grad():
        expected = wan_pipeline(folders["wan"])._get_t5_prompt_embeds(PROMPTS, max_sequence_length=512)
    tokens, mask = both["wan"].text(PROMPTS)
    assert tokens.shape == (4, 512, 32) and mask.shape == (4, 512) and mask.dtype == torch.bool
    torch.testing.assert_close(tokens, expected, atol=1e-5, rtol=1e-4)
    assert mask.sum(1)[1:3].tolist() == [1, 512]  # the end token alone; cut


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_prompt_alone_and_in_a_batch(both: dict[str, Encoders], backbone: str) -> None:
    length = {"wan": 512, "ltx": 256}[backbone]
    tokens, mask = both[backbone].text(PROMPTS)
    assert tokens.shape[1] == mask.shape[1] == length
    for i, prompt in enumerate(PROMPTS):
        alone, counted = both[backbone].text([prompt])
        assert torch.equal(counted[0], mask[i])
        torch.testing.assert_close(alone[0], tokens[i], atol=1e-5, rtol=1e-4)
    assert (tokens[~mask] == 0).all() and (tokens[mask] != 0).any(1).all()
    # The tokens come first.
    assert torch.equal(mask, torch.arange(length) < mask.sum(1, keepdim=True))


def test_ltx_text_without_padding_is_the_encoders_own(both: dict[str, Encoders]) -> None:
    encoders = both["ltx"]
    given = encoders.tokenizer("a man nods", return_tensors="pt")
    expected = encoders.text_encoder(given.input_ids).last_hidden_state[0]
    tokens, mask = encoders.text(["  a man nods\n"])
    torch.testing.assert_close(tokens[0, mask[0]], expected)


def test_prompts_are_cleaned_as_published() -> None:
    wan, ltx = backbone_of("wan"), backbone_of("ltx")
    assert wan.clean_prompt("He said: &amp;quot;hi&amp;quot;\n\n  now ") == 'He said: "hi" now'
    assert wan.clean_prompt("cafÃ© smile") == "café smile"
    assert ltx.clean_prompt(" one\ntwo &amp; ") == "one\ntwo &amp;"


# Pictures


@pytest.mark.parametrize("size", [(48, 80), (480, 832), (20, 40), (64, 64)])
def test_pictures_are_prepared_as_by_the_library(size: tuple[int, int]) -> None:
    """On a smooth picture and on noise; the whole picture, squeezed."""
    settings = PictureSettings(32, (0.48, 0.46, 0.41), (0.27, 0.26, 0.28))
    library = CLIPImageProcessorPil(
        size={"height": 32, "width": 32},
        do_center_crop=False,
        image_mean=list(settings.mean),
        image_std=list(settings.deviation),
    )
    ramp = torch.linspace(0, 255, size[1]).expand(3, *size).to(torch.uint8)
    batch = torch.stack([ramp, pictures(1, *size)[0]])
    images = [Image.fromarray(picture.permute(1, 2, 0).numpy()) for picture in batch]
    expected = torch.as_tensor(np.stack(library(images=images)["pixel_values"]))
    step = 1 / 255 / 0.26  # Pillow resizes in integers: one level of 255 apart here and there
    difference = (settings.prepare(batch) - expected).abs()
    assert difference.max() <= 1.01 * step
    assert difference.mean() < 0.1 * step


def test_wans_picture_features_are_those_of_the_library(
    folders: dict[str, Path], both: dict[str, Encoders]
) -> None:
    """Of a square picture, of which the published settings cut nothing away."""
    square = pictures(1, 32, 32)
    image = Image.fromarray(square[0].permute(1, 2, 0).numpy())
    with torch.no_grad():
        expected = wan_pipeline(folders["wan"]).encode_image(image)
    found = both["wan"].image(square, torch.zeros(1, 2), torch.tensor([False]))
    assert found.shape == (1, 17, 32)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_the_marker_is_a_ring_at_the_point() -> None:
    grey = torch.full((3, 200, 400), 90, dtype=torch.uint8)
    marked = draw_marker(grey, 0.25, 0.75)
    assert (grey == 90).all()  # a copy
    red = (marked == torch.tensor([255, 0, 0], dtype=torch.uint8)[:, None, None]).all(0)
    rows, columns = torch.nonzero(red, as_tuple=True)
    # Radius 0.05 of 200 px around (100, 150), in the middle between pixels 99 and 100, 149 and 150.
    assert (rows.min(), rows.max()) == (140, 159) and (columns.min(), columns.max()) == (90, 109)
    assert red[150, 90] and red[140, 100] and not red[145:155, 95:105].any()
    assert torch.equal(marked[:, ~red], grey[:, ~red])
    assert 100 < red.sum() < 200  # 2 pi r times 2.5 px is 137


def test_the_marker_at_the_border_and_on_a_small_picture() -> None:
    dark = torch.zeros((3, 64, 64), dtype=torch.uint8)
    corner = draw_marker(dark, 1.0, 0.0)
    assert corner[0].sum() > 0
    assert corner[0, 5:].sum() == 0 and corner[0, :, :58].sum() == 0
    assert draw_marker(dark, 0.5, 0.5)[0, 32, 29] == 255


def test_the_marker_reaches_the_features_of_its_own_picture_alone(both: dict[str, Encoders]) -> None:
    images = pictures(1, 48, 80).repeat(3, 1, 1, 1)
    points = torch.tensor([[0.5, 0.5], [0.5, 0.5], [0.9, 0.1]])
    found = both["wan"].image(images, points, torch.tensor([False, True, True]))
    plain = both["wan"].image(images, points, torch.tensor([False, False, False]))
    torch.testing.assert_close(found[0], plain[0])
    assert not torch.allclose(found[1], plain[1], atol=1e-3)
    assert not torch.allclose(found[1], found[2], atol=1e-3)


# What a step is given


def batch_of(count: int = 2, frames: int = 9, height: int = 64, width: int = 64) -> Batch:
    drawn = torch.Generator().manual_seed(3)
    yes = torch.ones(count, dtype=torch.bool)
    return Batch(
        sample_ids=[f"clip-{i}" for i in range(count)],
        runs=["run"] * count,
        slots=list(range(count)),
        video=pictures(count * frames, height, width).unflatten(0, (count, frames)).transpose(1, 2),
        reference=pictures(count, height, width, seed=1),
        known=torch.arange(1, count + 1),
        prompts=["hello"] * count,
        points=torch.full((count, 2), 0.5),
        identity=torch.randn((count, 8), generator=drawn),
        attributes=torch.randn((count, 5, 6), generator=drawn),
        audio=torch.randn((count, frames, 7), generator=drawn),
        has_points=yes,
        has_identity=yes,
        has_attributes=yes,
        has_audio=yes,
        has_reference=yes,
    )


@pytest.mark.parametrize("backbone", BACKBONES)
def test_encode(both: dict[str, Encoders], backbone: str) -> None:
    encoders, batch = both[backbone], batch_of()
    latents, conditions = encode(batch, encoders)
    video = to_unit(batch.video)
    assert torch.equal(latents, encoders.latents(video))
    # The reference never bears the marker, CLIP's picture does.
    assert torch.equal(conditions.reference, encoders.latents(to_unit(batch.reference)[:, :, None]))
    assert torch.equal(conditions.image, encoders.image(batch.reference, batch.points, batch.has_points))
    assert torch.equal(conditions.image_latents, encoders.image_latents(video, batch.known, 9))
    assert torch.equal(conditions.known, batch.known)
    assert torch.equal(conditions.text, encoders.text(batch.prompts)[0])
    assert torch.equal(conditions.audio, batch.audio) and torch.equal(conditions.points, batch.points)


def test_a_dropped_reference_is_zero(both: dict[str, Encoders]) -> None:
    batch = replace(batch_of(), has_reference=torch.tensor([True, False]))
    latents, conditions = encode(batch, both["wan"])
    assert conditions.reference[0].any() and not conditions.reference[1].any()
    assert conditions.image[0].any() and not conditions.image[1].any()
    assert latents[1].any()


def test_latents_of_the_cache_are_taken_as_they_are(both: dict[str, Encoders]) -> None:
    latents, given = torch.randn(2, 16, 3, 8, 8), torch.randn(2, 16, 3, 8, 8)
    reference, image = torch.randn(2, 16, 1, 8, 8), torch.randn(2, 17, 32)
    text, mask = torch.randn(2, 512, 32).bfloat16(), torch.ones(2, 512, dtype=torch.bool)
    batch = batch_of()
    batch = replace(
        batch,
        video=batch.video[:, :, :0],
        reference=batch.reference[:, :, :0, :0],
        has_reference=torch.tensor([True, False]),
        latents=latents,
        image_latents=given,
        reference_latent=reference,
        image=image,
        text=text,
        text_mask=mask,
    )
    found, conditions = encode(batch, both["wan"])
    assert torch.equal(found, latents) and torch.equal(conditions.image_latents, given)
    assert torch.equal(conditions.text, text.float()) and torch.equal(conditions.text_mask, mask)
    for kept, of_cache in ((conditions.reference, reference), (conditions.image, image)):
        assert torch.equal(kept[0], of_cache[0]) and not kept[1].any()


def test_a_clip_that_is_to_be_made_has_its_known_frames_alone(both: dict[str, Encoders]) -> None:
    for backbone, step in (("wan", 4), ("ltx", 8)):
        whole = replace(batch_of(frames=2 * step + 1), known=torch.tensor([2, 2]))
        few = replace(whole, video=whole.video[:, :, : step + 1])
        expected, found = (encode_conditions(batch, both[backbone]) for batch in (whole, few))
        torch.testing.assert_close(found.image_latents, expected.image_latents)
        assert found.image_latents.shape[2] == 3


# z_img


@pytest.mark.parametrize("frames", [9, 25])
def test_z_img_and_mask_are_those_of_wans_pipeline(both: dict[str, Encoders], frames: int) -> None:
    """Of a first frame: mask and latents that diffusers gives the image-to-video transformer."""
    encoders = both["wan"]
    video = to_unit(pictures(frames, 48, 80)[None].transpose(1, 2))
    scheduler = FlowMatchEulerDiscreteScheduler()
    pipeline = WanImageToVideoPipeline(None, None, encoders.vae, scheduler)
    _, condition = pipeline.prepare_latents(video[:, :, 0], 1, 16, 48, 80, frames, torch.float32, "cpu")
    given = encoders.image_latents(video, torch.tensor([1]), frames)
    torch.testing.assert_close(given, condition[:, 4:], atol=1e-6, rtol=1e-5)
    mask = known_steps(torch.tensor([1]), given.shape[2]).expand(-1, 4, -1, 6, 10)
    assert torch.equal(mask.float(), condition[:, :4])


def test_known_frames_are_encoded_with_grey_ones_behind_them(both: dict[str, Encoders]) -> None:
    encoders = both["wan"]
    video = to_unit(pictures(3 * 9, 48, 80).unflatten(0, (3, 9)).transpose(1, 2))
    given = encoders.image_latents(video, torch.tensor([1, 2, 0]), 9)
    for index, frames in enumerate((1, 5)):
        grey = video[index : index + 1].clone()
        grey[:, :, frames:] = 0
        torch.testing.assert_close(given[index], encoders.latents(grey)[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(given[1, :, :2], encoders.latents(video[1:2])[0, :, :2], atol=1e-5, rtol=0)
    assert not given[2].any()


def test_a_long_grey_tail_stays_as_it_is(both: dict[str, Encoders]) -> None:
    """The published VAE's depth in time, in few channels: what is held is what it would have said."""
    torch.manual_seed(0)
    parts = random_parts("wan")
    deep = type(parts["vae"])(base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=2)
    encoders = copy.copy(both["wan"])
    encoders.vae = deep.eval().requires_grad_(False)
    video = torch.zeros(1, 3, 145, 16, 16)
    video[:, :, :5] = to_unit(pictures(5, 16, 16)[None].transpose(1, 2))
    given = encoders.image_latents(video[:, :, :5], torch.tensor([2]), 145)
    torch.testing.assert_close(given, encoders.latents(video))
    assert torch.equal(given[:, :, 33:], given[:, :, 32:33].expand(-1, -1, 4, -1, -1))
    assert not torch.allclose(given[:, :, 10], given[:, :, 32], atol=1e-3)


def test_ltx_knows_clean_latents_and_nothing_behind_them(both: dict[str, Encoders]) -> None:
    encoders = both["ltx"]
    video = to_unit(pictures(3 * 17, 64, 64).unflatten(0, (3, 17)).transpose(1, 2))
    given, whole = encoders.image_latents(video, torch.tensor([1, 2, 0]), 17), encoders.latents(video)
    torch.testing.assert_close(given[0, :, :1], whole[0, :, :1], atol=1e-5, rtol=0)
    torch.testing.assert_close(given[1, :, :2], whole[1, :, :2], atol=1e-5, rtol=0)
    assert given.shape == whole.shape
    assert not given[0, :, 1:].any() and not given[1, :, 2:].any() and not given[2].any()


# Checkpoints that cannot be used


def test_a_missing_part_is_named(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"nowhere/image_encoder: no CLIP .*model\.image_encoder"):
        Encoders.load(ModelConfig(random="tiny"), tmp_path / "nowhere")
    (tmp_path / "image_encoder").symlink_to(folders["wan"] / "image_encoder")
    with pytest.raises(WeightsError, match="no tokenizer"):
        Encoders.load(ModelConfig(random="tiny"), tmp_path)
    (tmp_path / "tokenizer").symlink_to(folders["wan"] / "tokenizer")
    with pytest.raises(WeightsError, match=r"vae: no config\.json of AutoencoderKLWan"):
        Encoders.load(ModelConfig(random="tiny"), tmp_path)


def test_clip_may_lie_elsewhere(folders: dict[str, Path], both: dict[str, Encoders], tmp_path: Path) -> None:
    import shutil

    elsewhere = tmp_path / "clip"
    shutil.copytree(folders["wan"] / "image_encoder", elsewhere)
    with pytest.raises(WeightsError, match="not the settings of a CLIP image processor"):
        Encoders.load(
            ModelConfig(backbone="ltx", random="tiny", image_encoder=str(elsewhere)), folders["ltx"]
        )
    shutil.copy(folders["wan"] / "image_processor" / "preprocessor_config.json", elsewhere)
    encoders = Encoders.load(
        ModelConfig(backbone="ltx", random="tiny", image_encoder=str(elsewhere)), folders["ltx"]
    )
    given = pictures(1, 32, 32), torch.zeros(1, 2), torch.tensor([False])
    torch.testing.assert_close(encoders.image(*given), both["wan"].image(*given))


def test_pickles_and_missing_weights_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    import shutil

    from diffusers import AutoencoderKLWan
    from safetensors.torch import load_file, save_file
    from transformers import UMT5EncoderModel

    for kind, part, name in (
        (AutoencoderKLWan, "vae", "diffusion_pytorch_model"),
        (UMT5EncoderModel, "text_encoder", "model"),
    ):
        lacking, pickled = tmp_path / f"{part}-lacking", tmp_path / f"{part}-pickled"
        for target in (lacking, pickled):
            target.mkdir()
            shutil.copy(folders["wan"] / part / "config.json", target)
        weights = load_file(folders["wan"] / part / f"{name}.safetensors")
        torch.save(weights, pickled / f"{name}.bin")
        torch.save(weights, pickled / "pytorch_model.bin")
        with pytest.raises(WeightsError, match="cannot be loaded from safetensors"):
            load_part(kind, pickled)
        gone = sorted(name for name in weights if name.endswith("weight"))[0]
        del weights[gone]
        save_file(weights, lacking / f"{name}.safetensors", metadata={"format": "pt"})
        with pytest.raises(WeightsError, match=f"1 weights of {kind.__name__} .* {gone}"):
            load_part(kind, lacking)
