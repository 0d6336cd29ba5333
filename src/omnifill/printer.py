"""What the command line takes as given, and where generated records go."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import typer

from omnifill.api import Model
from omnifill.data.audio import library
from omnifill.data.results import (
    USUAL,
    WRITTEN,
    Origin,
    check_folder,
    wav_head,
    wav_samples,
    write_results,
)
from omnifill.data.sink import check_target, render_table, visible, write_frame
from omnifill.errors import RequestError, unknown_name
from omnifill.files import reason
from omnifill.form.tasks import wanted_from
from omnifill.generate.streaming import streamed
from omnifill.schema import MEDIA, FieldSpec
from omnifill.types import Partial, Sound

FORMATS = ("table", "jsonl", "csv")


def given_values(items: list[str], model: Model, keep: str | None = None) -> dict[str, Any]:
    """['field=value', 'field=@file'] -> values by field; a field's name may hold a '='.

    The value of a picture or sound is its path, with or without the @. `keep`: what of it is known.
    """
    out: dict[str, Any] = {}
    for item in items:
        fitting = [name for name in model.fields if item.startswith(f"{name}=")]
        name = max(fitting, key=len, default=item.partition("=")[0])
        value = item[len(name) + 1 :]
        if "=" not in item:
            raise RequestError(f"--given {item!r}: write it as field=value")
        if name in out:
            raise RequestError(f"--given {item!r}: {name} has a value already; give one")
        if value.startswith("@") and name in model.fields and model.run.schema[name].type in MEDIA:
            value = value[1:]
        elif value.startswith("@"):
            try:
                value = Path(value[1:]).read_text(encoding="utf-8")
            except OSError as error:
                raise RequestError(f"--given {item!r}: {reason(error)}") from None
            except UnicodeDecodeError:
                raise RequestError(f"--given {item!r}: the file is not UTF-8 text") from None
        out[name] = value
    if keep is not None:
        media = [n for n in out if n in model.fields and model.run.schema[n].type in MEDIA]
        if len(media) != 1:
            raise RequestError("--keep says what is known of a picture or a sound: name it with "
                               "--given FIELD=FILE, one alone")  # fmt: skip
        out[media[0]] = Partial(out[media[0]], keep)
    return out


def rule_of(schema: Path | None, regex: str | None, grammar: Path | None) -> dict[str, Any]:
    """What a text must obey, files read, as the API takes it; empty where nothing is said."""
    said = {"schema": _said_in("--schema", schema), "regex": regex,
            "grammar": _said_in("--grammar", grammar)}  # fmt: skip
    return {name: text for name, text in said.items() if text is not None}


def _said_in(option: str, path: Path | None) -> str | None:
    """The text of the file that an option names."""
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise RequestError(f"{option} {path}: {reason(error)}") from None
    except UnicodeDecodeError:
        raise RequestError(f"{option} {path}: is not UTF-8 text") from None


def begun_with(
    prompt: str | None, chat: str | None, system: str | None
) -> str | list[dict[str, str]] | None:
    """The prompt, or what --chat and --system say, as messages."""
    if chat is None and system is None:
        return prompt
    if chat is None or prompt is not None:
        raise RequestError("--chat says what the user says, in place of --prompt; --system goes "
                           "with it")  # fmt: skip
    said = [] if system is None else [{"role": "system", "content": system}]
    return [*said, {"role": "user", "content": chat}]


def check_format(format_: str) -> None:
    """RequestError for a format that is none of `FORMATS`, nor one or more of `WRITTEN`."""
    for part in format_.split(",") if format_ not in FORMATS else []:
        if part not in WRITTEN:
            known = [*WRITTEN, *(() if "," in format_ else FORMATS)]
            raise RequestError(f"--format: {unknown_name('format', part, known)}")


def endings(format_: str, made: Sequence[FieldSpec]) -> dict[str, str]:
    """What files of each type of field are to be. RequestError for a format that none has."""
    named = [] if format_ in FORMATS else format_.split(",")
    for ending in named:
        fitting = [spec for spec in made if spec.type == WRITTEN[ending]]
        if not fitting:
            kind = "pictures" if WRITTEN[ending] == "image" else "sounds"
            raise RequestError(f"--format {ending}: is for {kind}, and none are made here")
        if ending == "jpeg" and any(spec.options.get("mode") == "RGBA" for spec in fitting):
            raise RequestError("--format jpeg: cannot hold what shows through, as pictures of this "
                               "run may; take png or webp")  # fmt: skip
    kinds = [WRITTEN[ending] for ending in named]
    if len(set(kinds)) < len(kinds):
        raise RequestError(f"--format {format_}: names two formats of the same files; name one")
    return USUAL | dict(zip(kinds, named, strict=True))


class Printer:
    """Where generated records go: the screen, a table file, or a folder of media. Checked
    before any are made."""

    def __init__(
        self, model: Model, format_: str, out: Path | None, given: dict[str, Any],
        want: list[str] | None, seed: int, label: bool, stream: bool = False,
    ) -> None:  # fmt: skip
        """`label`: whether files of media say what made them. `stream`: whether one value is shown
        while it is made."""
        self.model, self.format, self.out = model, format_, out
        self.given = {n: v for n, v in given.items() if not isinstance(v, Partial)}
        self.seed, self.label = seed, label
        run = model.run
        wanted = want or wanted_from(run.vocabulary, run.recipe.form, self.given)
        parts = [name for name in given if name not in self.given]
        made = [spec for spec in run.schema.fields if spec.name in {*wanted, *parts}]
        self.media = any(spec.type in MEDIA for spec in made)
        names = [spec.name for spec in made]
        streams = streamed(run, want or names) if stream else None
        sound = streams is not None and streams.slots is not None
        if sound and sys.stdout.isatty():
            raise RequestError("a sound is nothing to read: send it to a player or a file "
                               "(--stream > sound.wav), or name a folder (--out)")  # fmt: skip
        if not label and not (self.media and (out is not None or sound)):
            raise RequestError("--no-label is about files of pictures and sounds (--out DIR), and "
                               "none are written here; leave it out")  # fmt: skip
        self.endings = endings(format_, made)
        table = format_ in FORMATS
        if not table and out is None:
            raise RequestError(f"--format {format_} is of files of their own: name a folder for "
                               f"them (--out DIR)")  # fmt: skip
        ending = out is not None and out.suffix[1:2].isalpha()  # a folder may be called v1.5
        if self.media and ((table and format_ != "table") or ending):
            raise RequestError(
                "pictures and sounds are files of their own: name a folder for them and their "
                "records (--out DIR, without an ending and --format), or --want other fields"
            )
        if out is None:
            return
        if self.media:
            check_folder(out)
            if any(spec.type == "audio" for spec in made):
                library("soundfile")
            return
        check_target(out)
        if format_ != "table" and out.suffix.lower() != f".{format_}":
            raise RequestError(
                f"--format {format_} and --out {out} say different things; the ending of the file "
                f"is enough"
            )

    def show(self, pieces: Iterator[str | Sound]) -> None:
        """One value while it is made: a text as it is, a sound as a WAV file on its way."""
        begun = False
        for piece in pieces:
            if isinstance(piece, Sound):
                head = b"" if begun else wav_head(piece.rate, self._origin())
                sys.stdout.buffer.write(head + wav_samples(piece))
                begun = True
            else:
                typer.echo(visible(piece, "\n\t") if sys.stdout.isatty() else piece, nl=False)
            sys.stdout.flush()
        if not begun:
            typer.echo()

    def _origin(self) -> Origin | None:
        return Origin(self.model.run.sha256, self.seed) if self.label else None

    def __call__(self, table: pd.DataFrame) -> None:
        specs = []
        for name in table.columns:
            if name not in self.model.fields:  # a score
                spec = FieldSpec(name=name, type="number", codec="number", native="float",
                                 options={"decimals": 3})  # fmt: skip
            else:
                spec = self.model.run.schema[name]
            if spec.type in MEDIA and name in self.given:  # as it was given
                table[name] = self.given[name]
                spec = spec.model_copy(update={"type": "text"})
            specs.append(spec)
        if self.out is None:
            typer.echo(render_table(table, specs, self.format), nl=False)
            return
        if self.media:
            write_results(table, specs, self.out, self._origin(), self.endings)
        elif self.out.suffix.lower() == ".txt" and len(specs) > 1:
            raise RequestError(
                f"--out {self.out}: a text file holds one field, and there are {len(specs)}; name "
                f"it .csv, .jsonl or .parquet, or --want one"
            )
        else:
            write_frame(table, specs, self.out)
        typer.echo(f"{self.out}: {len(table)} records", err=True)
