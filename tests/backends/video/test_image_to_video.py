"""Image-to-video: sizes, the warp on real portraits, and Wan's pipeline on tiny random weights."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from backends.store.weights import Weights
from backends.video.image_to_video import AREA_480P, Animation, fit_size, resized
from backends.video.image_warp import ImageWarp
from backends.video.wan import REMEMBERED, WanImageToVideo
from backends.video.wan_offload import OFFLOADS, choose_offload, place, sizes
from media.picture import read_picture
from prompts.vocabulary import VOCABULARY
from tests.support.tiny_wan import edit_index, save_tiny_lightning, save_tiny_wan

GIB = 1024**3


def plain(height: int = 96, width: int = 64) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


ASKED = Animation(plain(), "She smiles.", "blurred", seed=7, point=(0.5, 0.3), interaction_type="kissed")


@pytest.mark.parametrize(
    ("width", "height", "expected"),
    [
        (480, 832, (480, 832)),
        (832, 480, (832, 480)),
        (1280, 1920, (512, 768)),  # 2:3 exactly
        (413, 551, (528, 704)),  # small ones are enlarged
        (3, 3, (624, 624)),
        (5000, 1, (24960, 16)),
    ],
)
def test_fit_size(width, height, expected):
    assert fit_size(width, height, AREA_480P, 16) == expected


def test_fit_size_keeps_the_shape():
    for aspect in np.geomspace(0.5, 2, 301):
        width, height = fit_size(round(3000 * aspect), 3000, AREA_480P, 16)
        assert width % 16 == height % 16 == 0
        assert 0.85 * AREA_480P < width * height <= AREA_480P
        assert abs(np.log(width / height / aspect)) < 0.0151
        width, height = fit_size(round(3000 * aspect), 3000, AREA_480P, 2)
        assert abs(np.log(width / height / aspect)) < 0.002
    with pytest.raises(ValueError, match="100 pixels do not hold 16x16"):
        fit_size(10, 10, 100, 16)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"interaction_type": "hugged"}, "no interaction type 'hugged'"),
        ({"interaction_type": None}, "no interaction type None"),
        ({"point": (0.5, 1.2)}, "must lie in the picture"),
        ({"point": (float("nan"), 0.2)}, "must lie in the picture"),
        ({"prompt": " "}, "prompt is empty"),
        ({"seed": -1}, "seed"),
        ({"image": np.zeros((4, 4), np.uint8)}, "uint8"),
        ({"image": np.zeros((4, 4, 3), np.float32)}, "float32"),
    ],
)
def test_wrong_requests(wrong, message):
    with pytest.raises(ValueError, match=message):
        replace(ASKED, **wrong)


def motion(frames: np.ndarray) -> np.ndarray:
    """Mean absolute difference of neighbouring frames, [H, W]."""
    return np.abs(np.diff(frames.astype(np.int16), axis=0)).mean((0, 3))


def distance(frames: np.ndarray, point: tuple[float, float]) -> np.ndarray:
    """Of each pixel to the point, in shorter sides."""
    height, width = frames.shape[1:3]
    y, x = np.mgrid[:height, :width]
    return np.hypot(x - point[0] * width, y - point[1] * height) / min(height, width)


@pytest.fixture(scope="module")
def obama(samples) -> Animation:
    image = read_picture(samples / "images" / "facerec_obama_official.jpg")
    return replace(ASKED, image=image, point=(0.6, 0.22))


def test_warp_moves_around_the_point(obama):
    moved = {}
    for kind in ("kissed", "stroked", "tapped", "punched"):
        asked = replace(obama, interaction_type=kind)
        frames = ImageWarp().animate(asked)
        assert frames.shape == (33, 702, 562, 3) and frames.dtype == np.uint8
        np.testing.assert_array_equal(frames[0], resized(obama.image, 562, 702))
        amount, far = motion(frames), distance(frames, obama.point)
        moved[kind] = amount[far < 0.2].mean()
        assert moved[kind] > 3 * amount[far > 0.6].mean()
        assert 0 < amount[far > 0.6].mean() < 1.5
    assert moved["punched"] > 2 * max(moved["kissed"], moved["stroked"], moved["tapped"])


def test_warp_direction_and_speed(obama):
    """A blow to the right of the picture drives the face to the left, at once; a kiss draws it there."""

    def path(kind: str) -> np.ndarray:
        frames = ImageWarp().animate(replace(obama, interaction_type=kind, point=(0.65, 0.2)))
        grey = [cv2.cvtColor(cv2.pyrDown(frame), cv2.COLOR_RGB2GRAY) for frame in frames]
        flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        face = (slice(40, 130), slice(115, 215))
        return np.array([2 * np.median(flow.calc(grey[0], g, None)[..., 0][face]) for g in grey[1:]])

    blow, kiss = path("punched"), path("kissed")
    assert blow.min() < -15 and 2 <= blow.argmin() <= 4  # pixels; 0.2 s are 3 frames
    assert blow[-1] > 0.5 * blow.min()
    assert 4 < kiss.max() < 15 and kiss.argmax() > 14
    assert np.abs(np.diff(kiss)).max() < 1.5 < np.abs(np.diff(blow)).max()


def test_warp_is_seeded_and_has_no_borders(obama):
    warp = ImageWarp(num_frames=9, max_area=160 * 200)
    white = replace(obama, image=np.full((200, 160, 3), 255, np.uint8), interaction_type="punched")
    for point in ((0.0, 0.0), (1.0, 1.0), (0.5, 0.5)):
        assert warp.animate(replace(white, point=point)).min() == 255
    one, same, other = (warp.animate(replace(obama, seed=seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one[1:].astype(int) - other[1:]).mean((1, 2, 3)).min() > 0
    for kind in VOCABULARY.types:
        assert warp.animate(replace(obama, interaction_type=kind)).shape[0] == 9
    assert warp.name == "stand_in_image_warp" and warp.fps == 16.0
    assert len({ImageWarp().id, warp.id, ImageWarp(fps=8).id, ImageWarp(num_frames=9).id}) == 4


def test_choose_offload():
    """The real sizes: two experts of 26.6 GiB, a text encoder of 10.6 GiB and the VAE in float32."""
    parts = {"transformer": 26.6, "transformer_2": 26.6, "text_encoder": 10.6, "vae": 0.5}
    sizes = {name: round(size * GIB) for name, size in parts.items()}
    working = round(14.4 * GIB)
    assert choose_offload(80 * GIB, sizes, working) == "none"
    assert choose_offload(78 * GIB, sizes, working) == "text_encoder"
    assert choose_offload(69 * GIB, sizes, working) == "text_encoder"
    assert choose_offload(68 * GIB, sizes, working) == "model"
    assert choose_offload(42 * GIB, sizes, working) == "model"
    assert choose_offload(41 * GIB, sizes, working) == "sequential"
    assert choose_offload(0, sizes, working) == "sequential"
    # A small clip: the text encoder must fit beside the experts while it reads the prompts.
    assert choose_offload(65 * GIB, sizes, 2 * GIB) == "text_encoder"
    assert choose_offload(64 * GIB, sizes, 2 * GIB) == "model"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Iterator[Path]:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # tensors this small only wait for each other
    yield save_tiny_wan(tmp_path_factory.mktemp("tiny") / "wan")
    torch.set_num_threads(threads)


def small(checkpoint: Path, **settings) -> WanImageToVideo:
    return WanImageToVideo(
        Weights("wan2.2-i2v-a14b", checkpoint),
        **{"num_frames": 9, "num_inference_steps": 4, "max_area": 64 * 48, "max_prompt_tokens": 64}
        | settings,
    )


@pytest.fixture(scope="module")
def loaded(checkpoint) -> WanImageToVideo:
    model = pickle.loads(pickle.dumps(small(checkpoint)))
    model.setup()
    return model


@pytest.fixture
def wan(loaded) -> Iterator[WanImageToVideo]:
    """The loaded model; its settings are put back."""
    before = dict(vars(loaded))
    yield loaded
    vars(loaded).update(before)


def test_wan_makes_a_clip(wan):
    frames = wan.animate(ASKED)
    assert frames.dtype == np.uint8 and frames.shape == (9, 48, 32, 3)
    assert frames.std() > 5 and frames[0].std() > 1
    assert wan.fps == 16.0
    np.testing.assert_array_equal(frames, wan.animate(ASKED))
    assert (frames != wan.animate(replace(ASKED, seed=8))).mean() > 0.2


def test_wan_reads_all_it_is_given(wan):
    """Picture, both prompts and both guidance scales change the clip; point and type are not for it."""
    frames = wan.animate(ASKED)
    for change in ({"prompt": "He weeps."}, {"negative_prompt": "sharp"}, {"image": plain()[::-1].copy()}):
        assert (frames != wan.animate(replace(ASKED, **change))).mean() > 0.05, change
    same = wan.animate(replace(ASKED, point=(0.1, 0.1), interaction_type="kicked"))
    np.testing.assert_array_equal(frames, same)
    for name in ("guidance_scale", "guidance_scale_2"):
        setattr(wan, name, 2.0)
        assert (frames != wan.animate(ASKED)).mean() > 0.05, name
        setattr(wan, name, 3.5)
    np.testing.assert_array_equal(frames, wan.animate(ASKED))


def test_wan_uses_both_experts(wan):
    """Four evenly spaced steps from 1, shifted to 5u / (1 + 4u) of 1000; the experts change at 900."""
    steps = {"transformer": [], "transformer_2": []}
    hooks = [
        getattr(wan._pipe, name).register_forward_pre_hook(
            lambda module, args, kwargs, seen=seen: seen.append(int(kwargs["timestep"][0])), with_kwargs=True
        )
        for name, seen in steps.items()
    ]
    wan.animate(ASKED)
    for hook in hooks:
        hook.remove()
    u = np.linspace(1, 0.001, 5)[:4]
    first, second, third, fourth = (int(t) for t in 5 * u / (1 + 4 * u) * 999.999)
    # Twice each: with the prompt and with the negative one. A shift of 3 would end at 500.
    assert (first, second, third, fourth) == (999, 937, 833, 625)
    assert steps["transformer"] == [first, first, second, second]
    assert steps["transformer_2"] == [third, third, fourth, fourth]
    assert wan._pipe.scheduler.config.flow_shift == 5.0


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(60, 90, (32, 48)), (90, 60, (48, 32)), (4, 4, (48, 48)), (37, 111, (32, 96)), (1000, 700, (64, 48))],
)
def test_wan_sizes(wan, height, width, expected):
    wan.num_inference_steps = 1
    wan.num_frames = 5
    frames = wan.animate(replace(ASKED, image=plain(height, width)))
    assert frames.shape[1:3] == expected and len(frames) == 5


def test_wan_out_of_memory_tries_again_with_less(wan):
    import torch

    expected = wan.animate(ASKED)
    attempts = []

    def full(*_):
        attempts.append(wan.offload)
        if len(attempts) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    hook = wan._pipe.transformer_2.register_forward_pre_hook(full)
    np.testing.assert_array_equal(wan.animate(ASKED), expected)
    assert attempts == ["none", *["text_encoder"] * 4]
    wan.animate(ASKED)
    assert wan.offload == "text_encoder" and len(attempts) == 9
    hook.remove()

    def always(*_):
        attempts.append(wan.offload)
        raise torch.OutOfMemoryError("CUDA out of memory.")

    hook = wan._pipe.transformer.register_forward_pre_hook(always)
    with pytest.raises(torch.OutOfMemoryError):
        wan.animate(ASKED)
    hook.remove()
    assert attempts[9:] == ["text_encoder", "model", "sequential"]


@pytest.mark.parametrize("quantisation", [None, "float8"])
def test_wan_offload_of_models(checkpoint, quantisation):
    """accelerate's hooks move parts to and fro; between the CPU and itself here, the frames are the same."""
    import accelerate
    import torch

    wan = small(checkpoint, quantisation=quantisation)
    wan.setup()
    wan._device = "cpu:0"
    clips = []
    for wan.offload in OFFLOADS[:-1]:
        wan._is_placed = False
        wan._embeddings.clear()
        clips.append(wan.animate(ASKED))
        assert hasattr(wan._pipe.transformer_2, "_hf_hook") == (wan.offload == "model")
        np.testing.assert_array_equal(clips[0], clips[-1])
    # Layer by layer; not the text encoder, whose tied weights accelerate cannot take from a CPU to itself.
    place(wan._pipe, "none", "cpu")
    for part in (wan._pipe.transformer, wan._pipe.transformer_2):
        accelerate.cpu_offload(part, torch.device("cpu"))
    np.testing.assert_array_equal(clips[0], wan.animate(ASKED))
    assert wan._pipe.transformer.blocks[0].attn1.to_q.weight.is_meta


