"""The map: every action, stage by stage, each stage one call.

A record's way through the program can be read off `train` and `Model.generate`:
source -> schema -> staged rows -> codecs -> encoded rows -> network + objective -> sampler ->
codecs -> record. Nothing here computes; it says what happens in which order.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from omnifill import exchange
from omnifill.artifact import LoadedRun, RunFolder, code_named_in, open_run
from omnifill.base import adapted, open_base, with_texts_of
from omnifill.data.infer import infer_schema
from omnifill.data.inspect import Inspection, draw_sheet, inspect_data
from omnifill.data.profile import profile
from omnifill.data.results import Origin, media_beside
from omnifill.data.sink import check_ending, check_target, format_of, write_cells
from omnifill.data.source import later, open_source
from omnifill.data.stage import open_staged, stage
from omnifill.errors import RequestError, RunError, check_kind
from omnifill.evaluate.baselines import generate_baseline
from omnifill.evaluate.compare import compare_runs
from omnifill.evaluate.plots import check_drawing, front_plot, write_plot
from omnifill.evaluate.report import write_report
from omnifill.evaluate.run import evaluate_run
from omnifill.form.tasks import check_tasks
from omnifill.form.vocabulary import Vocabulary
from omnifill.generate import requests, streaming, tables, wishes
from omnifill.generate.aims import Goal
from omnifill.generate.chat import Messages
from omnifill.generate.constraint import parse_rule
from omnifill.generate.trace import Token, traced
from omnifill.generate.wishes import Wish, sampling_of
from omnifill.lengths import parse_duration
from omnifill.model.compiled import compile_steps
from omnifill.objectives.table import on_canvas
from omnifill.prepare import (
    encode_parts,
    fit_codecs,
    open_taken,
    settle_windows,
    staged_columns,
    take_codecs,
)
from omnifill.recipe import Recipe, from_dict, load_recipe, to_dict
from omnifill.session import Session
from omnifill.train.metrics import LiveLine
from omnifill.types import Codec

Data = str | Path | Sequence[str | Path] | pd.DataFrame


def build_recipe(
    recipe: Recipe | Path | str | Mapping[str, Any] | None = None, **values: Any
) -> Recipe:
    """A recipe from a file, a tree or nothing, with dotted paths set on top."""
    if isinstance(recipe, (str, Path)):
        recipe = load_recipe(Path(recipe))
    elif not isinstance(recipe, Recipe):
        recipe = from_dict(recipe or {})
    length = [k for k in ("budget", "steps", "epochs") if values.get(f"train.{k}") is not None]
    if length:  # a length said now replaces the file's
        tree = to_dict(recipe)
        tree["train"] |= {"budget": None, "steps": None, "epochs": None}
        recipe = from_dict(tree)
    return recipe.with_values(**{k: v for k, v in values.items() if v is not None})


def inspect(
    data: Data, recipe: Recipe | None = None, *, sheet: str | Path | None = None
) -> Inspection:
    """What would be understood of `data`, before any time is spent. `sheet`: where to draw some of
    its pictures (.png)."""
    if sheet is not None:
        check_ending("--sheet", Path(sheet), ".png")
    found = inspect_data(data, recipe or Recipe())
    if sheet is not None:
        draw_sheet(found, Path(sheet))
    return found


def train(
    data: Data, out: str | Path | None = None, *, budget: str | None = None,
    steps: int | None = None, epochs: float | None = None, given: Sequence[str] | str = (),
    want: Sequence[str] | str = (), recipe: Recipe | Path | str | Mapping[str, Any] | None = None,
    resume: bool = False, seed: int | None = None, started: float | None = None,
    live: LiveLine | None = None,
) -> Model:  # fmt: skip
    """Train a model of `data` into the run folder `out` and return it.

    At most one of `budget` ('10m'), `steps`, `epochs` sets the length. `given` and `want` name a
    task; without them any fields can be generated from any others. `started` is
    `time.monotonic()` at the moment the budget counts from. Raises UserError for wrong input.
    """
    started = time.monotonic() if started is None else started
    folder = RunFolder(Path(out) if out is not None else Path(tempfile.mkdtemp(prefix="omnifill-")))
    tasks = [{"given": _listed(given), "want": _listed(want)}] if want else None
    chosen = build_recipe(recipe, **{
        "train.budget": budget, "train.steps": steps, "train.epochs": epochs,
        "train.seed": seed, "form.tasks": tasks,
    })  # fmt: skip
    for key in ("codec", "base"):
        if (named := getattr(chosen.train, key)) is not None:  # the recipe is read from anywhere
            chosen = chosen.with_values(**{f"train.{key}": str(Path(named).resolve())})
    live, asked = live or LiveLine(), to_dict(chosen)
    if resume and not folder.path.exists():
        raise RunError(f"{folder.path}: there is no run to go on with; leave out --resume to begin")
    with Session(folder, started, live) as session:
        if resume and session.is_prepared():
            session.check_same(_described(data), chosen)
        else:
            session.start_afresh(resume)
            session.asked_for = {"data": _described(data), "recipe": asked}
            shared, base = open_taken(chosen), open_base(chosen)
            source = open_source(data, chosen.data)
            schema = infer_schema(profile(source, chosen), chosen)
            schema, taken = take_codecs(schema, chosen, shared)
            for name in taken:
                live.say(f"{name}: {schema[name].why}")
            told: dict[str, Codec] = {}
            if base is not None:
                schema, told = with_texts_of(base, schema, chosen)
            valid_file = chosen.data.split.valid_file
            valid = open_source(valid_file, chosen.data) if valid_file else None
            staged = stage(source, schema, chosen, folder.staged, valid)
            codecs = fit_codecs(staged, schema, chosen, taken | told)
            canvas = on_canvas(chosen.objective.name)
            check_tasks(Vocabulary(schema, codecs, canvas), chosen.form)
            session.keep(chosen, schema, codecs, taken)
        if not session.is_decided():
            staged = open_staged(folder.staged)
            chosen, schema, codecs = session.teach(staged)
            vocabulary = Vocabulary(schema, codecs, on_canvas(chosen.objective.name))
            chosen = settle_windows(staged, vocabulary, chosen)
            notes = [*staged.notes, *encode_parts(staged, vocabulary, chosen, folder)]
            session.decide(chosen, schema, codecs, vocabulary, notes)
        session.fit()
    return load(folder.path, code_named_in(chosen))


def load(run: str | Path, allow_code: Sequence[str] = ()) -> Model:
    """Open a trained run folder. Code of the run's own must be allowed by module name."""
    check_kind("run", run, (str, Path), "the path of a run folder")
    return Model(open_run(Path(run), allow_code))


