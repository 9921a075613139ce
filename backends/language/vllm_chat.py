"""A language model in this very process, by vLLM: for an actor that holds a GPU."""

from __future__ import annotations

import atexit
import base64
import os
import queue
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import BaseModel

from backends.language.answer_cache import CachedAnswer
from backends.language.asked_once import AskedOnce
from backends.language.chat_completion import InvalidAnswer, encode_video, read_answer, shown
from backends.language.vision_language_model import AnswerError, Question
from backends.store.weights import Weights

ATTEMPTS = 3  # at one question; at temperature 0 the same answer would come back, so it grows with each
WARMER = 0.2
CPU_MEMORY = 0.2  # share of the computer's memory
CPU_CACHE = 1 << 30  # bytes
# vLLM would sample a video again, at 2 frames a second: take every frame, as the question counts them.
EVERY_FRAME = {"video": {"fps": 30, "num_frames": -1}}


@dataclass
class _Job:
    """A question on its way through the engine."""

    question: Question
    key: str
    text: Future[str]
    attempt: int = 0


class VllmChat(AskedOnce):
    """Asks a model that vLLM has loaded into this process, and keeps every valid answer.

    Questions of several threads run in the engine side by side: one that comes joins those under way, one
    that is done makes room. An answer that is not valid is asked for again, twice at most.

    Args:
        model: the weights.
        folder: where answers and the count of requests lie; shared by all processes of a run.
        max_model_len: tokens of prompt, pictures and answer together; None: what the model allows, for which
            vLLM wants room for one such question at least (a Qwen2.5-VL-7B: 128,000 tokens of 56 KiB).
        max_tokens: the longest answer.
        batch_size: questions in the engine at once.
        temperature: of the first attempt at a question.
        min_pixels: smallest size to which a picture is enlarged, in pixels; None: as the model says.
        max_pixels: largest size, to which it is shrunk; a Qwen2.5-VL takes one token for 28 x 28 of them. At
            the start vLLM shows the model the largest picture or video that may come, and keeps the memory
            that this took; what Qwen2.5-VL itself allows is 12.8 million pixels for each of 14 frames. Stages
            ask about pictures of about a million pixels at most. None: as the model says.
        max_images: single pictures in one question; beside them it may have a video.
        dtype: of the weights, as vLLM calls it.
        enforce_eager: no compilation and no CUDA graphs: a quicker start, slower answers.
        gpu_memory_utilization: share of the GPU's memory for weights and cache, 0-1; so much must be free at
            the start.
        kv_cache_memory_bytes: size of the cache, on each GPU. None: what is left of the share above, where
            everything counts as taken that other processes took of the GPU while vLLM started.
        tensor_parallel_size: number of GPUs that share the model.
        device: "cpu": nothing is compiled, and at most `CPU_MEMORY` of the memory, or a cache of `CPU_CACHE`,
            is taken. Where it runs vLLM decides itself: its build for a CPU is another.
    """

    packages = ("vllm",)
    is_remote = False
    counts_requests = True

    def __init__(
        self,
        model: Weights,
        folder: str,
        max_model_len: int | None = 16384,
        max_tokens: int = 4096,
        batch_size: int = 32,
        temperature: float = 0.0,
        min_pixels: int | None = None,
        max_pixels: int | None = 1280 * 28 * 28,
        max_images: int = 1,
        dtype: str = "auto",
        enforce_eager: bool = False,
        gpu_memory_utilization: float = 0.9,
        kv_cache_memory_bytes: int | None = None,
        tensor_parallel_size: int = 1,
        device: str | None = None,
    ) -> None:
        self.model = model
        self.folder = folder
        self.max_model_len = max_model_len
        self.max_tokens = max_tokens
        self.batch_size = batch_size
        self.temperature = temperature
        self.min_pixels = min_pixels
        self.max_pixels = max_pixels
        self.max_images = max_images
        self.dtype = dtype
        self.enforce_eager = enforce_eager or device == "cpu"
        # vLLM's build for a CPU takes the same share of the computer's memory, which others need too.
        self.gpu_memory_utilization = (
            min(gpu_memory_utilization, CPU_MEMORY) if device == "cpu" else gpu_memory_utilization
        )
        if kv_cache_memory_bytes is not None and device == "cpu":
            kv_cache_memory_bytes = min(kv_cache_memory_bytes, CPU_CACHE)
        self.kv_cache_memory_bytes = kv_cache_memory_bytes
        self.tensor_parallel_size = tensor_parallel_size
        self._start()

    def _start(self) -> None:
        super()._start()
        self._waiting: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._running: dict[str, _Job] = {}
        self._most_running = 0
        self._llm: Any = None
        self._broken: Exception | None = None

    @property
    def id(self) -> str:
        """Model and every setting that changes answers."""
        settings = {
            "temperature": f"{self.temperature:g}",
            "max_tokens": self.max_tokens,
            "max_model_len": self.max_model_len,
            "min_pixels": self.min_pixels,
            "max_pixels": self.max_pixels,
            "dtype": self.dtype,
        }
        return f"{self.model} (vllm, {', '.join(f'{k}={v}' for k, v in settings.items() if v is not None)})"

    @property
    def name(self) -> str:
        """The model's name."""
        return self.model.label

    @property
    def concurrency(self) -> int:
        """As many as the engine runs at once."""
        return self.batch_size

    def setup(self) -> None:
        """Load the weights and start the thread that feeds the engine."""
        with self._lock:
            if self._llm is not None:
                return
            # Would be compiled at start, which takes nvcc; questions with a seed, as ours are, never use it.
            os.environ.setdefault("VLLM_USE_FLASHINFER_SAMPLER", "0")
            from vllm import LLM

            pixels = {"min_pixels": self.min_pixels, "max_pixels": self.max_pixels}
            self._llm = LLM(
                model=str(self.model.folder),
                trust_remote_code=False,
                dtype=self.dtype,
                max_model_len=self.max_model_len,
                max_num_seqs=self.batch_size,
                enforce_eager=self.enforce_eager,
                gpu_memory_utilization=self.gpu_memory_utilization,
                kv_cache_memory_bytes=self.kv_cache_memory_bytes,
                tensor_parallel_size=self.tensor_parallel_size,
                limit_mm_per_prompt={"image": self.max_images, "video": 1},
                mm_processor_kwargs={k: v for k, v in pixels.items() if v is not None},
                media_io_kwargs=EVERY_FRAME,
                # A model that falls into writing blanks between two fields never ends.
                structured_outputs_config={"backend": "xgrammar", "disable_any_whitespace": True},
            )
            # Before multiprocessing's own end, which waits for ever for an engine that nobody stops.
            atexit.register(self._llm.llm_engine.engine_core.shutdown)
            threading.Thread(target=self._serve, name="vllm", daemon=True).start()

    def answer(self, question: Question) -> BaseModel:
        """The answer out of the cache, or else from the model.

        Raises:
            AnswerError: no valid answer after all attempts, or the question does not fit the model.
        """
        key = question.key(self.id)
        with suppress(InvalidAnswer):
            answer = self._kept(question, key)
            if answer is not None:
                return answer
        self.setup()
        return self._ask_once(question, key, lambda: self._wait_for(question, key))

    def _wait_for(self, question: Question, key: str) -> Future[str]:
        """Leave a question to the thread that feeds the engine."""
        if self._broken is not None:
            raise self._broken
        text: Future[str] = Future()
        self._waiting.put(_Job(question, key, text))
        return text

    def _serve(self) -> None:
        """Feed the engine, for ever; the only thread that touches it."""
        try:
            while True:
                while len(self._running) < self.batch_size:
                    try:
                        job = self._waiting.get(block=not self._running)
                    except queue.Empty:
                        break
                    self._ask(job)
                outputs = self._llm.llm_engine.step() if self._running else []
                for output in outputs:
                    if output.finished:
                        self._judge(self._running.pop(output.request_id), output)
        except Exception as error:
            with self._lock:
                self._broken = error
                futures = list(self._asked.values())
                self._asked.clear()
            for future in futures:
                future.set_exception(error)

    def _ask(self, job: _Job) -> None:
        """Give a question to the engine; one that it refuses is done with."""
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            messages, params = _messages(job.question), self._sampling(job)
            self._cache.reserve(None)
            [request] = self._llm.enqueue_chat([messages], [params], use_tqdm=False)
        except EngineDeadError:
            raise
        except AnswerError as error:  # the count of requests is damaged
            self._finish(job, error=error)
        except Exception as error:  # too long, too many pictures, a schema that has no grammar
            with suppress(OSError, AnswerError):
                self._cache.count_reply(failed=True)
            self._finish(job, error=AnswerError(f"the model does not take the question: {shown(str(error))}"))
        else:
            self._running[request.partition("-")[0]] = job  # vLLM adds a suffix that its outputs lack
            self._most_running = max(self._most_running, len(self._running))

    def _sampling(self, job: _Job) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        schema = job.question.answer.model_json_schema()
        return SamplingParams(
            temperature=max(self.temperature, WARMER * job.attempt),
            seed=job.attempt,
            max_tokens=self.max_tokens,
            structured_outputs=StructuredOutputsParams(json=schema),
        )

    def _judge(self, job: _Job, output: Any) -> None:
        """Keep a valid answer; ask again for another."""
        said = output.outputs[0]
        tokens = len(output.prompt_token_ids), len(said.token_ids)
        problem = None
        try:
            if said.finish_reason == "length":
                limit = f"max_tokens={self.max_tokens}"
                raise InvalidAnswer(f"the answer was cut off at {limit}: {shown(said.text)}")
            read_answer(said.text, job.question)
        except InvalidAnswer as error:
            problem = str(error)
        except Exception as error:  # a broken `check`
            with suppress(OSError, AnswerError):
                self._cache.count_reply(*tokens, failed=True)
            self._finish(job, error=error)
            return
        try:
            self._cache.count_reply(*tokens, failed=problem is not None)
            if problem is None:
                self._cache.write(job.key, CachedAnswer(said.text, self.name, *tokens))
        except (OSError, AnswerError) as error:  # the disk's trouble is this question's alone
            self._finish(job, error=error)
            return
        if problem is None:
            self._finish(job, text=said.text)
        elif job.attempt + 1 < ATTEMPTS:
            job.attempt += 1
            self._ask(job)
        else:
            reason = f"no valid answer in {ATTEMPTS} attempts; the last: {problem}"
            self._finish(job, error=AnswerError(reason))

    def _finish(self, job: _Job, text: str = "", error: Exception | None = None) -> None:
        with self._lock:
            self._asked.pop(job.key, None)
        if error is None:
            job.text.set_result(text)
        else:
            job.text.set_exception(error)


def _messages(question: Question) -> list[Mapping[str, Any]]:
    """Pictures first, then the text that asks about them; a video of one frame is a picture.

    Whatever several questions about a clip have in common, and most of their tokens are its pictures', comes
    first: vLLM reads a beginning that it has in its cache no second time.
    """
    from PIL import Image

    parts: list[Mapping[str, Any]] = []
    if question.fps is not None and len(question.images) > 1:
        data = base64.b64encode(encode_video(question.images, question.fps)).decode()
        parts.append({"type": "video_url", "video_url": {"url": f"data:video/mp4;base64,{data}"}})
    else:
        for image in question.images:
            picture = Image.fromarray(np.ascontiguousarray(image))
            parts.append({"type": "image_pil", "image_pil": picture})
    parts.append({"type": "text", "text": question.prompt})
    return [{"role": "user", "content": parts}]