def test_wan_gives_what_the_pipeline_gives_for_the_texts(wan):
    import torch

    frames = wan._pipe(
        image=Image.fromarray(resized(ASKED.image, 32, 48)),
        prompt=ASKED.prompt,
        negative_prompt=ASKED.negative_prompt,
        width=32,
        height=48,
        num_frames=9,
        num_inference_steps=4,
        guidance_scale=3.5,
        guidance_scale_2=3.5,
        generator=torch.Generator().manual_seed(7),
        max_sequence_length=64,
        output_type="np",
    ).frames[0]
    np.testing.assert_array_equal((frames * 255).round().astype(np.uint8), wan.animate(ASKED))


def test_wan_encodes_a_prompt_once(wan):
    wan.num_inference_steps, wan.num_frames = 1, 5
    wan._embeddings.clear()
    read = []
    hook = wan._pipe.text_encoder.register_forward_pre_hook(lambda _, args: read.append(len(args[0])))
    for prompt in ("one", "two", "one"):
        wan.animate(replace(ASKED, prompt=prompt))
    assert read == [1, 1, 1]  # one, the negative prompt, two
    for number in range(REMEMBERED):
        wan._embed(str(number))
    assert len(wan._embeddings) == REMEMBERED and read == [1] * (3 + REMEMBERED)
    wan._embed("one")
    hook.remove()
    assert len(read) == 4 + REMEMBERED