def import_checkpoint(
    source: str | Path, out: str | Path, *, adapter: str | Path | None = None
) -> Model:
    """A checkpoint as the Hugging Face libraries write one, turned into the run folder `out`.

    `source`: a local folder with config.json, safetensors and tokenizer.json; `adapter`: one with
    a LoRA adapter as PEFT writes it, which is merged in. Raises RunError for what cannot be run
    exactly as where it came from.
    """
    for name, value in (("source", source), ("out", out), ("adapter", adapter or out)):
        check_kind(name, value, (str, Path), "the path of a folder")
    exchange.import_checkpoint(Path(source), Path(out), None if adapter is None else Path(adapter))
    return load(out)


class Model:
    """A trained model of records."""

    def __init__(self, run: LoadedRun) -> None:
        self.run = run

    @property
    def fields(self) -> list[str]:
        """Names of the fields, in order."""
        return self.run.schema.names

    def generate(
        self, n: int = 1, *, given: Mapping[str, Any] | None = None,
        want: Sequence[str] | str | None = None, prompt: str | Messages | None = None,
        seed: int = 0, max_tokens: int = 512, missing: bool = True,
        no_missing: Sequence[str] | str = (),
        stop: Sequence[str] = (), rerank: int = 1, aims: Sequence[Goal] | Goal = (),
        candidates: int | None = None, suffix: str | None = None,
        choices: Sequence[str] | None = None, schema: Any = None, regex: str | None = None,
        grammar: str | None = None, **sampling: Any,
    ) -> pd.DataFrame:  # fmt: skip
        """`n` new records as a DataFrame with the source's types.

        `given`: values that are known, a picture or sound also in part (`Partial`); `want`: fields
        to generate (default: all others); `prompt`: the beginning of the (first wanted) text, or
        messages ({'role': 'user', 'content': 'Hello'}) for an imported checkpoint's chat template;
        `suffix`: its end, for masked models;
        `rerank`: candidates drawn for each
        record, of which the one most like the others is kept; `aims`: what records are to be
        like, such as 'domain=sports:2', 'length<=80', 'contains=rain' or a function of a record
        that gives 0 to 1 (see `generate.aims`), the best of `candidates` (6) draws is kept, with a
        warning where one falls short; `choices`: texts among which the wanted one is drawn by how
        likely each is, seen in training or not; `schema` (JSON, a dict or a pydantic model),
        `regex` or `grammar` (Lark): what the first wanted text obeys behind its prompt, always and
        to its end (needs the extra `structured`); `sampling`: temperature, top_k, top_p, min_p,
        repetition_penalty, presence_penalty, frequency_penalty, logit_bias (a number by token),
        no_repeat_ngram, guidance, beams, length_penalty; of masked models
        steps, order, remask. With beams the records are the likeliest ones, the best first. Raises
        RequestError or ValueRefused.
        """
        wish = Wish(
            n, given, _listed(want), prompt, suffix, seed=seed, max_tokens=max_tokens,
            no_missing=_listed(no_missing) if missing else self.fields, stop=stop,
            sampling=sampling_of(self.run, sampling), rerank=rerank, aims=_goals(aims),
            candidates=candidates, choices=choices, rule=parse_rule(schema, regex, grammar),
        )  # fmt: skip
        return requests.run(self.run, wishes.build(self.run, wish))

    def pareto(
        self, aims: Sequence[Goal], *, n: int = 8, given: Mapping[str, Any] | None = None,
        want: Sequence[str] | str | None = None, prompt: str | None = None, seed: int = 0,
        max_tokens: int = 512, plot: str | Path | None = None, **sampling: Any,
    ) -> pd.DataFrame:  # fmt: skip
        """Of `n` times 6 candidates those that no other beats on all aims, with a column of scores
        for each aim. `plot`: where to draw all of them (.svg; the extra `report`)."""
        if plot is not None:
            check_drawing("--plot", Path(plot), ".svg")
        wish = Wish(n, given, _listed(want), prompt, seed=seed, max_tokens=max_tokens,
                    sampling=sampling_of(self.run, sampling), aims=_goals(aims))  # fmt: skip
        request = wishes.build(self.run, wish)
        if len(request.aims) < 2:
            raise RequestError("pareto weighs aims against each other; name two or more")
        table, scores = requests.front(self.run, request)
        if plot is not None:
            names = [str(name) for name in table][-len(request.aims) :]
            write_plot(front_plot(names, table[names].to_numpy(), scores), Path(plot))
        return table

    def stream(
        self, *, given: Mapping[str, Any] | None = None, want: str | None = None,
        prompt: str | Messages | None = None, seed: int = 0, max_tokens: int = 512,
        stop: Sequence[str] = (), schema: Any = None, regex: str | None = None,
        grammar: str | None = None, **sampling: Any,
    ) -> Iterator[Any]:  # fmt: skip
        """One field, piece by piece while it is made: a text, never splitting a character, or
        `Sound`s that follow each other."""
        wish = Wish(
            1, given, None if want is None else [want], prompt, seed=seed, max_tokens=max_tokens,
            no_missing=self.fields, stop=stop, sampling=sampling_of(self.run, sampling),
            rule=parse_rule(schema, regex, grammar),
        )  # fmt: skip
        return streaming.stream(self.run, wishes.build(self.run, wish), want)

    def tokens(
        self, n: int = 1, *, top: int = 5, given: Mapping[str, Any] | None = None,
        want: Sequence[str] | str | None = None, prompt: str | Messages | None = None,
        seed: int = 0, max_tokens: int = 512, stop: Sequence[str] = (), **sampling: Any,
    ) -> list[list[Token]]:  # fmt: skip
        """What `generate` chooses, token by token: how likely each was, and the `top` likeliest
        ones there. Not for masked models."""
        wish = Wish(n, given, _listed(want), prompt, seed=seed, max_tokens=max_tokens, stop=stop,
                    sampling=sampling_of(self.run, sampling))  # fmt: skip
        return traced(self.run, wishes.build(self.run, wish), top)

    def fill(
        self, table: pd.DataFrame, *, draw: bool = False, seed: int = 0, **sampling: Any
    ) -> pd.DataFrame:
        """A copy with every blank cell filled and no other cell touched.

        Answers with the mode, or the median of numbers and dates; `draw` samples instead, and
        `beams` searches for the likeliest texts.
        """
        chosen = sampling_of(self.run if draw else None, sampling)
        return tables.fill(self.run, table, draw=draw, seed=seed, sampling=chosen)

    def score(self, table: pd.DataFrame) -> pd.DataFrame:
        """Log-likelihood in nats of every row and of each of its fields.

        The row's column is 'row', or '(row)' where a field has that name. Fields stand in schema
        order: each is scored given those before it. Columns that are not in the table are absent:
        nothing is conditioned on them. A category that training never saw has -inf, and a warning
        names it.
        """
        return tables.score(self.run, table)

    def embed(self, records: pd.DataFrame | Sequence[str]) -> NDArray[np.float32]:
        """(N, D): a vector for each record, the mean over its slots; or for each of N texts, as the
        first text that the model reads."""
        return tables.embed(self.run, records)

    def probabilities(
        self, table: pd.DataFrame, field: str, *, choices: Sequence[str] | None = None
    ) -> pd.DataFrame:
        """For a category: the probability of each value in each row, given the row's others. For a
        text: that of each of the `choices`, which need not have been seen in training."""
        return tables.probabilities(self.run, table, field, choices)

    def evaluate(
        self, data: Data | None = None, *, report: str | Path | None = None,
        vae: str | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Measures on records that the model has not seen: `data`, or the run's test part.

        `report`: where to write a page to look at (needs the extra `report`). `vae`: a time such
        as '10m', for which a convolutional VAE is trained on the same pictures or sounds, as one
        more baseline.
        """
        if report is not None:
            check_drawing("--report", Path(report), ".html", ".htm")
        seconds = _seconds("--vae", vae) if vae is not None else 0.0
        found = evaluate_run(self.run, self._unseen(data), *self._learned_from(), vae=seconds)
        if report is not None:
            write_report(self.run, found, Path(report))
        return found.figures

    def compare(self, other: Model, data: Data | None = None) -> dict[str, Any]:
        """This model (a) and another (b) on the same unseen records, with paired tests.

        `data`: records that neither has seen; without it both must have kept the same ones aside.
        Raises RequestError where there is nothing to compare.
        """
        ours, theirs = self._unseen(data), other._unseen(data)
        shared = [name for name in ours if name in theirs]
        if data is None and any(ours[name] != theirs[name] for name in shared):
            raise RequestError(
                "the two runs kept different records aside, so one may have learned from the "
                "other's; name records that neither has seen: omnifill evaluate A B DATA"
            )
        return compare_runs((self.run, ours), (other.run, theirs))

    def baseline(
        self, name: str, n: int = 1, *, given: Mapping[str, Any] | None = None, seed: int = 0
    ) -> pd.DataFrame:
        """`n` records of a plain model of the texts, learned from the run's training part.

        `name`: 'ngram' (Kneser-Ney) or 'template' (frequent patterns, refilled).
        """
        train, valid = self._learned_from()
        return generate_baseline(self.run, name, n, train, valid, given=given or {}, seed=seed)

    def compiled(self) -> Model:
        """The same model with its steps compiled, which takes up to a minute once: recurrent and
        convolutional networks then write long texts faster. RequestError for others."""
        compile_steps(self.run.network)
        return self

    def adapted(self, adapter: str | Path) -> Model:
        """The same model with a LoRA adapter (a folder as PEFT writes it) beside its weights, which
        both share: several over one base cost no more than themselves."""
        check_kind("adapter", adapter, (str, Path), "the path of a folder")
        network = adapted(self.run.folder, self.run.network, Path(adapter))
        return Model(dataclasses.replace(self.run, network=network))

    def export(self, out: str | Path, *, format: str = "hf") -> None:
        """Write the folder `out`, which the Hugging Face libraries (`hf`) load with equal logits,
        or the file `out` for llama.cpp (`gguf`).

        Raises RunError for a run that is no causal transformer of one text.
        """
        check_kind("out", out, (str, Path), "a path")
        exchange.export(self.run, Path(out), format)

    def convert(
        self, out: str | Path, weights: str, data: Data | None = None
    ) -> exchange.Rounded | None:
        """Write the run folder `out` with `weights` of fewer bits ('bf16' or 'int8'), to generate
        with. Returns what rounding cost on unseen records: `data`, or those kept aside, if any."""
        check_kind("out", out, (str, Path), "the path of a folder")
        known = data is not None or self.run.folder.staged.exists()
        unseen = self._unseen(data) if known else None
        exchange.convert(self.run, Path(out), weights)
        return exchange.rounded(self.run, open_run(Path(out)), unseen) if unseen else None

    def _unseen(self, data: Data | None) -> dict[str, list[Any]]:
        """Records to measure on: `data`, or those that training kept aside."""
        if data is None and not self.run.folder.staged.exists():
            raise RequestError("this run holds no records (it was imported or converted, or its "
                               "data/ was taken away); name some to measure on")  # fmt: skip
        if data is None:
            return staged_columns(self.run.folder, "test")
        source = open_source(data, later(self.run.recipe.data))
        return tables.read_columns(self.run, source)

    def _learned_from(self) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
        """The run's training and validation parts; empty where its data/ was taken away."""
        if not self.run.folder.staged.exists():
            return {}, {}
        train, valid = (staged_columns(self.run.folder, part) for part in ("train", "valid"))
        return train, valid


def fill_file(
    model: Model, file: str | Path, out: Path, *, draw: bool = False, seed: int = 0,
    encoding: str | None = None, **sampling: Any,
) -> int:  # fmt: skip
    """Fill the blank cells of a table file, touch no other, and return how many there were.

    Pictures and sounds that are made for them go to a folder beside `out`, named after it.
    """
    check_target(out)
    chosen = sampling_of(model.run if draw else None, sampling)
    tables.check_fill(model.run, draw, chosen)
    if Path(file).exists() and out.exists() and out.samefile(file):
        raise RequestError(f"{out}: is the table that is filled; name another file with --out")
    source = open_source(file, later(model.run.recipe.data, encoding))
    if format_of(out) == "txt" and len(source.names) > 1:
        raise RequestError(f"{out}: a text file holds no table; name it .csv, .jsonl or .parquet")
    files = out.with_name(f"{out.name}-files")
    filled, raw = tables.fill_source(
        model.run, source, draw=draw, seed=seed, sampling=chosen, files=files
    )
    with media_beside(raw, model.run.schema.fields, files, Origin(model.run.sha256, seed)) as cells:
        write_cells(cells, out, source.delimiter, source.line_end)
    return filled


def _described(data: Data) -> list[Any]:
    """What a resumed run must find again: names and sizes of files, or the shape of a table."""
    if isinstance(data, pd.DataFrame):
        return [[[str(name) for name in data.columns], len(data)]]
    paths = [Path(p) for p in ([data] if isinstance(data, (str, Path)) else data)]
    return [[p.name, p.stat().st_size if p.is_file() else None] for p in paths]


def _seconds(option: str, duration: str) -> float:
    try:
        seconds = parse_duration(duration)
    except ValueError as error:
        raise RequestError(f"{option}: {error}") from None
    if not seconds:
        raise RequestError(f"{option}: must be longer than nothing; write 90s, 10m or 2h")
    return seconds


def _goals(aims: Sequence[Goal] | Goal) -> Sequence[Goal]:
    return [aims] if isinstance(aims, str) or callable(aims) else aims


def _listed(names: Sequence[str] | str | None) -> list[str]:
    """One name by itself is a list of one."""
    check_kind("names", names, (str, Sequence, type(None)), "a name or a list of names")
    return [names] if isinstance(names, str) else list(names or ())


# Importing the package `omnifill.train` has put it where the public function of that name belongs.
setattr(sys.modules["omnifill"], "train", train)  # noqa: B010
