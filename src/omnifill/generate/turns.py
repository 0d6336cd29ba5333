"""Long work that leaves others their turn: searches, and readings of many records.

They are loops deep within others, which call `pause` where they can be left for a while; by itself
that does nothing. `in_turns` runs such work from one pause to the next, in a thread of its own that
never runs beside whoever asks for its next turn, so that nothing needs a lock.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")
READ = 256
"""Slots of a row that are read in a turn, about."""


class _Left(BaseException):
    """Ends work that nobody waits for any more, through all its loops."""


class _Baton:
    """Who of two has the turn."""

    def __init__(self) -> None:
        self.go, self.back = threading.Semaphore(0), threading.Semaphore(0)
        self.left = self.over = False

    def turn(self) -> None:
        """Let the work go on until it pauses or is over."""
        self.go.release()
        self.back.acquire()

    def pause(self) -> None:
        """The work's side: wait for the next turn."""
        self.back.release()
        self.go.acquire()
        if self.left:
            raise _Left


Tasks = queue.SimpleQueue[Callable[[], None]]
_own = threading.local()
_idle: list[Tasks] = []
"""What threads that wait for work take it from: a new one costs PyTorch some 30 ms."""


def pause() -> None:
    """Let others go on, if this work is done in turns."""
    baton: _Baton | None = getattr(_own, "baton", None)
    if baton is not None:
        baton.pause()


def shared() -> bool:
    """Whether others wait while this work goes on."""
    return getattr(_own, "baton", None) is not None


def paused(steps: Generator[Any, None, T]) -> T:
    """What comes of something that is done step by step, with a pause after each."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            out: T = done.value
            return out
        pause()


def in_turns(work: Callable[[], T]) -> Generator[None, None, T]:
    """What some work returns, or raises; it yields at each pause. Closed early, the work ends."""
    baton = _Baton()
    found: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        baton.go.acquire()
        _own.baton = baton
        try:
            with suppress(_Left):
                found.append(work())
        except BaseException as error:
            errors.append(error)
        _own.baton = None
        baton.over = True
        baton.back.release()

    tasks = _idle.pop() if _idle else _started()
    tasks.put(run)
    try:
        baton.turn()
        while not baton.over:
            yield
            baton.turn()
    finally:
        if not baton.over:
            baton.left = True
            baton.turn()
        _idle.append(tasks)
    if errors:
        raise errors[0]
    return found[0]


def _started() -> Tasks:
    """A new thread's."""
    tasks: Tasks = queue.SimpleQueue()

    def work() -> None:
        import torch  # the sandbox pauses, too, and needs none

        torch.get_num_threads()  # a new thread takes over their number with the first question
        while True:
            tasks.get()()

    threading.Thread(target=work, daemon=True).start()
    return tasks
