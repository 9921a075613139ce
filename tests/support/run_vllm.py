"""Asks `VllmChat` some questions; run with the Python of vLLM's environment.

    python -m tests.support.run_vllm MODEL FOLDER FRAMES.npz

Prints one JSON object in the last line of its output.
"""

from __future__ import annotations

import json
import pickle
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from backends.language.answer_cache import read_usage
from backends.language.vision_language_model import Question
from backends.language.vllm_chat import VllmChat
from backends.store.weights import Weights
from prompts.prompt import Answer

PIXELS = 28 * 28 * 16


CACHE = 300 << 20  # bytes


class Watched(VllmChat):
    """Notes how many tokens of each question vLLM had in its cache of prefixes."""

    def _judge(self, job: Any, output: Any) -> None:
        self.found = {**vars(self).get("found", {}), job.question.prompt: output.num_cached_tokens}
        super()._judge(job, output)


class Seen(Answer):
    what: str = Field(max_length=60)
    touch: Literal["tapped", "stroked", "none"]
    sure: int | None = Field(ge=1, le=5)


class Word(Answer):
    word: Literal["yes", "no"]


def never(answer: Any) -> None:
    raise ValueError("this answer is never right")


def broken(answer: Any) -> None:
    raise ZeroDivisionError("a mistake in the check")


def questions(images: list[np.ndarray]) -> dict[str, Question]:
    return {
        "text": Question("What is it?", Seen),
        "image": Question("What is it?", Seen, images[:1]),
        "two images": Question("What is it?", Seen, images[:2]),
        "video": Question("What is it?", Seen, images[:8], fps=2.0),
        "three images": Question("What is it?", Seen, images[:3]),
        "too long": Question("word " * 5000, Word),
        "never right": Question("Is it?", Word, images[:1], check=never),
        "broken check": Question("Is it not?", Word, check=broken),
    }


def engine(config: Any) -> dict[str, Any]:
    """What the engine was told of sizes."""
    pictures = config.model_config.multimodal_config
    return {
        "max_model_len": config.model_config.max_model_len,
        "kv_cache_memory_bytes": config.cache_config.kv_cache_memory_bytes,
        "limits": {kind: pictures.get_limit_per_prompt(kind) for kind in ("image", "video")},
        "pixels": pictures.mm_processor_kwargs,
    }


def main(model: str, folder: str, frames: str) -> None:
    images = list(np.load(frames)["frames"])
    settings: dict[str, Any] = {"max_model_len": 4096, "max_tokens": 256, "batch_size": 8, "max_images": 2}
    weights = Weights("tiny-qwen-vl", Path(model))
    settings |= {"max_pixels": PIXELS, "kv_cache_memory_bytes": CACHE}
    asked = Watched(weights, folder, dtype="float32", device="cpu", **settings)
    started = time.perf_counter()
    asked.setup()
    ready = time.perf_counter()
    from vllm import envs

    def one(question: Question) -> dict[str, Any]:
        try:
            return asked.answer(question).model_dump()
        except Exception as error:
            return {"error": type(error).__name__, "message": str(error)}

    def every() -> dict[str, dict[str, Any]]:
        all_of_them = questions(images)
        with ThreadPoolExecutor(len(all_of_them)) as pool:
            return dict(zip(all_of_them, pool.map(one, all_of_them.values()), strict=True))

    out: dict[str, Any] = {"first": every(), "flashinfer_sampler": envs.VLLM_USE_FLASHINFER_SAMPLER}
    done = time.perf_counter()
    out["engine"] = engine(asked._llm.llm_engine.vllm_config)
    out["usage"] = vars(read_usage(folder))
    out["most_at_once"] = asked._most_running
    copy = pickle.loads(pickle.dumps(asked))
    out["id"], out["same_id"] = asked.id, copy.id == asked.id
    first_engine, asked = asked, copy  # the copy is without an engine: what it knows comes from the cache
    valid = {name: q for name, q in questions(images).items() if "error" not in out["first"][name]}
    out["again"] = {name: one(question) for name, question in valid.items()}
    out["usage_again"] = vars(read_usage(folder))
    out["prompt_tokens"] = {
        name: found.prompt_tokens
        for name, question in valid.items()
        if (found := asked._cache.read(question.key(asked.id)))
    }
    clip = (images[:8] * 3)[:24]
    watched = [("Who is seen?", clip), ("What do they do?", clip), ("Who is it?", clip[::-1])]
    for prompt, shown in watched:
        first_engine.answer(Question(prompt, Seen, shown, fps=2.0))
    out["found"] = [first_engine.found[prompt] for prompt, _ in watched]
    out["seconds"] = {"start": ready - started, "questions": done - ready}
    print(json.dumps(out))


if __name__ == "__main__":
    main(*sys.argv[1:])