@pytest.fixture(scope="module")
def lightning(tmp_path_factory) -> Path:
    return save_tiny_lightning(tmp_path_factory.mktemp("tiny") / "lightning")


def test_wan_with_distilled_weights(checkpoint, lightning, wan, capfd):
    from safetensors.torch import load_file

    given = Weights("wan2.2-lightning", lightning, "ef56")
    fast = small(checkpoint, distilled=given, num_inference_steps=None)
    assert (fast.num_inference_steps, fast.guidance_scale, fast.guidance_scale_2) == (4, 1.0, 1.0)
    fast.setup()
    for part, file in (("transformer", "high_noise_model"), ("transformer_2", "low_noise_model")):
        lora = load_file(lightning / f"{file}.safetensors")
        for theirs, ours in (("self_attn.q", "attn1.to_q"), ("ffn.2", "ffn.net.2")):
            name = f"diffusion_model.blocks.1.{theirs}"
            added = lora[f"{name}.lora_up.weight"] @ lora[f"{name}.lora_down.weight"] * 2 / 4
            before, after = (
                dict(getattr(model._pipe, part).named_parameters())[f"blocks.1.{ours}.weight"]
                for model in (wan, fast)
            )
            np.testing.assert_allclose(after.detach(), before.detach() + added, atol=1e-5)
        assert not hasattr(getattr(fast._pipe, part), "peft_config")
    seen = []
    for part in (fast._pipe.transformer, fast._pipe.transformer_2):
        part.register_forward_pre_hook(
            lambda module, args, kwargs: seen.append((module, float(kwargs["timestep"][0]))), with_kwargs=True
        )
    frames = fast.animate(ASKED)
    high, low = fast._pipe.transformer, fast._pipe.transformer_2
    # The times of its training, each once: no guidance. The experts change at 900.
    assert [module for module, _ in seen] == [high, high, low, low]
    np.testing.assert_allclose([time for _, time in seen], [1000, 937.5, 833.333, 625], atol=0.01)
    np.testing.assert_array_equal(frames, fast.animate(replace(ASKED, negative_prompt="sharp " * 99)))
    assert (frames != wan.animate(ASKED)).mean() > 0.2 and frames.std() > 5
    assert capfd.readouterr() == ("", "")


