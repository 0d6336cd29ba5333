"""A process of its own for what others wrote and may never end: chat templates, and patterns that
texts are looked through for. That it neither runs for ever nor fills the memory is up to the system
and to who asks, who end it.

It reads lines of JSON ({"template", "values"} or {"pattern", "texts"}) and answers each with one
({"text"}, {"found"} or {"error"}). `python -m omnifill.generate.sandbox` is that process.
"""

from __future__ import annotations

import atexit
import json
import queue
import re
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import IO, Any

from omnifill.bounded import APART, allow, limit
from omnifill.generate.turns import pause

SECONDS, MEMORY = 2, 1 << 30
"""Of the processor for one question, and bytes."""
PATIENCE = 20.0
"""Seconds that one question may take, all in all."""
TICK = 0.002
"""Seconds that others wait for their turn."""


class Sandbox:
    """The process as others see it: started for the first question, and again when it had to be
    ended. It answers one after another."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._answers: queue.Queue[bytes] = queue.Queue()
        self._listening: threading.Thread | None = None
        self._turn = threading.Lock()

    def ask(self, **question: Any) -> dict[str, Any]:
        """The answer; {"error"} as well where it took too much."""
        while not self._turn.acquire(timeout=TICK):
            pause()
        try:
            stdin = self.start().stdin
            assert stdin is not None, "it was opened with a pipe"
            stdin.write(json.dumps(question).encode() + b"\n")
            stdin.flush()
            answer: dict[str, Any] = json.loads(self._answer())
        except (OSError, ValueError):
            self.end()
            return {"error": "it takes too much time or memory"}
        except BaseException:  # its answer must not be taken for that to the next question
            self.end()
            raise
        finally:
            self._turn.release()
        return answer

    def _answer(self) -> bytes:
        """A line; nothing where it has ended, or takes too long. Others have their turns."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            with suppress(queue.Empty):
                return self._answers.get(timeout=TICK)
            pause()
        return b""

    def start(self) -> subprocess.Popen[bytes]:
        """Have the process ready; who asks soon waits less."""
        if self._process is None or self._process.poll() is not None:
            self.end()
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "omnifill.generate.sandbox"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, **APART,
            )  # fmt: skip
            self._answers = queue.Queue()
            told = (self._process.stdout, self._answers)
            self._listening = threading.Thread(target=_listen, args=told, daemon=True)
            self._listening.start()
        return self._process

    def end(self) -> None:
        """Leave no process behind."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            if self._listening is not None:  # two must not read at once
                self._listening.join()
            with suppress(OSError):
                self._process.communicate()
            self._process = None


def _listen(source: IO[bytes], answers: queue.Queue[bytes]) -> None:
    for line in source:
        answers.put(line)
    answers.put(b"")  # it has ended, and whoever waits need not


SANDBOX = Sandbox()
"""Of this process."""
atexit.register(SANDBOX.end)


def answered(question: dict[str, Any]) -> dict[str, Any]:
    """What the process says to a question."""
    if "pattern" in question:
        pattern = re.compile(question["pattern"])
        return {"found": [bool(pattern.search(text)) for text in question["texts"]]}
    from omnifill.generate.template import run

    return {"text": run(question["template"], question["values"])}


def main() -> None:
    """Answer until the input ends."""
    limit(MEMORY)
    for line in sys.stdin.buffer:
        allow(SECONDS)
        try:
            out = answered(json.loads(line))
        except Exception as error:  # whatever somebody else's program comes up with
            out = {"error": str(error) or type(error).__name__}
        sys.stdout.buffer.write(json.dumps(out).encode() + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
