"""The process that has the models: reads requests from its input, writes what comes to its output.

One for each device. It never waits for a client: the server takes whatever it tells at once.
"""

from __future__ import annotations

import json
import queue
import signal
import sys
import threading
import time
import warnings
from collections.abc import Generator, Iterable, Mapping
from functools import partial
from typing import Any, BinaryIO

import torch

from omnifill.api import load
from omnifill.errors import RequestError, UserError
from omnifill.generate.turns import in_turns
from omnifill.progress import Progress
from omnifill.serve.pace import Pace
from omnifill.serve.tasks import (
    AT_ONCE,
    IN_TURNS,
    Generation,
    Served,
    Task,
    listened,
    served_called,
)
from omnifill.serve.wire import EngineSettings, messages, packed

TOLD = 0.25
"""Seconds between figures while it works."""


class Desk:
    """Everything that is asked of one process."""

    def __init__(self, models: dict[str, Served], out: BinaryIO) -> None:
        self.models, self.out = models, out
        self.tasks: dict[int, tuple[Served, Task]] = {}
        self.written = 0
        """Slots that were chosen."""
        self.readings: dict[int, tuple[Generator[None, None, dict[str, Any]], list[str]]] = {}
        """What is told as a whole, and takes a turn beside each step of the others; with what
        it warns of."""
        self.waiting: list[int] = []
        """Tasks that have not all begun, the first come first."""
        self.pace = Pace()

    @property
    def busy(self) -> bool:
        return bool(self.tasks or self.readings)

    def send(self, message: dict[str, Any]) -> None:
        """Tell the server, at once or in its turn (see `pace`)."""
        self._tell(self.pace.take(message))

    def _tell(self, messages: Iterable[dict[str, Any]]) -> None:
        if data := packed(*messages):
            self.out.write(data)
            self.out.flush()

    def take(self, message: dict[str, Any]) -> None:
        """One request of the server."""
        number, do = message["id"], message["do"]
        if do == "cancel":
            self.forget(number)
            return
        try:
            served = served_called(self.models, message["model"])
            if do == "generate":
                task = Generation(served, message, self.send)
                if task.over:
                    task.end()
                    return
                self.tasks[number] = served, task
                self.pace.begin(number, message["streamed"])
                self.waiting.append(number)
            elif do in IN_TURNS:
                said: list[str] = []
                turns = listened(in_turns(partial(IN_TURNS[do], served, message)), said)
                self.readings[number] = turns, said
            else:
                self.send({"id": number, "do": "end", **AT_ONCE[do](served, message)})
        except UserError as error:
            self.send({"id": number, "do": "error", "message": str(error)})
        except BrokenPipeError:
            raise
        except Exception as error:  # a fault of ours must not take others' requests with it
            self._fault(number, error)

    def forget(self, number: int) -> None:
        """Nobody waits for a task any more."""
        self.pace.end(number)
        if number in self.tasks:
            self.tasks.pop(number)[1].drop()
        if number in self.waiting:
            self.waiting.remove(number)
        if number in self.readings:
            self.readings.pop(number)[0].close()

    def turn(self) -> None:
        """Begin what there is room for, and take one step with all that is under way."""
        full: set[str] = set()
        for number in list(self.waiting):
            served, task = self.tasks[number]
            if served.name in full:
                continue  # who came first begins first
            try:
                if task.begin():
                    self.waiting.remove(number)
                else:
                    full.add(served.name)
            except UserError as error:
                self.send({"id": number, "do": "error", "message": str(error)})
                self.forget(number)
            except BrokenPipeError:
                raise
            except Exception as error:
                self._fault(number, error)
        for served in self.models.values():
            if served.engine.jobs:
                self._step(served)
        if self.readings:
            self._read_on()
        self._tell(self.pace.due())

    def _read_on(self) -> None:
        """One reading goes on, and then stands behind the others."""
        number = next(iter(self.readings))
        turns, said = self.readings.pop(number)
        try:
            next(turns)
        except StopIteration as done:
            self.send({"id": number, "do": "end", **done.value, "warnings": said})
        except UserError as error:
            self.send({"id": number, "do": "error", "message": str(error)})
        except Exception as error:
            self._fault(number, error)
        else:
            self.readings[number] = turns, said

    def _step(self, served: Served) -> None:
        owners = {job: number for number, (s, task) in self.tasks.items() if s is served
                  for job in getattr(task, "jobs", ())}  # fmt: skip
        try:
            for job, found in served.engine.step():
                number = owners.get(job)
                if number is None or number not in self.tasks:
                    continue
                task = self.tasks[number][1]
                if isinstance(found, UserError):
                    self.send({"id": number, "do": "error", "message": str(found)})
                    self.forget(number)
                    continue
                if isinstance(found, Exception):
                    self._fault(number, found)
                    continue
                self.written += task.read(job, found)
                if task.over:
                    del self.tasks[number]
                    self.pace.end(number)
        except BrokenPipeError:  # the server is gone
            raise
        except Exception as error:  # in what all share
            for number in [n for n, (s, _) in self.tasks.items() if s is served]:
                self._fault(number, error)

    def _fault(self, number: int, error: Exception) -> None:
        print(f"engine: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        self.send({"id": number, "do": "fault"})
        self.forget(number)

    def stats(self) -> dict[str, Any]:
        """How full it is."""
        return {
            "id": 0, "do": "stats", "written": self.written,
            "reused": sum(s.engine.reused for s in self.models.values()),
            "waiting": len(self.waiting), "tasks": len(self.tasks) + len(self.readings),
            "rows": {name: s.engine.used for name, s in self.models.items()},
        }  # fmt: skip


def run(settings: EngineSettings, source: BinaryIO, out: BinaryIO) -> None:
    """Load the models and serve until the input ends."""
    torch.set_num_threads(settings.threads)
    models: dict[str, Served] = {}
    desk = Desk(models, out)
    try:
        for name, path in settings.models.items():
            models[name] = Served(name, load(path), settings.rows, settings.exact)
            check_memory(models, settings.memory)
        for name, (base, path) in settings.adapters.items():
            beside = models[base].model.adapted(path)
            models[name] = Served(name, beside, settings.rows, settings.exact)
            check_memory(models, settings.memory)
    except UserError as error:
        desk.send({"id": 0, "do": "failed", "message": str(error)})
        return
    desk.send({"id": 0, "do": "ready", "models": [s.about() for s in models.values()],
               "media": {s.name: s.media() for s in models.values()}})  # fmt: skip
    asked: queue.Queue[dict[str, Any] | None] = queue.Queue()
    threading.Thread(target=_listen, args=(source, asked), daemon=True).start()
    told = 0.0
    while True:
        if asked.empty() and (not desk.busy or time.monotonic() - told > TOLD):
            told = time.monotonic()
            desk.send(desk.stats())
        try:
            # Where nothing is under way it sleeps until somebody asks.
            message = asked.get(block=not desk.busy)
        except queue.Empty:
            desk.turn()
            continue
        if message is None:
            return
        desk.take(message)


def check_memory(models: Mapping[str, Served], most: float | None) -> None:
    """RequestError where weights, rows that are full and beginnings of prompts are more than so
    many gigabytes."""
    tensors = [t.untyped_storage() for s in models.values()
               for t in s.run.network.state_dict().values()]  # fmt: skip
    weights = sum({t.data_ptr(): t.nbytes() for t in tensors}.values()) / 1e9
    caches = sum(s.engine.most_bytes for s in models.values()) / 1e9
    if most is not None and weights + caches > most:
        raise RequestError(
            f"--memory {most:g}: up to {list(models)[-1]!r}, weights take {weights:.2f} GB "
            f"and what is kept of texts and prompts {caches:.2f}; leave some out, take fewer "
            f"--rows, or round weights: omnifill convert RUN --weights int8"
        )


def _listen(source: BinaryIO, asked: queue.Queue[dict[str, Any] | None]) -> None:
    try:
        for message in messages(source):
            asked.put(message)
    finally:
        asked.put(None)


def main() -> None:
    """`python -m omnifill.serve.engine SETTINGS`, with settings as JSON."""
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, signal.SIG_IGN)  # the server says when it is time: the input ends
    out = sys.stdout.buffer
    sys.stdout = sys.stderr  # what a library prints is no message
    Progress.quiet = True  # of many at once; the server's log is no place for it
    warnings.simplefilter("ignore")  # they may quote what was asked, which is in no log
    try:
        run(EngineSettings(**json.loads(sys.argv[1])), sys.stdin.buffer, out)
    except (BrokenPipeError, KeyboardInterrupt):
        pass  # the server is gone, or goes


if __name__ == "__main__":
    main()