def test_wan_distilled_is_named_and_checked(checkpoint, lightning, tmp_path):
    base = Weights("wan2.2-i2v-a14b", checkpoint, "ab12")
    given = Weights("wan2.2-lightning", lightning, "ef56")
    fast = WanImageToVideo(base, distilled=given)
    assert fast.name == "wan2.2-i2v-a14b+wan2.2-lightning"
    assert fast.id == (
        "wan(wan2.2-i2v-a14b@ab12, frames=81, steps=4, guidance=1/1, flow_shift=5, max_area=399360, "
        "tokens=512, distilled=wan2.2-lightning@ef56)"
    )
    assert fast.published_seconds("H100") is None
    random = WanImageToVideo(base, distilled=replace(given, is_random=True))
    assert random.name == "stand_in_random_wan2.2-i2v-a14b+wan2.2-lightning"
    assert "distilled=stand_in_random_wan2.2-lightning@ef56" in random.id
    with pytest.raises(ValueError, match=r"above 1 \(or both 1, which turns it off\), got 1"):
        WanImageToVideo(base, distilled=given, guidance_scale_2=2.0)
    with pytest.raises(ValueError, match=r"guidance_scale must be above 1, got 1"):
        WanImageToVideo(base, guidance_scale=1.0, guidance_scale_2=1.0)
    shutil.copy(lightning / "high_noise_model.safetensors", tmp_path)
    with pytest.raises(FileNotFoundError, match="low_noise_model"):
        small(checkpoint, distilled=replace(given, folder=tmp_path)).setup()


