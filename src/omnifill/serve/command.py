"""`omnifill serve`: reads its arguments and starts the server."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = (
    "Example: omnifill serve run --port 8000 · then, as any client of the OpenAI API does: POST "
    "http://127.0.0.1:8000/v1/completions"
)


BATCH = (
    "Example: omnifill batch run requests.jsonl --out answers.jsonl, a request a line: "
    '{"given": {"kind": "tea"}, "n": 3}'
)


def batch(
    run: Annotated[Path, typer.Argument(help="A run folder.", metavar="RUN")],
    file: Annotated[Path, typer.Argument(
        help="JSON Lines: bodies of /v1/records, or {\"path\": …, \"body\": …} each.",
        metavar="FILE")],
    out: Annotated[Path, typer.Option("--out", help="A line of JSON for each request.")],
    rows: Annotated[int, typer.Option(
        help="Texts or records that are written at once.", min=2, max=256)] = 8,
    threads: Annotated[int | None, typer.Option(
        help="Threads of the engine; default: one for each core.", min=1)] = None,
) -> None:  # fmt: skip
    """Answer a file of requests, such as a server takes; what is stopped goes on where it was."""
    from omnifill.serve.limits import Limits
    from omnifill.serve.run import needs_extra

    with needs_extra():
        from omnifill.serve.batch import run_batch

    limits = dataclasses.replace(Limits(), rows=rows)
    num = run_batch(run, file, out, limits, threads or os.cpu_count() or 1)
    typer.echo(f"{out}: {num} answers", err=True)


def serve(
    runs: Annotated[list[str], typer.Argument(
        help="Run folders that `train` or `import` wrote, each as PATH or NAME=PATH.",
        metavar="RUN")],
    adapter: Annotated[list[str] | None, typer.Option(
        help="NAME=PATH, or NAME=MODEL:PATH: a LoRA adapter as a model of its own beside the "
        "weights of the first RUN, or of another. Repeat for more.")] = None,
    memory: Annotated[float | None, typer.Option(
        help="Gigabytes that all models may take: weights, what is kept of texts while they are "
        "written, and beginnings of prompts (256 MB of each model that writes texts).")] = None,
    port: Annotated[int, typer.Option(help="Where to listen.", min=1, max=65535)] = 8000,
    host: Annotated[str, typer.Option(
        help="The address to listen at; one that others reach needs a key.")] = "127.0.0.1",
    keys: Annotated[Path | None, typer.Option(
        help="A file with a key on each line, one of which every request must bring; or one key "
        "as OMNIFILL_API_KEY.")] = None,
    allow_host: Annotated[list[str] | None, typer.Option(
        help="A name that the server answers to, beside its address. Repeat for more.")] = None,
    rows: Annotated[int, typer.Option(
        help="Texts or records that one model writes at once.", min=2, max=256)] = 8,
    waiting: Annotated[int, typer.Option(
        help="Requests under way at most; one more is told to come again.", min=1)] = 64,
    rate: Annotated[int, typer.Option(
        help="Requests a minute that one key may make; 0: any number.", min=0)] = 0,
    jobs: Annotated[str, typer.Option(
        help="Where long work is kept: a file of SQLite, made when it is needed, or the address of "
        "a PostgreSQL database: postgresql+psycopg://….")] = "omnifill-jobs.sqlite",
    threads: Annotated[int | None, typer.Option(
        help="Threads of the engine; default: one for each core.", min=1)] = None,
    exact: Annotated[bool, typer.Option(
        "--exact", help="Every answer has the same bits whoever else is there: slower for few "
        "requests.")] = False,
    page: Annotated[bool, typer.Option(
        "--page/--no-page",
        help="Show a page at / where the extra `ui` is installed; or the API alone.")] = True,
) -> None:  # fmt: skip
    """Serve models over HTTP: an API that OpenAI's clients speak, and records of any fields."""
    from omnifill.serve.limits import Limits
    from omnifill.serve.run import check_memory, named_adapters, named_runs, read_keys
    from omnifill.serve.run import serve as start
    from omnifill.serve.wire import EngineSettings

    limits = dataclasses.replace(Limits(), rows=rows, waiting=waiting, rate=rate)
    models = named_runs(runs)
    check_memory(models, memory)
    settings = EngineSettings(models, named_adapters(adapter or (), models), rows, exact,
                              threads or os.cpu_count() or 1, memory)  # fmt: skip
    start(settings, host=host, port=port, keys=read_keys(keys), names=allow_host or (),
          limits=limits, jobs=jobs, page=page,
          say=lambda text: typer.echo(text, err=True))  # fmt: skip
