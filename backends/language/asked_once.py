"""What models share whose answers are kept: each question is put to them once, whoever asks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from pydantic import BaseModel

from backends.language.answer_cache import AnswerCache
from backends.language.chat_completion import InvalidAnswer, read_answer
from backends.language.vision_language_model import AnswerError, Question


class AskedOnce:
    """Answers in a cache under `folder`, and questions on their way; may be used from several threads.

    Only settings are pickled: names that begin with `_` live in one process and are made by `_start`.
    """

    folder: str

    def _start(self) -> None:
        """Make what only lives in one process."""
        self._lock = threading.Lock()
        self._cache = AnswerCache(self.folder)
        self._asked: dict[str, Future[str]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """The settings; no connection, engine or key."""
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._start()

    def _kept(self, question: Question, key: str) -> BaseModel | None:
        """The answer out of the cache; that it was asked for is noted, also where there is none yet.

        Raises:
            InvalidAnswer: it is no valid one; it is forgotten.
        """
        self._cache.note_asked(key)
        cached = self._cache.read(key)
        if cached is None:
            return None
        try:
            answer = read_answer(cached.text, question)
        except InvalidAnswer:
            self._cache.remove(key)
            raise
        self._cache.count_cached()
        return answer

    def _ask_once(self, question: Question, key: str, ask: Callable[[], Future[str]]) -> BaseModel:
        """The answer that `ask` brings, or that another thread waits for; `_asked` loses it when it is there.

        Raises:
            AnswerError: it is no valid one.
        """
        with self._lock:
            asked = self._asked.get(key)
            # Another thread may have brought it in the meantime.
            cached = self._cache.read(key) if asked is None else None
            if asked is None and cached is None:
                asked = self._asked[key] = ask()
        text = cached.text if cached is not None else asked.result()  # type: ignore[union-attr]
        try:
            return read_answer(text, question)
        except InvalidAnswer as error:  # the question of another thread had another check
            problem = str(error)
        raise AnswerError(problem)
