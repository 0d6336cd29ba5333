"""Pictures and sounds that clients send are opened in a process of their own, with limits: what a
decoder does with foreign bytes must neither take the models' memory nor keep their engine waiting.

The server asks it (`Opener`) before it asks the engine, which gets pixels and samples and no files.
`python -m omnifill.serve.opener` is that process.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from omnifill.bounded import APART, limit
from omnifill.data.media import format_of
from omnifill.data.values import parse_value
from omnifill.errors import ValueRefused
from omnifill.schema import FieldSpec
from omnifill.serve.refusals import Refusal
from omnifill.serve.wire import messages, packed, received

MEMORY = 2 << 30
"""Bytes that it may take."""
SECONDS = 20.0
"""That one file may take."""
COMMAND = (sys.executable, "-P", "-m", "omnifill.serve.opener")
OPENED = "opened"
"""Key of a value that has been opened, in a message to the engine."""


class Opener:
    """The process as the server sees it: it is started for the first file, and again when it had
    to be ended. It opens one file after another."""

    def __init__(self, command: Sequence[str] = COMMAND, seconds: float = SECONDS) -> None:
        self.command, self.seconds = command, seconds
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()

    async def opened(self, message: dict[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
        """A message whose files are values. `fields`: of pictures and sounds, type and options by
        name. Refusal for what is no such file."""
        wish = message.get("wish", {})
        out = dict(message)
        if "given" in wish:
            out["wish"] = wish | {"given": await self._record(wish["given"], "given", fields)}
        for key, called in (("records", "records"), ("inputs", "input")):
            if key in message:
                out[key] = [await self._record(one, f"{called}[{i}]", fields)
                            for i, one in enumerate(message[key])]  # fmt: skip
        return out

    async def stop(self) -> None:
        """End the process."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def _record(self, record: Any, name: str, fields: Mapping[str, Any]) -> Any:
        if not isinstance(record, Mapping) or record.keys().isdisjoint(fields):
            return record
        return {
            key: value if key not in fields or value is None
            else await self._value(value, f"{name}.{key}", key, fields[key])
            for key, value in record.items()
        }  # fmt: skip

    async def _value(self, value: Any, name: str, key: str, field: Mapping[str, Any]) -> Any:
        data = value.get("data") if isinstance(value, Mapping) else None
        if not isinstance(data, str) or set(value) - {"data", "type", "format"}:
            # Text alone might be a path, and files are never read for a client.
            raise Refusal(400, f'{name}: must be {{"data": …}} with the bytes of a file in base64',
                          param=name)  # fmt: skip
        if value.get("type", field["type"]) != field["type"]:
            raise Refusal(400, f"{name}.type: is {field['type']!r}, if it is said", param=name)
        asked = {**field, "name": key, "data": data, "said": value.get("format")}
        # Who leaves while his file is opened must not take the next one's answer along.
        told = await asyncio.shield(self._asked(asked))
        if told is None:
            raise Refusal(400, f"{name}: cannot be opened in {self.seconds:g} s and "
                          f"{MEMORY >> 30} GB; send a smaller file", param=name)  # fmt: skip
        if "error" in told:
            raise Refusal(400, f"{name}: {told['error']}", param=name)
        return {OPENED: told["value"]}

    async def _asked(self, message: dict[str, Any]) -> dict[str, Any] | None:
        """The process's answer; None: it ended, or had to be."""
        async with self._turn:
            try:
                return await asyncio.wait_for(self._exchanged(message), self.seconds)
            except (TimeoutError, OSError, ValueError, asyncio.IncompleteReadError):
                await self.stop()
                return None

    async def _exchanged(self, message: dict[str, Any]) -> dict[str, Any]:
        process = self._process
        if process is None or process.returncode is not None:
            threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
            process = self._process = await asyncio.create_subprocess_exec(
                *self.command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
                env=os.environ | threads, **APART,
            )  # fmt: skip
        assert process.stdin is not None and process.stdout is not None, "opened with pipes"
        process.stdin.write(packed(message))
        await process.stdin.drain()
        (answer,) = await received(process.stdout)
        return answer


def answers(asked: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """What the process says to each file."""
    for message in asked:
        try:
            data = base64.b64decode(message["data"], validate=True)
        except (binascii.Error, ValueError):
            yield {"error": "the data is no base64"}
            continue
        kind, said, found = message["type"], message.get("said"), format_of(data)
        if said is not None and found is not None and str(said).lower() != found.lower():
            yield {"error": f"format: is {found.lower()!r}, by its bytes, and not {said!r}"}
            continue
        spec = FieldSpec(name=message["name"], type=kind, codec=kind, options=message["options"])
        try:
            yield {"value": parse_value(spec, data)}
        except ValueRefused as error:
            yield {"error": str(error).removeprefix(f"field {spec.name!r}: ")}
        except MemoryError:
            yield {"error": "takes more memory than there is for it"}


def main() -> None:
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, signal.SIG_IGN)  # the server says when it is time
    out = sys.stdout.buffer
    sys.stdout = sys.stderr  # what a library prints is no message
    limit(MEMORY)
    try:
        for answer in answers(messages(sys.stdin.buffer)):
            out.write(packed(answer))
            out.flush()
    except BrokenPipeError:
        pass  # the server is gone


if __name__ == "__main__":
    main()
