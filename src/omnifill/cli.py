"""The verbs. No logic: every command reads its arguments, calls the API and prints the result.

Results go to standard output, everything else to standard error. Exit status: 0 done; 2 the
input is wrong; 1 a fault of ours or training that cannot go on; 130 interrupted, state saved.
"""

from __future__ import annotations

import csv
import io
import json
import sys
import time
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from omnifill import __version__
from omnifill.errors import Interrupted, OmnifillError, RequestError, UserError
from omnifill.files import reason
from omnifill.options import (
    AimOpt,
    BaselineOpt,
    BeamsOpt,
    CandidatesOpt,
    ChatOpt,
    ChoicesOpt,
    CodeOpt,
    DataArg,
    EncodingOpt,
    FieldOpt,
    FormatOpt,
    GivenOpt,
    GrammarOpt,
    GuidanceOpt,
    KeepOpt,
    LengthOpt,
    MaxTokensOpt,
    MinPOpt,
    NgramOpt,
    NoLabelOpt,
    NoMissingOpt,
    NumOpt,
    OrderOpt,
    OutOpt,
    ParetoOpt,
    PlotOpt,
    PromptOpt,
    RecipeOpt,
    RegexOpt,
    RemaskOpt,
    RepetitionOpt,
    RerankOpt,
    RunArg,
    SchemaOpt,
    SeedOpt,
    SetOpt,
    StepsOpt,
    StopOpt,
    StreamOpt,
    SuffixOpt,
    SystemOpt,
    TemperatureOpt,
    TopKOpt,
    TopPOpt,
    WantOpt,
)
from omnifill.serve.command import BATCH, EXAMPLE, batch, serve
from omnifill.uncollected import collect_seldom

STARTED = time.monotonic()
"""The budget counts from here."""

app = typer.Typer(
    name="omnifill",
    help="Train a generative model of your own records, then fill any blank from what is given.",
    epilog="Start with: omnifill demo · omnifill inspect my.csv · "
    "omnifill train my.csv --out run --budget 10m",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
)


def _settings(
    fields: list[str] | None, sets: list[str] | None, encoding: str | None, **more: Any
) -> dict[str, Any]:
    """--field, --set and --encoding as dotted paths."""
    from omnifill.paths import parse_sets

    values = {k: v for k, v in more.items() if v is not None}
    values |= parse_sets(sets or [])
    for item in fields or []:
        name, colon, kind = item.rpartition(":")
        if not colon:
            raise RequestError(f"--field {item!r}: write it as name:type, such as age:number")
        values[f"schema.fields.{name}.type"] = kind
    if encoding:
        values["data.encoding"] = encoding
    return values


def _data(data: list[str]) -> Any:
    return data[0] if len(data) == 1 else data


