"""The public API as the page asks it: over HTTP, with the visitor's own key."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import httpx

from omnifill.serve.guard import COOKIE

WAIT = httpx.Timeout(10.0, read=630.0)
"""A little more than a request may take."""


class Refused(Exception):
    """What the API says is wrong; `why` is its sentence, or None where there was no answer."""

    def __init__(self, why: str | None) -> None:
        super().__init__(why)
        self.why = why


class Api:
    """Asks on behalf of one visitor."""

    def __init__(self, where: str, cookies: Mapping[str, str]) -> None:
        self.where, key = where, cookies.get(COOKIE)
        self.has_key = key is not None
        self.headers = {} if key is None else {"Authorization": f"Bearer {key}"}

    async def models(self) -> list[str]:
        """Names of what is served."""
        return [one["id"] for one in (await self._json("GET", "/v1/models"))["data"]]

    async def schema(self, model: str) -> dict[str, Any]:
        """What a model is and what its fields are."""
        return dict(await self._json("GET", f"/v1/models/{quote(model, safe='')}/schema"))

    async def scores(self, model: str, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """How likely records are."""
        body = {"model": model, "records": records}
        return list((await self._json("POST", "/v1/records/score", body))["data"])

    async def metrics(self) -> dict[str, float]:
        """Figures by name, those of several labels added up."""
        out: dict[str, float] = {}
        async with self._client() as client:
            text = (await _sent(client.get("/metrics"))).text
        for line in text.splitlines():
            if line and not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                name = name.partition("{")[0]
                out[name] = out.get(name, 0.0) + float(value)
        return out

    async def events(
        self, path: str, body: Mapping[str, Any]
    ) -> AsyncGenerator[dict[str, Any], None]:
        """A streamed answer. Closing this closes the connection, and frees the engine's row."""
        async with self._client() as client:
            request = client.build_request("POST", path, json={**body, "stream": True})
            response = await _sent(client.send(request, stream=True))
            try:
                async for line in response.aiter_lines():
                    if not line.startswith("data: ") or line == "data: [DONE]":
                        continue
                    event = json.loads(line[6:])
                    if "error" in event:
                        raise Refused(event["error"]["message"])
                    yield event
            except httpx.HTTPError:
                raise Refused(None) from None
            finally:
                await response.aclose()

    async def _json(self, method: str, path: str, body: Any = None) -> Any:
        async with self._client() as client:
            return (await _sent(client.request(method, path, json=body))).json()

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[httpx.AsyncClient]:
        """No proxy of the environment: what is asked here stays on this machine."""
        async with httpx.AsyncClient(base_url=self.where, headers=self.headers, timeout=WAIT,
                                     trust_env=False) as client:  # fmt: skip
            yield client


async def _sent(coming: Any) -> httpx.Response:
    try:
        response: httpx.Response = await coming
        if response.is_success:
            return response
        await response.aread()
        raise Refused(response.json()["error"]["message"])
    except (httpx.HTTPError, ValueError, KeyError):
        raise Refused(None) from None
