"""Writes a Qwen2.5-VL with random weights and a tokenizer of its own, as a folder that vLLM loads.

Run with the Python of an environment that has torch, torchvision and transformers:

    python tests/support/tiny_vlm.py FOLDER

The architecture, the processor and the file formats are the real ones; 2 layers of width 128 make a model
of 6 MB. What it says means nothing, so only the form of its answers can be tested.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CONTEXT = 16384  # tokens; a prompt of ours takes some hundreds, a video of 24 small frames some more
PIXELS = 28 * 28 * 64  # at most, of a picture: 64 tokens
# What the tokenizer learns from. A new prompt does not join them: it would change every token of the others,
# and with them what the random model answers, on which tests of whole pipelines rest.
LEARNT = (
    "anatomy",
    "artifacts",
    "caption",
    "depiction",
    "hair",
    "interaction",
    "people",
    "reactions",
    "which_person",
)
SPECIAL = [
    "endoftext",
    "im_start",
    "im_end",
    "vision_start",
    "vision_end",
    "vision_pad",
    "image_pad",
    "video_pad",
]
CHAT = """{% for m in messages %}<|im_start|>{{ m['role'] }}
{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] -%}
{% if c['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>
{%- elif c['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>
{%- else %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


def tokenizer() -> Any:
    """Byte-level BPE trained on prompts of ours, so that one takes a few hundred tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    paths = [*(ROOT / "prompts" / f"{name}.md" for name in LEARNT), ROOT / "prompts" / "vocabulary.py"]
    texts = [path.read_text(encoding="utf-8").encode("ascii", "ignore").decode() for path in paths]
    special = [f"<|{name}|>" for name in SPECIAL]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    # xgrammar lets control characters into a string of bounded length, where JSON forbids them, and counts
    # a broken character once, where the shown text has a replacement for each of its bytes. Trained models
    # write neither; this one would, so its alphabet is ASCII, blank and line break, as byte-level BPE spells.
    alphabet = [chr(byte) for byte in range(33, 127)] + [chr(256 + ord("\n")), chr(256 + ord(" "))]
    trainer = trainers.BpeTrainer(
        vocab_size=2048, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(texts, trainer)
    made = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=special,
        model_max_length=CONTEXT,
    )
    made.chat_template = CHAT
    made.image_token, made.video_token = "<|image_pad|>", "<|video_pad|>"
    return made


def model(ids: dict[str, int], vocabulary: int) -> Any:
    """The model; vLLM's attention on a CPU wants heads of 32 or more."""
    import torch
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    rope = {"rope_type": "default", "mrope_section": [4, 6, 6], "rope_theta": 10000.0}
    text = {
        "vocab_size": vocabulary,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": CONTEXT,
        "rope_parameters": rope,
        "bos_token_id": ids["endoftext"],
        "eos_token_id": ids["im_end"],
        "pad_token_id": ids["endoftext"],
    }
    vision = {
        "depth": 2,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_heads": 4,
        "out_hidden_size": 128,
        "fullatt_block_indexes": [1],
    }
    config = Qwen2_5_VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids["image_pad"],
        video_token_id=ids["video_pad"],
        vision_start_token_id=ids["vision_start"],
        vision_end_token_id=ids["vision_end"],
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    made = Qwen2_5_VLForConditionalGeneration(config).float()
    made.generation_config.eos_token_id = ids["im_end"]
    made.generation_config.pad_token_id = ids["endoftext"]
    return made


def write(folder: Path) -> None:
    """Weights, configuration, tokenizer and processor under `folder`."""
    from transformers import Qwen2_5_VLProcessor, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    words = tokenizer()
    ids = {name: words.convert_tokens_to_ids(f"<|{name}|>") for name in SPECIAL}
    size = -(-len(words) // 64) * 64
    model(ids, size).save_pretrained(folder)
    sides = {"min_pixels": 28 * 28 * 4, "max_pixels": PIXELS}
    pictures, videos = Qwen2VLImageProcessor(**sides), Qwen2VLVideoProcessor(**sides)
    Qwen2_5_VLProcessor(
        image_processor=pictures, tokenizer=words, video_processor=videos, chat_template=CHAT
    ).save_pretrained(folder)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