@app.command(epilog="Example: omnifill inspect people.csv --field zip:category")
def inspect(
    data: DataArg, field: FieldOpt = None, set_: SetOpt = None, recipe: RecipeOpt = None,
    encoding: EncodingOpt = None,
    sheet: Annotated[Path | None, typer.Option(
        help="Draw a hundred of the pictures as a model would see them (.png).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:  # fmt: skip
    """Show what was understood: fields, types, blanks, problems by row, split."""
    from omnifill import api
    from omnifill.data.inspect import as_dict, render

    chosen = api.build_recipe(recipe, **_settings(field, set_, encoding))
    found = api.inspect(_data(data), chosen, sheet=sheet)
    typer.echo(json.dumps(as_dict(found), ensure_ascii=False, indent=1) if as_json
               else render(found))  # fmt: skip


@app.command(epilog="Example: omnifill train people.csv --out run --budget 10m · Ctrl-C saves; "
             "--resume goes on.")  # fmt: skip
def train(
    data: DataArg,
    out: Annotated[Path, typer.Option("--out", help="The run folder to write.")],
    budget: Annotated[str | None, typer.Option(
        help="Time from start to end: 90s, 10m, 2h. Default: 10m.")] = None,
    steps: Annotated[int | None, typer.Option(help="Length in optimiser steps.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Length in passes over the data.")] = None,
    given: Annotated[str | None, typer.Option(help="Fields that will be given: a,b.")] = None,
    want: Annotated[str | None, typer.Option(help="Fields to learn to generate: c,d.")] = None,
    field: FieldOpt = None, set_: SetOpt = None, recipe: RecipeOpt = None,
    encoding: EncodingOpt = None,
    codec: Annotated[Path | None, typer.Option(
        help="A run folder: use the codecs of pictures or sounds that it has learned.")] = None,
    valid: Annotated[str | None, typer.Option(
        help="A file of validation rows; none are then split off.")] = None,
    base: Annotated[Path | None, typer.Option(
        help="A run, or a folder as the Hugging Face libraries write one: train its network "
             "further (--set train.lora.rank=8: no more than small additions to it).")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    seed: Annotated[int | None, typer.Option(min=0, help="Same seed, same bytes.")] = None,
) -> None:  # fmt: skip
    """Train a model of DATA into a run folder."""
    from omnifill import api

    if given is not None and want is None:
        raise RequestError("--given needs --want: which fields are to be generated from them?")
    more = {"data.split.valid_file": valid, "train.codec": codec and str(codec),
            "train.base": base and str(base)}  # fmt: skip
    chosen = api.build_recipe(recipe, **_settings(field, set_, encoding, **more))
    model = api.train(
        _data(data), out, budget=budget, steps=steps, epochs=epochs,
        given=_names("--given", given), want=_names("--want", want), recipe=chosen,
        resume=resume, seed=seed, started=STARTED,
    )  # fmt: skip
    state = model.run.folder.read_state()["training"]
    best = "" if state["valid"] is None else f", validation loss {state['valid']:.4f}"
    early = " (from its best point on, since validation got worse)" if state["over_fitted"] else ""
    typer.echo(f"{out}: {state['steps']} steps in {state['seconds']} s{best}{early}")
    tasks = model.run.recipe.form.tasks[:1]
    ask = "".join(f" --given {name}=…" for task in tasks for name in task.given)
    typer.echo(f"next: omnifill generate {out}{ask} -n 5 · omnifill evaluate {out}", err=True)


def _names(option: str, text: str | None) -> list[str]:
    """'a,b' -> ['a', 'b'], and '"a,b",c' -> ['a,b', 'c']; not given: []."""
    cells = next(csv.reader([text or ""], skipinitialspace=True), [])
    names = [name.strip() for name in cells if name.strip()]
    if text is not None and not names:
        raise RequestError(f"{option} {text!r}: names nothing; write it as a,b")
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise RequestError(f"{option} {text!r}: names {', '.join(sorted(twice))} twice")
    return names


@app.command(epilog="Examples: omnifill generate run -n 5 --given stars=1 --want review · "
             "omnifill generate run --prompt 'Once upon' --stream · "
             "omnifill generate run --schema person.json")  # fmt: skip
def generate(
    run: RunArg, n: NumOpt = 1, given: GivenOpt = None, keep: KeepOpt = None,
    want: WantOpt = None, prompt: PromptOpt = None, chat: ChatOpt = None, system: SystemOpt = None,
    suffix: SuffixOpt = None, max_tokens: MaxTokensOpt = 512,
    stream: StreamOpt = False, format_: FormatOpt = "table", out: OutOpt = None,
    temperature: TemperatureOpt = None, top_k: TopKOpt = None, top_p: TopPOpt = None,
    min_p: MinPOpt = None, repetition_penalty: RepetitionOpt = None,
    no_repeat_ngram: NgramOpt = None,
    guidance: GuidanceOpt = None, beams: BeamsOpt = 1, length_penalty: LengthOpt = 0.6,
    steps: StepsOpt = None, order: OrderOpt = None, remask: RemaskOpt = 0.0,
    rerank: RerankOpt = 1, aim: AimOpt = None, candidates: CandidatesOpt = None,
    pareto: ParetoOpt = False, plot: PlotOpt = None, stop: StopOpt = None,
    no_missing: NoMissingOpt = None, choices: ChoicesOpt = None, baseline: BaselineOpt = None,
    schema: SchemaOpt = None, regex: RegexOpt = None, grammar: GrammarOpt = None,
    no_label: NoLabelOpt = False, seed: SeedOpt = 0, allow_code: CodeOpt = None,
) -> None:  # fmt: skip
    """Generate records: any fields from any others."""
    from omnifill import api
    from omnifill.generate.filters import Sampling
    from omnifill.printer import Printer, begun_with, check_format, given_values, rule_of

    check_format(format_)
    rule = rule_of(schema, regex, grammar)
    begun: Any = begun_with(prompt, chat, system)
    model = api.load(run, allow_code or ())
    wanted = [want] if want in model.fields else _names("--want", want) or None
    values = given_values(given or [], model, keep)
    printer = Printer(model, format_, out, values, wanted, seed, not no_label, stream)
    sampling: dict[str, Any] = {
        "temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p,
        "repetition_penalty": repetition_penalty, "no_repeat_ngram": no_repeat_ngram,
        "guidance": guidance, "beams": beams, "length_penalty": length_penalty, "steps": steps,
        "order": order, "remask": remask,
    }  # fmt: skip
    sampling = {name: value for name, value in sampling.items() if value is not None}
    if baseline is not None:
        more = [wanted, begun, suffix, stream, stop, no_missing, max_tokens != 512, rerank != 1,
                aim, candidates, pareto, plot, choices, rule]  # fmt: skip
        if any(more) or Sampling(**sampling) != Sampling():
            raise RequestError(
                "--baseline takes -n, --given, --seed, --format and --out; leave out the rest"
            )
        printer(model.baseline(baseline, n, given=values, seed=seed))
        return
    if pareto or plot is not None:
        if not pareto:
            raise RequestError("--plot draws what --pareto finds: say that, too")
        beside = {
            "--suffix": suffix, "--stream": stream, "--stop": stop, "--no-missing": no_missing,
            "--candidates": candidates, "--choices": choices, "--rerank": rerank != 1,
            "--schema, --regex or --grammar": rule,
        }  # fmt: skip
        if given_too := [name for name, value in beside.items() if value]:
            raise RequestError(f"--pareto shows the best of 6 times -n candidates by --aim; leave "
                               f"out {', '.join(given_too)}")  # fmt: skip
        table = model.pareto(aim or [], n=n, given=values, want=wanted, prompt=begun, seed=seed,
                             max_tokens=max_tokens, plot=plot, **sampling)  # fmt: skip
        printer(table)
        return
    if stream:
        more = [n != 1, aim, candidates, choices, rerank != 1, out, suffix, len(wanted or []) > 1]
        if any(more) or format_ != "table":
            raise RequestError(
                "--stream shows one text or sound as it is: leave out -n, --rerank, --aim, "
                "--choices, --format, --out, --suffix and further fields"
            )
        pieces = model.stream(
            given=values, want=wanted[0] if wanted else None, prompt=begun, seed=seed,
            max_tokens=max_tokens, stop=stop or (), **rule, **sampling,
        )  # fmt: skip
        printer.show(pieces)
        return
    table = model.generate(
        n, given=values, want=wanted, prompt=begun, suffix=suffix, seed=seed,
        max_tokens=max_tokens, no_missing=no_missing or (), stop=stop or (), rerank=rerank,
        aims=aim or (), candidates=candidates,
        choices=None if choices is None else _names("--choices", choices), **rule, **sampling,
    )  # fmt: skip
    printer(table)


@app.command(epilog="Example: omnifill fill run holes.csv --out whole.csv")
def fill(
    run: RunArg,
    file: Annotated[str, typer.Argument(help="A table with blank cells.", metavar="FILE")],
    out: Annotated[Path, typer.Option(
        "--out", help="The file to write (.csv .tsv .jsonl .parquet).")],
    draw: Annotated[bool, typer.Option(
        "--draw", help="Sample, instead of the mode or median.")] = False,
    beams: Annotated[int, typer.Option(
        help="Above 1: search for the likeliest texts, instead of token by token.")] = 1,
    encoding: EncodingOpt = None,
    seed: SeedOpt = 0,
    allow_code: CodeOpt = None,
) -> None:  # fmt: skip
    """Fill every blank cell of a table and touch no other."""
    from omnifill import api
    from omnifill.data.inspect import count

    filled = api.fill_file(api.load(run, allow_code or ()), file, out, draw=draw, seed=seed,
                           encoding=encoding, beams=beams)  # fmt: skip
    typer.echo(f"{out}: {count(filled, 'blank cell')} filled")


@app.command(epilog="Examples: omnifill evaluate run · omnifill evaluate run new.csv --json · "
             "omnifill evaluate run --report report.html · "
             "omnifill evaluate pictures --vae 10m · "
             "omnifill evaluate run other-run")  # fmt: skip
def evaluate(
    run: RunArg,
    data: Annotated[list[str] | None, typer.Argument(
        help="Another run, to set beside it; unseen records (default: the run's own test part).",
        metavar="[RUN] [DATA]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    report: Annotated[Path | None, typer.Option(
        help="Write a page to look at: figures, pictures, samples, what to distrust.")] = None,
    vae: Annotated[str | None, typer.Option(
        help="Beside pictures or sounds, also train a convolutional VAE for that long (10m), as "
             "one more baseline.", metavar="DURATION")] = None,
    allow_code: CodeOpt = None,
) -> None:  # fmt: skip
    """Measure quality on records that the model has not seen, beside plain baselines; or two runs
    side by side, with a paired test of each difference."""
    from omnifill import api
    from omnifill.evaluate.compare import render_comparison
    from omnifill.evaluate.run import render
    from omnifill.state import is_run

    model = api.load(run, allow_code or ())
    if data and is_run(Path(data[0])):
        if report is not None or vae is not None:
            raise RequestError("--report and --vae go with one run; leave out the other")
        other = api.load(data[0], allow_code or ())
        result = model.compare(other, _data(data[1:]) if data[1:] else None)
        shown = render_comparison(result, (str(run), data[0]))
    else:
        result = model.evaluate(_data(data) if data else None, report=report, vae=vae)
        shown = render(result)
    typer.echo(json.dumps(result, ensure_ascii=False) if as_json else shown)


@app.command(name="import", epilog="Example: omnifill import Qwen3-0.6B/ --out qwen · "
             "omnifill generate qwen --prompt 'Once upon' --max-tokens 100")  # fmt: skip
def import_(
    source: Annotated[Path, typer.Argument(
        help="A local folder with config.json, safetensors and tokenizer.json.")],
    out: Annotated[Path, typer.Option("--out", help="The run folder to write.")],
    adapter: Annotated[Path | None, typer.Option(
        help="A folder with a LoRA adapter as PEFT writes it, to be merged in.")] = None,
) -> None:  # fmt: skip
    """Make a run of a checkpoint that the Hugging Face libraries wrote: GPT-2, Llama, Mistral,
    Qwen, T5, BART, BERT, RoBERTa. Nothing in it is run, and nothing is downloaded."""
    from omnifill import api

    model = api.import_checkpoint(source, out, adapter=adapter)
    size = sum(p.numel() for p in model.run.network.parameters())
    ask = "--given source=TEXT" if len(model.run.schema.fields) > 1 else "--prompt TEXT"
    typer.echo(f"{out}: {size:,} weights; next: omnifill generate {out} {ask}", err=True)


@app.command(epilog="Example: omnifill convert story --weights int8 --out story-int8")
def convert(
    run: RunArg,
    out: Annotated[Path, typer.Option("--out", help="The run folder to write.")],
    weights: Annotated[str, typer.Option(help="int8 or bf16.")] = "int8",
    data: Annotated[Path | None, typer.Option(
        help="Records on which to measure what it costs; default: those that the run kept aside.")
    ] = None,
    allow_code: CodeOpt = None,
) -> None:  # fmt: skip
    """Keep a run's weights in fewer bits, to generate with: smaller, and faster where reading them
    is what takes time. Says how much likelihood it costs."""
    from omnifill import api

    cost = api.load(run, allow_code or ()).convert(out, weights, data)
    size = (out / "model.safetensors").stat().st_size
    said = "not measured: name records with --data" if cost is None else str(cost)
    typer.echo(f"{out}: {size / 1e6:,.1f} MB; {said}", err=True)


@app.command(epilog="Example: omnifill export story --format hf --out story-hf")
def export(
    run: RunArg,
    out: Annotated[Path, typer.Option("--out", help="The folder (gguf: file) to write.")],
    format_: Annotated[str, typer.Option(
        "--format", help="hf, for the Hugging Face libraries; gguf, for llama.cpp.")] = "hf",
    allow_code: CodeOpt = None,
) -> None:  # fmt: skip
    """Write a run of one text as others read it: config.json, safetensors and tokenizer.json, or
    one GGUF file."""
    from omnifill import api

    api.load(run, allow_code or ()).export(out, format=format_)
    typer.echo(f"{out}: written", err=True)


app.command(epilog=EXAMPLE)(serve)
app.command(epilog=BATCH)(batch)


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="The run folder to write.")] = Path("demo-run"),
    budget: Annotated[str, typer.Option(help="Time for training.")] = "75s",
) -> None:
    """Built-in real data: train, generate, fill, evaluate, in a few minutes."""
    from omnifill.demo import run_demo

    run_demo(out, budget, typer.echo)


@app.callback(invoke_without_command=True)
def top(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(f"omnifill {__version__}")
        raise typer.Exit()


def main() -> None:
    """Run a command; turn our errors into one message and an exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper) and not sys.stdout.isatty():
        sys.stdout.reconfigure(encoding="utf-8")  # files and pipes, whatever the system's habit
    warnings.showwarning = _warn
    collect_seldom()
    try:
        app()
    except UserError as error:
        _leave(f"error: {error}", 2)
    except Interrupted as error:
        _leave(f"interrupted: {error}", 130)
    except OmnifillError as error:
        _leave(f"error: {error}", 1)
    except KeyboardInterrupt:
        _leave("interrupted", 130)
    except SystemExit as leaving:
        if isinstance(leaving.__context__, BrokenPipeError):
            sys.exit(0)  # the reader of a pipe has had enough; typer makes a failure of it
        if leaving.code == 130:  # Ctrl-C, of which typer makes this without a word
            _leave("interrupted", 130)
        raise
    except OSError as error:  # a full disk, a folder that may not be written
        _leave(f"error: {error.filename or 'output'}: {reason(error)}", 2)


_said: set[str] = set()


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    shown = f"warning: {message}"
    if shown not in _said:  # the same of another stage says nothing new
        _said.add(shown)
        print(shown, file=sys.stderr)


def _leave(message: str, status: int) -> None:
    print(message, file=sys.stderr)
    sys.exit(status)
