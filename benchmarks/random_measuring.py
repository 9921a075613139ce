"""Random weights of the networks that an evaluation measures with, laid out as those of the model store.

Each takes an empty folder. `small` keeps the architecture and the file layout, for tests on a CPU.
"""

from __future__ import annotations

from pathlib import Path


def clip_archive(folder: Path, small: bool = False, name: str = "ViT-B-32") -> None:
    """One of OpenAI's archives, TorchScript with nothing but weights; small: two layers, vectors of 16."""
    import open_clip
    import torch

    model = open_clip.get_model_config(f"{name}-quickgelu")
    if small:
        model = {
            "embed_dim": 16,
            "quick_gelu": True,
            "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
            "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1},
        }
    torch.manual_seed(0)
    holder = torch.nn.Module()
    for path, value in open_clip.CLIP(**model).state_dict().items():
        *above, last = path.split(".")
        part = holder
        for step in above:
            if step not in part._modules:
                part.add_module(step, torch.nn.Module())
            part = part.get_submodule(step)
        part.register_buffer(last, value)
    torch.jit.script(holder).save(folder / f"{name}.pt")


def laion_aesthetic(folder: Path, small: bool = False) -> None:
    """LAION's head beside its CLIP."""
    import torch

    clip_archive(folder, small, "ViT-L-14")
    torch.manual_seed(1)
    head = torch.nn.Linear(16 if small else 768, 1)
    torch.save(head.state_dict(), folder / "sa_0_4_vit_l_14_linear.pth")


def inception(folder: Path, small: bool = False) -> None:
    """FID's Inception-v3, 95 MB. Its size cannot be chosen."""
    import torch

    from backends.pictures.inception import FILE, build_net

    torch.manual_seed(0)
    net = build_net()
    for part in net.modules():
        if isinstance(part, torch.nn.Conv2d):  # else nothing is left of a picture after 90 layers
            torch.nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
    torch.save(net.state_dict(), folder / FILE)


def i3d(folder: Path, small: bool = False) -> None:
    """An archive that is called as the published I3D is: two layers over space and time, 400 values."""
    import torch

    from backends.pictures.i3d import FILE

    class TwoLayers(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = torch.nn.Conv3d(3, 16, (3, 7, 7), stride=(1, 4, 4), padding=(1, 3, 3))
            self.second = torch.nn.Conv3d(16, 400, 3, stride=2)

        def forward(
            self, x: torch.Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False
        ) -> torch.Tensor:
            if rescale:
                x = 2 * x / 255 - 1
            seen = self.second(torch.relu(self.first(x))).mean([2, 3, 4])
            return seen if return_features else torch.softmax(seen, 1)

    torch.manual_seed(0)
    torch.jit.script(TwoLayers()).save(folder / FILE)


def lpips_alexnet(folder: Path, small: bool = False) -> None:
    """LPIPS's trunk without AlexNet's classifier, 10 MB, and its weights of channels, none negative."""
    import torch
    from torchvision.models import AlexNet

    from backends.pictures.lpips import HEADS, TRUNK

    torch.manual_seed(0)
    state = AlexNet().features.state_dict()
    torch.save({f"features.{name}": value for name, value in state.items()}, folder / TRUNK)
    widths = (64, 192, 384, 256, 256)
    heads = {f"lin{i}.model.1.weight": torch.rand(1, width, 1, 1) for i, width in enumerate(widths)}
    torch.save(heads, folder / HEADS)


def raft(folder: Path, small: bool = False) -> None:
    """torchvision's large RAFT, 21 MB. Its size cannot be chosen."""
    import torch
    from torchvision.models.optical_flow import raft_large

    from backends.pictures.raft import FILE

    torch.manual_seed(0)
    torch.save(raft_large(weights=None).state_dict(), folder / FILE)


def dino(folder: Path, small: bool = False) -> None:
    """DINO's ViT-B/16 in its authors' names; small: two layers of 128."""
    import torch

    from backends.pictures.dino import FILE

    width, layers = (128, 2) if small else (768, 12)
    torch.manual_seed(0)
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, 197, width),
        "patch_embed.proj.weight": (width, 3, 16, 16),
        "patch_embed.proj.bias": (width,),
    }
    for i in range(layers):
        for part, out, into in (
            ("attn.qkv", 3 * width, width),
            ("attn.proj", width, width),
            ("mlp.fc1", 4 * width, width),
            ("mlp.fc2", width, 4 * width),
        ):
            shapes |= {f"blocks.{i}.{part}.weight": (out, into), f"blocks.{i}.{part}.bias": (out,)}
    state = {name: torch.randn(shape) * 0.05 for name, shape in shapes.items()}
    for norm in (*(f"blocks.{i}.norm{n}" for i in range(layers) for n in (1, 2)), "norm"):
        state |= {f"{norm}.weight": torch.rand(width) + 0.5, f"{norm}.bias": torch.randn(width) * 0.1}
    torch.save(state, folder / FILE)