def test_wan_attention_backends(checkpoint, wan):
    from diffusers.models.attention_dispatch import _AttentionBackendRegistry

    expected = wan.animate(ASKED)
    before = _AttentionBackendRegistry.get_active_backend()
    used = []

    def look(*_):
        used.append(str(_AttentionBackendRegistry.get_active_backend()[0].value))

    math = small(checkpoint, attention="_native_math")
    math.setup()
    math._pipe.transformer.register_forward_pre_hook(look)
    frames = math.animate(ASKED)
    assert used == ["_native_math"] * 4
    assert np.abs(frames.astype(int) - expected).max() <= 2  # rounding
    assert _AttentionBackendRegistry.get_active_backend() == before
    with pytest.raises(ValueError, match=r"no attention backend 'nativ'; did you mean 'native'\?"):
        small(checkpoint, attention="nativ").setup()
    with pytest.raises(ValueError, match=r"'flash' does not work on cpu: .* install `flash-attn"):
        small(checkpoint, attention="flash").setup()
    with pytest.raises(ValueError, match=r"'_native_cudnn' does not work on cpu: No viable backend"):
        small(checkpoint, attention="_native_cudnn").setup()


def test_wan_in_float8(checkpoint, wan):
    import torch

    eight = small(checkpoint, quantisation="float8")
    eight.setup()
    block = eight._pipe.transformer.blocks[0]
    assert block.attn1.to_q.weight.dtype == block.ffn.net[2].weight.dtype == torch.float8_e4m3fn
    assert block.norm2.weight.dtype == block.scale_shift_table.dtype == torch.float32
    assert sizes(eight._pipe)["transformer"] < 0.75 * sizes(wan._pipe)["transformer"]
    frames, expected = eight.animate(ASKED), wan.animate(ASKED)
    assert frames.std() > 5 and (frames != expected).any()
    with pytest.raises(ValueError, match="quantisation must be float8 or null, got 'int4'"):
        small(checkpoint, quantisation="int4")
    with pytest.raises(ValueError, match="compile_blocks gains nothing with float8"):
        small(checkpoint, quantisation="float8", compile_blocks=True)


@pytest.mark.slow
def test_wan_compiled(checkpoint, wan):
    wan.num_inference_steps = 1
    compiled = small(checkpoint, compile_blocks=True, num_inference_steps=1)
    compiled.setup()
    frames = compiled.animate(ASKED)
    assert compiled._pipe.transformer.blocks[0]._compiled_call_impl is not None
    assert np.abs(frames.astype(int) - wan.animate(ASKED)).max() <= 2


