"""`omnifill serve`: reads its arguments and starts the server."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

EXAMPLE = (
    "Example: omnifill serve run --port 8000 · then, as any client of the OpenAI API does: POST "
    "http://127.0.0.1:8000/v1/completions"
)


def serve(
    runs: Annotated[list[str], typer.Argument(
        help="Run folders that `train` or `import` wrote, each as PATH or NAME=PATH.",
        metavar="RUN")],
    port: Annotated[int, typer.Option(help="Where to listen.", min=1, max=65535)] = 8000,
    host: Annotated[str, typer.Option(
        help="The address to listen at; one that others reach needs a key.")] = "127.0.0.1",
    keys: Annotated[Path | None, typer.Option(
        help="A file with a key on each line, one of which every request must bring; or one key "
        "as OMNIFILL_API_KEY.")] = None,
    allow_host: Annotated[list[str] | None, typer.Option(
        help="A name that the server answers to, beside its address. Repeat for more.")] = None,
    rows: Annotated[int, typer.Option(
        help="Texts or records that one model writes at once.", min=1, max=256)] = 8,
    waiting: Annotated[int, typer.Option(
        help="Requests under way at most; one more is told to come again.", min=1)] = 64,
    rate: Annotated[int, typer.Option(
        help="Requests a minute that one key may make; 0: any number.", min=0)] = 0,
    jobs: Annotated[str, typer.Option(
        help="Where long work is kept: a file of SQLite, made when it is needed, or the address of "
        "a PostgreSQL database: postgresql+psycopg://….")] = "omnifill-jobs.sqlite",
    threads: Annotated[int | None, typer.Option(
        help="Threads of the engine; default: one for each core.", min=1)] = None,
    page: Annotated[bool, typer.Option(
        "--page/--no-page",
        help="Show a page at / where the extra `ui` is installed; or the API alone.")] = True,
) -> None:  # fmt: skip
    """Serve models over HTTP: an API that OpenAI's clients speak, and records of any fields."""
    from omnifill.serve.limits import Limits
    from omnifill.serve.run import named_runs, read_keys
    from omnifill.serve.run import serve as start

    limits = dataclasses.replace(Limits(), rows=rows, waiting=waiting, rate=rate)
    start(named_runs(runs), host=host, port=port, keys=read_keys(keys), names=allow_host or (),
          limits=limits, threads=threads, jobs=jobs, page=page,
          say=lambda text: typer.echo(text, err=True))  # fmt: skip
