"""The flags of the commands: what each is called and what its help says."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DataArg = Annotated[list[str], typer.Argument(
    help="CSV, TSV, JSONL, Parquet or text files (.gz too); a folder, archive or idx file of "
    "pictures or sounds; builtin:unicode, builtin:glyphs.", metavar="DATA"
)]  # fmt: skip
RunArg = Annotated[Path, typer.Argument(help="A run folder that `train` wrote.", metavar="RUN")]
FieldOpt = Annotated[list[str] | None, typer.Option(
    "--field", help="name:type (text, category, number, datetime, image, audio), instead of what "
    "is inferred."
)]  # fmt: skip
SetOpt = Annotated[list[str] | None, typer.Option(
    "--set", help="Any setting of the recipe: key.path=value (docs/recipe.md)."
)]  # fmt: skip
RecipeOpt = Annotated[Path | None, typer.Option("--recipe", help="A YAML file of settings.")]
EncodingOpt = Annotated[str | None, typer.Option(
    "--encoding", help="Encoding of files that are not UTF-8, such as gb18030."
)]  # fmt: skip
CodeOpt = Annotated[list[str] | None, typer.Option(
    "--allow-code", help="A module of your own that the run may import."
)]  # fmt: skip
SeedOpt = Annotated[int, typer.Option(
    help="The same seed gives the same bytes.", min=0, max=2**32 - 1
)]  # fmt: skip
FormatOpt = Annotated[str, typer.Option(
    "--format", help="table, jsonl or csv; of files that go to --out: png, jpeg, webp, wav, flac, "
    "ogg."
)]  # fmt: skip

# --- generate ------------------------------------------------------------------------------

NumOpt = Annotated[int, typer.Option("-n", help="How many records.", min=1)]
GivenOpt = Annotated[list[str] | None, typer.Option(
    help="field=value, or field=@file for a file's text, picture or sound. Repeat for more."
)]  # fmt: skip
KeepOpt = Annotated[str | None, typer.Option(
    help="What is known of the given picture or sound: a picture that is bright there (of masked "
    "models; others go on from the top), or its first seconds; the rest is made. 60%: of masked "
    "models, as much of it anywhere, for variations."
)]  # fmt: skip
WantOpt = Annotated[str | None, typer.Option(help="Fields to generate; default: all others.")]
PromptOpt = Annotated[str | None, typer.Option(help="The beginning of the text.")]
ChatOpt = Annotated[str | None, typer.Option(
    help="What a user says, put into the chat template of an imported checkpoint."
)]  # fmt: skip
SystemOpt = Annotated[str | None, typer.Option(help="With --chat: what the system says before.")]
SuffixOpt = Annotated[str | None, typer.Option(
    help="The end of the text, which a masked model writes towards."
)]  # fmt: skip
MaxTokensOpt = Annotated[int, typer.Option(help="Most tokens of one text.", min=1)]
StreamOpt = Annotated[bool, typer.Option(
    "--stream", help="Show one text while it is made, without the prompt; a sound as a WAV file on "
    "its way: --stream > sound.wav."
)]  # fmt: skip
OutOpt = Annotated[Path | None, typer.Option(
    "--out", help="Write to a file instead; pictures and sounds: to a new folder, with "
    "results.jsonl and a sheet."
)]  # fmt: skip
NoLabelOpt = Annotated[bool, typer.Option(
    "--no-label", help="Leave out of files' metadata that a model has made them."
)]  # fmt: skip
TemperatureOpt = Annotated[float | None, typer.Option(
    help="0: always the most likely; default: 1."
)]  # fmt: skip
TopKOpt = Annotated[int | None, typer.Option(help="Only the k most likely tokens.")]
TopPOpt = Annotated[float | None, typer.Option(help="Only the likeliest mass p.")]
MinPOpt = Annotated[float | None, typer.Option(
    help="Only tokens at least p times as likely as the best; texts: 0.125, pictures: "
    "0.02, sounds: 0.1."
)]  # fmt: skip
RepetitionOpt = Annotated[float | None, typer.Option(help="Above 1: less repetition.")]
NgramOpt = Annotated[int | None, typer.Option(help="No run of N tokens twice in a text.")]
GuidanceOpt = Annotated[float | None, typer.Option(
    help="Above 1: what is given counts for more, variety for less; default: 1, and 2 for pictures "
    "and sounds."
)]  # fmt: skip
BeamsOpt = Annotated[int, typer.Option(
    help="Above 1: search for the likeliest records instead of drawing."
)]  # fmt: skip
LengthOpt = Annotated[float, typer.Option(
    help="With --beams: how far length is made up for; 0: short texts win."
)]  # fmt: skip
StepsOpt = Annotated[int | None, typer.Option(
    help="Passes of a masked model over a record: 1 for everything at once; default: one for each "
    "token."
)]  # fmt: skip
OrderOpt = Annotated[str | None, typer.Option(
    help="What a masked model chooses next: random, as it does by default, or what it is surest of "
    "(confidence)."
)]  # fmt: skip
RemaskOpt = Annotated[float, typer.Option(
    help="Share of its choices that a masked model takes back in each step."
)]  # fmt: skip
RerankOpt = Annotated[int, typer.Option(
    help="Draw so many candidates for each record and keep the one most like the others (extra "
    "evaluate)."
)]  # fmt: skip
ChoicesOpt = Annotated[str | None, typer.Option(
    help="Texts among which the wanted one is chosen by likelihood: sports,'art, old and new'; "
    "with --temperature 0 the likeliest."
)]  # fmt: skip
AimOpt = Annotated[list[str] | None, typer.Option(
    help="What records are to be like, and how much it counts: domain=sports:2, 'length<=80', "
    "'words>=9', 'readability>60', contains=rain, pattern=REGEX. Repeat for more."
)]  # fmt: skip
CandidatesOpt = Annotated[int | None, typer.Option(
    help="Draws for each record, of which the one that meets its aims best is kept (6); without "
    "aims, the one whose texts are likeliest."
)]  # fmt: skip
ParetoOpt = Annotated[bool, typer.Option(
    "--pareto", help="All candidates that no other beats on all aims, with scores."
)]  # fmt: skip
PlotOpt = Annotated[Path | None, typer.Option(
    help="With --pareto: draw all candidates' scores (.svg; extra report)."
)]  # fmt: skip
SchemaOpt = Annotated[Path | None, typer.Option(
    help="A file with a JSON schema: the text behind the prompt is JSON that obeys it "
    "(extra structured)."
)]  # fmt: skip
RegexOpt = Annotated[str | None, typer.Option(
    help="A regular expression that the whole text behind the prompt matches (extra structured)."
)]  # fmt: skip
GrammarOpt = Annotated[Path | None, typer.Option(
    help="A file with a grammar in Lark's notation, which the text behind the prompt obeys "
    "(extra structured)."
)]  # fmt: skip
StopOpt = Annotated[list[str] | None, typer.Option(help="End a text before this string.")]
NoMissingOpt = Annotated[list[str] | None, typer.Option(
    help="A field that must not come out blank."
)]  # fmt: skip
BaselineOpt = Annotated[str | None, typer.Option(
    help="ngram or template: texts of a plain model instead; takes -n, --given, --seed, --format "
    "and --out."
)]  # fmt: skip
