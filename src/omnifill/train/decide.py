"""What a recipe leaves open: size, batch, number of steps, schedule, precision.

Everything is decided before step one, from the data's numbers and the machine's pace, and is
written into the resolved recipe.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from omnifill.errors import RecipeError
from omnifill.lengths import parse_duration
from omnifill.model.config import Alphabet, ModelConfig
from omnifill.model.sizes import SIZES, build_config, nearest_size
from omnifill.recipe import Recipe
from omnifill.settings import ONLY_FOR, MixSettings, TrainSettings
from omnifill.train.loop import TrainPlan, default_schedule
from omnifill.train.optim import OptimConfig
from omnifill.train.precision import multiplies_bf16

DEFAULT_BUDGET = "10m"
"""Length of a run whose recipe names none."""
TOKENS_PER_WEIGHT = 6.0
"""Tokens seen for each weight of the blocks at the size that `auto` picks (docs/log.md)."""
OFTEN = 30.0
"""Epochs from which on a run is one over small data (docs/log.md)."""
AVERAGE = 0.98
"""Decay of the average of weights that rows of short values keep (docs/log.md)."""
TEXT_DECAY = 0.03
"""Weight decay where texts, or anything masked, are learned in not too many epochs
(docs/log.md)."""
LOOKS_NEW = 8.0
"""Times that a record comes by before it has been seen as often as without masks, which hide other
slots each time (docs/log.md)."""
SETTLE = 0.4
"""Share of the peak rate below which dropout ends, unless records come by often (docs/log.md)."""
LONG = 1500.0
"""Seconds from which on windows of a long text are of 256 ids instead of 128 (docs/log.md)."""
SHORT = 512
"""Ids of a record that is read whole."""
ROOM = 16
"""Ids of a text, at least, that a window has room for."""
NARROW = 96
"""Networks of less width than this stay in fp32 (docs/log.md)."""
RATE, BASE_RATE, LORA_RATE = 0.003, 5e-5, 0.001
"""Peak rate of AdamW: from chance; of a network that is trained further; of additions to it."""
PATIENCE = 4
"""Validations without a better loss after which over-fitting stops a run."""
MEDIA_MIX = MixSettings(schema_order=0.2, random_order=0, one_last=0.8)
"""Orders of records with pictures or sounds, however often they come by: nothing stands behind
these but the one field that is told from others (docs/log.md)."""
DRAWN = 8.0
"""Weights for each id of records with pictures or sounds, at most: the same time of a narrower
network is worth more where there are few (docs/log.md)."""
FAMILIAR = 32
"""Times that a picture or sound comes by, until it is known by heart (docs/log.md)."""
RATE_GUESS = 1.2e11
"""Floating-point operations a second of a training step, to pick a size before measuring."""


@dataclass(frozen=True)
class DataNumbers:
    """What the encoded training part looks like."""

    ids: int
    """Total ids: one epoch."""
    records: int
    longest: int
    """Ids of the longest record."""
    usual: int
    """Ids that 95 of 100 records do not exceed."""
    head: int
    """Ids of all fields but texts."""
    stream: bool
    """One text, read as a stream."""
    windows: bool
    """Whether long records are read in windows."""
    has_text: bool
    """Any text field at all."""
    has_media: bool
    """Any picture or sound."""
    noisy: bool
    """Any whose codes may be replaced in training."""
    fields: int


Measure = Callable[[ModelConfig, TrainPlan, int], float]
"""(network, plan, tokens of a batch) -> seconds of one step."""


@dataclass(frozen=True)
class Decision:
    """A run, decided."""

    config: ModelConfig
    plan: TrainPlan
    recipe: Recipe


def decide(
    recipe: Recipe, numbers: DataNumbers, alphabet: Alphabet, *, seconds: float | None,
    deadline: float | None, measure: Measure, needs: frozenset[str] = frozenset(),
    base: ModelConfig | None = None,
) -> Decision:  # fmt: skip
    """`seconds`: what is left of the budget; RecipeError if nothing can be done in them. `needs`:
    what the objective asks of a backbone. `base`: of a network that is trained further."""
    settings = recipe.train
    if seconds is not None and seconds <= 0:
        raise too_small(settings, f"preparation alone took {-seconds:.1f} s more", -seconds + 20)
    batch_tokens = settings.batch_tokens or default_batch(numbers)
    size: str = recipe.model.size
    time = seconds if seconds is not None else 600.0
    if base is not None:
        size = nearest_size(12 * base.layers * base.dim**2)
    elif size == "auto":
        size = auto_size(numbers, time)
    epochs = epochs_ahead(settings, numbers, batch_tokens, size, time)
    recipe = suited_to(recipe, epochs, numbers.has_text, numbers.has_media, numbers.noisy,
                       numbers.fields)  # fmt: skip
    context = recipe.model.context or default_context(numbers, seconds)
    least = numbers.head + ROOM if numbers.windows else numbers.longest
    context = max(context, least, 2)
    if base is None:
        config = build_config(recipe.model, size, alphabet, context=context, needs=needs)
    else:
        config = built_on(base, alphabet, context, recipe.model.dropout or 0.0)
    wish = recipe.train.precision
    bf16 = bf16_pays(config.dim) if wish == "auto" else wish == "bf16"
    pace = None
    if recipe.train.budget is not None:
        draft = build_plan(recipe, steps=1, epoch_steps=1, bf16=bf16)
        pace = measure(config, draft, batch_tokens)
    epoch_steps = max(1, math.ceil(numbers.ids / batch_tokens))
    steps = _steps(recipe, epoch_steps, seconds, pace)
    plan = build_plan(recipe, steps=steps, epoch_steps=epoch_steps, bf16=bf16, deadline=deadline)
    return Decision(config, plan, resolved(recipe, config, plan, batch_tokens))


def built_on(base: ModelConfig, alphabet: Alphabet, context: int, dropout: float) -> ModelConfig:
    """A network that is trained further, for other ids. RecipeError where it has too few places."""
    most = base.places
    if most is not None and context > most:
        raise RecipeError(f"model.context = {context}: the base has places for {most} tokens; cut "
                          f"texts (schema.fields.NAME.max_tokens), or ask for less")  # fmt: skip
    return base.model_copy(update={**vars(alphabet), "context": context, "dropout": dropout})


def default_batch(numbers: DataNumbers) -> int:
    """Tokens of a step: few, since more steps teach more than larger ones (docs/log.md), and fewer
    when there is little data, so that an epoch has some steps."""
    return max(256, min(2048, numbers.ids // 20))


def default_context(numbers: DataNumbers, seconds: float | None) -> int:
    """Longest window: records whole, if all but a few are short. Of long texts, windows that are
    longer pay only when there is time to train on them."""
    if not numbers.stream and (numbers.usual <= SHORT or not numbers.windows):
        return min(numbers.longest, SHORT) if numbers.windows else numbers.longest
    return numbers.head + (128 if seconds is not None and seconds < LONG else 256)


def suited_to(
    recipe: Recipe, epochs: float, has_text: bool, has_media: bool = False, noisy: bool = False,
    fields: int = 2,
) -> Recipe:  # fmt: skip
    """The recipe with what hinders over-fitting: more of it the more often a record comes by.

    Dropout first, for texts later than for short rows; from `OFTEN` epochs on a gentler rate and
    all orders at random, unless there are pictures or sounds. Otherwise rows of these or of short
    values keep an average of the weights, whose shares of values are truer (docs/log.md).
    """
    masked = recipe.objective.name == "masked"
    epochs = epochs / LOOKS_NEW if masked else epochs
    first = 8.0 if has_text else 1.0
    noise = recipe.form.noise
    if noise is None:
        noise = noise_for(epochs) if noisy else 0.0
    seldom = epochs < 1.5 * first  # a little dropout costs more than it brings (docs/log.md)
    # Noise hinders over-fitting too; of both less is known by heart than has to be.
    most = 0.3 - 0.2 * noise
    dropout = 0.0 if seldom else round(min(most, 0.05 * math.log2(epochs / first)), 3)
    often = epochs >= OFTEN and not has_media
    at_random = MixSettings(schema_order=0, random_order=1, one_last=0)
    media_mix = MEDIA_MIX.model_copy(update={"partly": fields > 2})
    mix = media_mix if has_media else at_random if often else MixSettings()
    changes: dict[str, Any] = {}
    if recipe.form.noise is None and noisy:
        changes["form.noise"] = noise
    if recipe.model.dropout is None:
        changes["model.dropout"] = dropout
    if recipe.form.mix is None and not recipe.form.tasks:
        changes["form.mix"] = mix.model_dump()
    base, lora = recipe.train.base is not None, recipe.train.lora is not None
    if recipe.train.optim is None:
        changes["train.optim"] = "adamw" if base else "muon"
    if recipe.train.lr_adamw is None:
        changes["train.lr_adamw"] = LORA_RATE if lora else BASE_RATE if base else RATE
    muon = changes.get("train.optim", recipe.train.optim) == "muon"
    if recipe.train.lr is None and (muon or not base):
        changes["train.lr"] = 0.005 if often else 0.02
    if recipe.train.weight_decay is None:
        gentle = (has_text or masked) and not often
        changes["train.weight_decay"] = TEXT_DECAY if gentle else 0.1
    if recipe.train.ema is None:
        changes["train.ema"] = 0.0 if often or (has_text and not has_media) else AVERAGE
    if recipe.train.settle is None:
        changes["train.settle"] = 0.0 if often else SETTLE
    if recipe.train.patience is None:  # drawings that obey are no likelier ones (docs/log.md)
        changes["train.patience"] = 0 if noise else PATIENCE
    return recipe.with_values(**changes)


def noise_for(epochs: float) -> float:
    """Most of the codes of pictures and sounds that are replaced: none where they come by seldom,
    up to all where each comes by `FAMILIAR` times and more."""
    return 0.0 if epochs < 4 else round(min(1.0, math.log(epochs / 2) / math.log(FAMILIAR / 2)), 2)


def epochs_ahead(
    settings: TrainSettings, numbers: DataNumbers, batch_tokens: int, size: str, seconds: float
) -> float:
    """How often each record will be seen: a guess, before the pace is measured."""
    if settings.epochs is not None:
        return settings.epochs
    tokens = RATE_GUESS * seconds / (6 * SIZES[size].parameters)
    if settings.steps is not None:
        tokens = settings.steps * batch_tokens
    return tokens / max(1, numbers.ids)


def auto_size(numbers: DataNumbers, seconds: float) -> str:
    """The size that time and data can feed."""
    by_time = math.sqrt(RATE_GUESS * seconds / (6 * TOKENS_PER_WEIGHT))
    by_data = (DRAWN if numbers.has_media else 40.0) * numbers.ids
    return nearest_size(min(by_time, by_data))


def bf16_pays(dim: int) -> bool:
    """Whether bf16 is faster here: the machine is made for it, and the network is wide enough that
    products count. Not measured, so that the same recipe gives the same bytes."""
    return multiplies_bf16() and (torch.cuda.is_available() or dim >= NARROW)


def _steps(recipe: Recipe, epoch_steps: int, seconds: float | None, pace: float | None) -> int:
    settings = recipe.train
    if settings.steps is not None:
        return settings.steps
    if settings.epochs is not None:
        return max(1, round(settings.epochs * epoch_steps))
    if seconds is None or pace is None:
        raise AssertionError("a run without steps and epochs has a budget")
    steps = int(seconds / (pace * 1.05))  # validation takes its share
    if steps < 10:
        raise too_small(
            settings, f"preparation is done and one step takes {pace:.2f} s", 20 * pace - seconds
        )
    return steps


def too_small(settings: TrainSettings, why: str, lacking: float) -> RecipeError:
    """A budget in which nothing can be learned, and how many seconds it lacks."""
    least = math.ceil(parse_duration(settings.budget or "0s") + lacking)
    return RecipeError(
        f"train.budget = {settings.budget!r}: too small to train anything here; {why}. Give at "
        f"least {least}s, a smaller model (--set model.size=nano) or less data"
    )


def noise(num: int) -> float:
    """The share by which a validation loss over `num` ids may rise for no reason.

    A third of an id's own spread, which is about its mean: two validations of the same records
    go up and down together.
    """
    return max(0.005, 0.3 / math.sqrt(max(1, num)))


def build_plan(
    recipe: Recipe, *, steps: int, epoch_steps: int, bf16: bool, deadline: float | None = None,
    margin: float = 0.005,
) -> TrainPlan:  # fmt: skip
    """The training loop's plan from the recipe's numbers and what was measured."""
    settings = recipe.train
    warmup = settings.warmup if settings.warmup is not None else min(100, max(1, steps // 20))
    schedule = [(int(s), float(r)) for s, r in settings.schedule or []]
    eval_every = settings.eval_every or min(max(steps // 20, 5), max(10, 8 * epoch_steps))
    return TrainPlan(
        steps=steps,
        schedule=schedule or default_schedule(steps, warmup, settings.decay),
        optim=OptimConfig(
            settings.optim == "muon",
            settings.lr or 0.02,
            settings.lr_adamw or RATE,
            0.1 if settings.weight_decay is None else settings.weight_decay,
        ),
        clip=settings.clip,
        ema=settings.ema or 0.0,
        settle=settings.settle or 0.0,
        bf16=bf16,
        compile=settings.compile,
        micro_tokens=settings.micro_tokens,
        eval_every=eval_every,
        save_every=settings.save_every or max(50, steps // 10),
        patience=PATIENCE if settings.patience is None else settings.patience,
        margin=margin,
        seed=settings.seed,
        decay=settings.decay,
        deadline=deadline,
    )


def resolved(recipe: Recipe, config: ModelConfig, plan: TrainPlan, batch_tokens: int) -> Recipe:
    """The recipe with every open setting filled in: training from it repeats the run."""
    named = ("dim", "layers", *ONLY_FOR, "ffn", "context", "dropout")
    backbone = recipe.model.backbone
    own = [k for k in named if ":" in backbone or ONLY_FOR.get(k, backbone) == backbone]
    model = {k: getattr(config, k) for k in ("context", "dropout")}
    if recipe.train.base is None:  # which has the others
        model = {k: getattr(config, k) for k in (*own, "tied")}
        if config.encoder_layers:
            model["encoder_layers"] = config.encoder_layers
    changes = {f"model.{k}": v for k, v in model.items()} | {
        "train.budget": None,
        "train.epochs": None,
        "train.steps": plan.schedule[-1][0],
        "train.schedule": [list(knot) for knot in plan.schedule],
        "train.batch_tokens": batch_tokens,
        "train.ema": plan.ema,
        "train.settle": plan.settle,
        "train.precision": "bf16" if plan.bf16 else "fp32",
        "train.eval_every": plan.eval_every,
        "train.patience": plan.patience,
        "train.save_every": plan.save_every,
    }
    return recipe.with_values(**changes)
