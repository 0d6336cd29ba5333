"""One training session in a run folder: its lock, its decisions, its signals, its end.

The folder's state goes preparing -> training -> done. What a resumed session needs is written
before the first step; a folder that was still preparing starts afresh.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from textwrap import shorten
from types import FrameType
from typing import Any

import numpy as np
from torch import nn

from omnifill.artifact import LoadedRun, RunFolder, codec_folders
from omnifill.base import alphabet_beside, begin_with, built, finished, open_base
from omnifill.data.shards import Shard, open_shard
from omnifill.data.stage import Staged
from omnifill.errors import DataError, Interrupted, RecipeError, RunError
from omnifill.exchange import ORIGIN
from omnifill.files import is_alive, reason, write_atomic
from omnifill.form.layout import check_served
from omnifill.form.stream import BatchStream, Position, epoch_ids, eval_batches
from omnifill.form.vocabulary import Vocabulary
from omnifill.form.windows import head_size
from omnifill.generate import requests, wishes
from omnifill.lengths import parse_duration
from omnifill.model.config import ModelConfig
from omnifill.model.network import Network, load_backbone
from omnifill.objectives.table import build_objective, load_objective, on_canvas
from omnifill.paths import flat
from omnifill.prepare import is_learned
from omnifill.recipe import Recipe, dump_recipe, load_recipe, to_dict
from omnifill.schema import MEDIA, Schema
from omnifill.teach import Stage, teach
from omnifill.train.decide import DEFAULT_BUDGET, DataNumbers, build_plan, decide, noise
from omnifill.train.loop import Report, Trainer, TrainPlan
from omnifill.train.memory import give_back_freed_memory, keep_freed_memory
from omnifill.train.metrics import Events, LiveLine, MetricsFile, clock, seconds_spent
from omnifill.train.pace import measure_pace
from omnifill.types import Codec

EVAL_IDS, EVAL_TOKENS = 30_000, 2048
"""Ids of the validation part that are read at each validation, and of one batch at least."""
SAMPLE_SECONDS = 20.0
"""Least time between two samples that are shown."""
TAKEN = b'{"taken": true}'
"""What the mark of a codec says that came from elsewhere."""
RESERVE = 0.02
"""Share of the budget kept for saving and leaving, beside a second and a half."""


class Session:
    """Use as a context manager around preparation and `fit`."""

    def __init__(self, folder: RunFolder, started: float, live: LiveLine) -> None:
        self.folder, self.started, self.live = folder, started, live
        self.trainer: Trainer | None = None
        self.asked = 0
        self.handlers: dict[int, Any] = {}
        self.preparing = False
        self.asked_for: dict[str, Any] = {}
        """Data and recipe as the user gave them."""
        self.deadline: float | None = None
        self.sampled = time.monotonic()
        # The folders that this session makes, inner ones first.
        self.created = [p for p in (folder.path, *folder.path.parents) if not p.exists()]

    # --- entering and leaving --------------------------------------------------------------

    def __enter__(self) -> Session:
        try:
            self.folder.path.mkdir(parents=True, exist_ok=True)
            self._lock()
            self.folder.sweep()
        except OSError as error:
            self._remove_if_empty()
            raise RunError(f"{self.folder.path}: {reason(error)}") from None
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.handlers[number] = signal.signal(number, self._asked_to_stop)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        self.live.close()
        give_back_freed_memory()
        with suppress(OSError):
            (self.folder.path / "lock").unlink()
        if kind is not None and self.preparing:  # nothing half-written stays behind
            for path in self.folder.path.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        self._remove_if_empty()

    def _remove_if_empty(self) -> None:
        for path in self.created:
            with suppress(OSError):  # it stays if it holds anything
                path.rmdir()

    def _lock(self) -> None:
        """One session a folder: the lock names a process; a dead one's lock does not count."""
        path = self.folder.path / "lock"
        with suppress(OSError, ValueError):
            owner = int(path.read_text(encoding="utf-8"))
            if owner != os.getpid() and is_alive(owner):
                raise RunError(
                    f"{self.folder.path}: another training (process {owner}) writes there; wait "
                    f"for it or choose another --out"
                )
        try:
            path.write_text(str(os.getpid()), encoding="utf-8")
        except OSError:
            path.unlink(missing_ok=True)
            raise

    def _asked_to_stop(self, number: int, frame: FrameType | None) -> None:
        """First time: finish the step, save, leave. Second time, or while preparing: now."""
        self.asked += 1
        if self.trainer is not None and self.asked == 1:
            self.trainer.stop_asked = True
            return
        raise Interrupted("stopped before anything was trained" if self.trainer is None else
                          "stopped at once; the last checkpoint stands")  # fmt: skip

    # --- before step one -------------------------------------------------------------------

    def is_prepared(self) -> bool:
        """Whether the folder holds a run that only needs to go on."""
        if not (self.folder.path / "run.json").exists():
            return False
        return self.folder.read_state().get("state") in ("learning codecs", "training", "done")

    def is_decided(self) -> bool:
        """Whether everything is settled that the recipe left open."""
        return self.folder.read_state().get("state") in ("training", "done")

    def check_same(self, data: list[Any], recipe: Recipe) -> None:
        """RunError where a resumed run is asked for something else than what it was begun with.

        What is left out stays as it was; what is said must be the same.
        """
        state = self.folder.read_state()
        if not state.get("asked"):
            return  # begun by an older version, which did not write it down
        before, settled = state["asked"], to_dict(load_recipe(self.folder.path / "recipe.yaml"))
        end = "leave it out, or train into another --out"
        same = len(data) == len(before["data"]) and all(
            now[0] == was[0] and now[1] in (None, was[1])
            for now, was in zip(data, before["data"], strict=True)
        )
        if not same:
            raise RunError(
                f"{self.folder.path}: was begun with other data ({before['data']}, and now "
                f"{data}); name the same, or train into another --out"
            )
        was, now, known = (flat(t) for t in (before["recipe"], to_dict(recipe), to_dict(Recipe())))
        final = flat(settled)
        for path, value in now.items():
            if value not in (known.get(path), was.get(path), final.get(path)):
                raise RunError(
                    f"{self.folder.path}: was begun with {path} = {was.get(path)!r}, and now it is "
                    f"{value!r}; {end}"
                )
        if state["state"] == "done":
            self.live.say(f"{self.folder.path}: is trained to its end; nothing is left to do")

    def start_afresh(self, resume: bool) -> None:
        """Empty the folder of an unfinished preparation; refuse to write over a run."""
        if (self.folder.path / "run.json").exists():
            state = self.folder.read_state().get("state")
            if state != "preparing":
                raise RunError(
                    f"{self.folder.path}: holds a run already; choose another --out, continue it "
                    f"with --resume, or delete the folder"
                )
        elif any(p.name != "lock" for p in self.folder.path.iterdir()):
            raise RunError(
                f"{self.folder.path}: is not empty and not a run folder; choose another --out"
            )
        for name in ("data", "codecs", "checkpoints"):
            shutil.rmtree(self.folder.path / name, ignore_errors=True)
        self.preparing = True
        self.folder.write_state(state="preparing")

    def keep(
        self, recipe: Recipe, schema: Schema, codecs: Mapping[str, Codec], taken: Collection[str]
    ) -> None:
        """Write down what is known before codecs learn, if any do: from there a session goes on.
        `taken`: fields whose codecs another run has learned."""
        check_matrix(recipe, load_objective(recipe.objective.name))
        train = recipe.train
        if train.budget is None and train.steps is None and train.epochs is None:
            recipe = recipe.with_values(**{"train.budget": DEFAULT_BUDGET})
        self.folder.save_codecs(schema, codecs)
        self.folder.write("schema.json", schema.model_dump_json(indent=1))
        self.folder.write("recipe.yaml", dump_recipe(recipe))
        for name in taken:
            write_atomic(self._learned(schema, name), TAKEN)
        if any(map(is_learned, codecs.values())):
            self.folder.write_state(state="learning codecs", asked=self.asked_for)
            self.preparing = False

    def teach(self, staged: Staged) -> tuple[Recipe, Schema, dict[str, Codec]]:
        """Train the codecs that learn; the recipe with what was done, the schema and all codecs."""
        recipe = load_recipe(self.folder.path / "recipe.yaml")
        schema = self.folder.load_schema()
        codecs = self.folder.load_codecs(schema)
        self.asked_for = self.asked_for or self.folder.read_state().get("asked", {})
        places = codec_folders(schema)
        learning = [name for name in places if is_learned(codecs[name])]
        marks = {self._learned(schema, name) for name in learning}
        num = sum(not mark.exists() or mark.read_bytes() != TAKEN for mark in marks)
        for name in learning:
            done, place = self._learned(schema, name), places[name]
            if done.exists():
                continue
            metrics = self.folder.path / f"metrics-codec-{place}.jsonl"
            stage = Stage(name, self.folder.checkpoints / f"codec-{place}", metrics,
                          self._time_left(recipe)[0], num)  # fmt: skip
            recipe = teach(codecs[name], stage, staged, recipe, self.live, self._attach)
            self.trainer = None
            self.folder.save_codecs(schema, codecs)
            self.folder.write("recipe.yaml", dump_recipe(recipe))
            write_atomic(done, b"{}")
        return recipe, schema, codecs

    def _learned(self, schema: Schema, name: str) -> Path:
        """The mark that a field's codec need not learn any more."""
        return self.folder.path / "codecs" / codec_folders(schema)[name] / "learned.json"

    def _attach(self, trainer: Trainer) -> None:
        """A trainer that is to stop when the session is."""
        self.trainer = trainer
        if self.asked:
            raise Interrupted("stopped before the first step")

    def decide(
        self, recipe: Recipe, schema: Schema, codecs: Mapping[str, Codec],
        vocabulary: Vocabulary, notes: Sequence[str],
    ) -> None:  # fmt: skip
        """Settle everything that the recipe leaves open, and write it down."""
        base = open_base(recipe)
        for name, text in base.origin.items() if base else ():
            self.folder.write(f"{ORIGIN}/{name}", text)
        for note in notes:
            self.live.say(note)
        shard = open_shard(self.folder.encoded / "train")
        if shard.sizes.sum() == 0:
            raise DataError("the training part is empty: nothing to learn from")
        check_served(shard, vocabulary, recipe.form)
        objective = build_objective(recipe.objective, vocabulary)
        numbers = DataNumbers(
            ids=epoch_ids(shard, vocabulary, recipe.form),
            records=len(shard),
            longest=max(int(shard.sizes.max()), head_size(vocabulary)),
            usual=int(np.quantile(shard.sizes, 0.95)),
            head=head_size(vocabulary),
            stream=vocabulary.schema.stream,
            windows=bool(recipe.form.windows),
            has_text=any(f.slots is None for f in vocabulary.fields),
            has_media=any(spec.type in MEDIA for spec in schema.fields),
            noisy=any(field.noisy for field in vocabulary.fields),
            fields=len(vocabulary.fields),
        )

        def measure(config: ModelConfig, plan: TrainPlan, batch_tokens: int) -> float:
            stream = self._stream(recipe, vocabulary, shard, config, batch_tokens)
            batches = ((b, p) for b, p in stream(Position()))
            keep_freed_memory()  # the pace is that of training
            return measure_pace(built(recipe, config, vocabulary), plan, batches, objective.loss)

        left, deadline = self._time_left(recipe)
        decision = decide(
            recipe, numbers, alphabet_beside(base, vocabulary, recipe), seconds=left,
            deadline=deadline, measure=measure, needs=objective.needs,
            base=base.config if base else None,
        )  # fmt: skip
        self.folder.save_codecs(schema, codecs)
        self.folder.write("schema.json", schema.model_dump_json(indent=1))
        self.folder.write("config.json", decision.config.model_dump_json(indent=1))
        self.folder.write("recipe.yaml", dump_recipe(decision.recipe))
        self.folder.write_state(
            state="training", notes=list(notes), deadline=deadline is not None, asked=self.asked_for
        )
        self.preparing = False

    def _time_left(self, recipe: Recipe) -> tuple[float | None, float | None]:
        """Seconds for the steps, and the moment by which they must be done; None: no budget."""
        if recipe.train.budget is None:
            return None, None
        budget = parse_duration(recipe.train.budget)
        self.deadline = self.started + budget * (1 - RESERVE) - 1.5
        return self.deadline - time.monotonic(), self.deadline

    def _stream(
        self, recipe: Recipe, vocabulary: Vocabulary, shard: Shard, config: ModelConfig,
        batch_tokens: int,
    ) -> BatchStream:  # fmt: skip
        return BatchStream(
            shard, vocabulary, recipe.form, batch_tokens=batch_tokens, context=config.context,
            seed=recipe.train.seed,
        )  # fmt: skip

    # --- training --------------------------------------------------------------------------

    def fit(self) -> None:
        """Train, or go on training, what the folder holds; then write the model."""
        if self.folder.read_state()["state"] == "done":
            return
        recipe = load_recipe(self.folder.path / "recipe.yaml")
        schema, config = self.folder.load_schema(), self.folder.load_config()
        canvas = on_canvas(recipe.objective.name)
        vocabulary = Vocabulary(schema, self.folder.load_codecs(schema), canvas)
        objective = build_objective(recipe.objective, vocabulary)
        shard = open_shard(self.folder.encoded / "train")
        assert recipe.train.batch_tokens is not None, "a resolved recipe names its batch"
        stream = self._stream(recipe, vocabulary, shard, config, recipe.train.batch_tokens)
        network = self._begun(recipe, config, vocabulary, objective)
        valid = open_shard(self.folder.encoded / "valid")
        valid = valid if len(valid) else shard
        plan = resolved_plan(recipe, self.deadline, noise(len(valid.ids)))
        keep_freed_memory()
        trainer = Trainer(network, plan, self.folder.checkpoints)
        for line in trainer.resume():
            self.live.say(line)
        self._attach(trainer)
        earlier = seconds_spent(self.folder.metrics)
        events = Events(self.folder.path, trainer.progress.step)
        metrics = MetricsFile(self.folder.metrics, trainer.progress.step)
        listeners: list[Callable[[Report], None]] = [metrics, events, self.live]

        def listen(report: Report) -> None:
            for listener in listeners:
                listener(report)

        run = LoadedRun(self.folder, recipe, schema, vocabulary, network, objective)
        if self.live.live:
            listeners.append(lambda report: self._show_sample(run, report))

        def batches(position: dict[str, int]) -> Iterator[tuple[Any, dict[str, int]]]:
            for batch, after in stream(Position(**position)):
                yield batch, vars(after)

        def evaluate(model: nn.Module) -> float:
            tokens = max(EVAL_TOKENS, recipe.train.batch_tokens or 0)
            return validation_loss(model, objective, eval_batches(
                valid, vocabulary, recipe.form, context=config.context, batch_tokens=tokens,
                limit=EVAL_IDS,
            ))  # fmt: skip

        try:
            progress = trainer.run(batches, objective.loss, evaluate, listen)
        finally:
            events.close()
        trainer.finish()
        give_back_freed_memory()
        weights = finished(recipe, network.state_dict(), self.folder)
        self.folder.save_model(config, weights)
        done = recipe.with_values(**{
            "train.steps": progress.end,
            "train.schedule": [list(knot) for knot in progress.schedule],
        })  # fmt: skip
        self.folder.write("recipe.yaml", dump_recipe(done))
        seconds = round(earlier + time.monotonic() - self.started, 1)
        summary = {
            "steps": progress.step, "best_step": progress.best_step,
            "valid": None if math.isinf(progress.best) else progress.best,
            "seconds": seconds,
            "over_fitted": progress.over_fitted,
        }  # fmt: skip
        state = self.folder.read_state()
        self.folder.write_state(
            state="done",
            notes=state.get("notes", []),
            asked=state.get("asked", {}),
            training=json.loads(json.dumps(summary)),
        )
        self.live.say(
            f"trained {progress.step} steps in {clock(seconds)}, "
            f"validation loss {progress.best:.4f} of what is kept (step {progress.best_step})"
        )

    def _begun(
        self, recipe: Recipe, config: ModelConfig, vocabulary: Vocabulary, objective: Any
    ) -> Network:  # fmt: skip
        """The network as it is before step one, or before a checkpoint is put into it."""
        network, begin = built(recipe, config, vocabulary), getattr(objective, "begin", None)
        begun = any(self.folder.checkpoints.glob("step-*")) and recipe.train.lora is None
        if begin is not None or not begun:
            base = open_base(recipe)
            if base is not None:
                begin_with(network, base, vocabulary)
        if begin is not None:
            begin(network)
        return network

    def _show_sample(self, run: LoadedRun, report: Report) -> None:
        """After a validation, now and then, a record of the model as it is. Changes nothing."""
        if report.valid is None or time.monotonic() - self.sampled < SAMPLE_SECONDS:
            return
        self.sampled = time.monotonic()
        run.network.eval()
        request = wishes.build(run, wishes.Wish(seed=report.step, max_tokens=40))
        record = requests.run(run, request).iloc[0].to_dict()
        text = " · ".join(f"{k}: {v}" for k, v in record.items())
        self.live.say(f"sample at step {report.step}: {shorten(text, 160, placeholder=' …')}")


def resolved_plan(recipe: Recipe, deadline: float | None, margin: float) -> TrainPlan:
    """The plan of a resolved recipe; its schedule already says everything about length."""
    assert recipe.train.steps is not None, "a resolved recipe names its steps"
    return build_plan(
        recipe, steps=recipe.train.steps, epoch_steps=1, bf16=recipe.train.precision == "bf16",
        deadline=deadline, margin=margin,
    )  # fmt: skip


def validation_loss(model: nn.Module, objective: Any, batches: Iterator[Any]) -> float:
    """Mean nats per target over the batches."""
    total, count = 0.0, 0.0
    for batch in batches:
        part = objective.loss(model, batch)
        total, count = total + float(part.total), count + float(part.count)
    return total / max(count, 1e-12)


def check_matrix(recipe: Recipe, objective: Any) -> None:
    """RecipeError if the backbone cannot do what the objective needs."""
    lacking = objective.needs - load_backbone(recipe.model.backbone).can
    if lacking:
        raise RecipeError(
            f"model.backbone = {recipe.model.backbone!r} cannot do what objective.name = "
            f"{recipe.objective.name!r} needs: {', '.join(sorted(lacking))}"
        )