def test_wan_says_that_there_is_no_compiler(checkpoint, tmp_path):
    """In a process of its own: torch remembers the compiler, and what it compiled."""
    script = (
        "from backends.video.wan import WanImageToVideo; from backends.store.weights import Weights; "
        "from pathlib import Path; import sys; "
        "WanImageToVideo(Weights('w', Path(sys.argv[1])), compile_blocks=True, device='cpu').setup()"
    )
    without = {
        "PATH": str(tmp_path),
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache"),
        "CXX": "no-such-g++",
    }
    done = subprocess.run(
        [sys.executable, "-c", script, str(checkpoint)],
        env=os.environ | without,
        capture_output=True,
        text=True,
    )
    said = done.stderr.splitlines()[-1]
    assert done.returncode == 1 and said.startswith(
        "ValueError: compile_blocks: torch.compile does not work on cpu: "
    ), done.stderr
    assert "build-essential" in said


def test_wan_refuses_other_checkpoints(checkpoint, tmp_path):
    import json

    def changed(name: str, **changes) -> WanImageToVideo:
        folder = Path(shutil.copytree(checkpoint, tmp_path / name))
        edit_index(folder, **changes)
        return small(folder)

    with pytest.raises(ValueError, match="has no transformer_2; needed is Wan2"):
        changed("one", transformer_2=[None, None]).setup()
    with pytest.raises(ValueError, match="has no boundary_ratio"):
        changed("boundary", boundary_ratio=None).setup()
    text_only = changed("text")
    path = tmp_path / "text" / "transformer" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"in_channels": 16}))
    with pytest.raises(ValueError, match="takes no picture: 16 input channels instead of 36"):
        text_only.setup()


def test_wan_refuses_what_would_be_changed_silently(checkpoint, wan):
    with pytest.raises(ValueError, match="guidance_scale must be above 1"):
        small(checkpoint, guidance_scale=1.0)
    with pytest.raises(ValueError, match=r"num_frames must be 4 n \+ 1, got 10"):
        small(checkpoint, num_frames=10).setup()
    long = "a" * 600
    with pytest.raises(ValueError, match=r"the prompt has 60\d tokens; at most 64 are read"):
        wan.animate(replace(ASKED, prompt=long))
    with pytest.raises(ValueError, match="the negative prompt has"):
        wan.animate(replace(ASKED, negative_prompt=long))


def test_wan_id_and_silence(checkpoint, capfd):
    settings = {
        "model": Weights("other", checkpoint),
        "num_frames": 5,
        "num_inference_steps": 3,
        "guidance_scale": 4.0,
        "guidance_scale_2": 4.0,
        "flow_shift": 3.0,
        "max_area": 1280 * 720,
        "max_prompt_tokens": 226,
        "distilled": Weights("fast", checkpoint),
        "quantisation": "float8",
        "attention": "sage",
    }
    given = {"model": Weights("wan2.2-i2v-a14b", checkpoint, "ab12")}
    ids = {WanImageToVideo(**given | {name: value}).id for name, value in settings.items()}
    ids |= {WanImageToVideo(Weights("wan2.2-i2v-a14b", checkpoint, "cd34")).id}
    asked = WanImageToVideo(**given)
    assert len(ids | {asked.id}) == len(settings) + 2
    elsewhere = Weights("wan2.2-i2v-a14b", Path("/elsewhere"), "ab12")
    # What differs by rounding alone is left out, as the device is.
    rounded = {"device": "cpu", "attention": "_flash_3", "compile_blocks": True}
    assert WanImageToVideo(elsewhere, **rounded).id == asked.id
    assert asked.id == (
        "wan(wan2.2-i2v-a14b@ab12, frames=81, steps=40, guidance=3.5/3.5, flow_shift=5, max_area=399360, "
        "tokens=512)"
    )
    assert asked.name == "wan2.2-i2v-a14b"
    random = WanImageToVideo(Weights("wan2.2-i2v-a14b", checkpoint, is_random=True))
    assert random.name == "stand_in_random_wan2.2-i2v-a14b"  # every screen drops its clips
    wan = small(checkpoint)
    wan.setup()
    wan.animate(ASKED)
    said = capfd.readouterr()
    assert said.out == "" and said.err == ""
