"""One model of three modalities: digits as a label, a picture (mnist) and a sound (fsdd).

    python benchmarks/modalities.py --data DIR [--budget 90m] [--single 30m] [--codec RUN]
                                    [--only one|two] [--quick]

All six directions are asked of one model, and each of a model of the two fields alone; the latter
have the codecs of the former (or all have those of RUN). Classifiers trained here on real pictures
and sounds tell the digit of what was made; unseen pictures and sounds are what is given.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import harness
import speech
from pictures import FILES, judge_of

ROWS = 20_000
ASKED = 1000
WHOLE = ("label", "image", "audio")
PAIRS = (("label", "image"), ("label", "audio"), ("image", "audio"))


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--budget", default="90m")
    parser.add_argument("--single", default="30m", help="of each model of two fields")
    parser.add_argument("--codec", type=Path, help="a run whose codecs all models have")
    parser.add_argument("--only", choices=("one", "two"), help="one model, or those of two")
    args = parser.parse_args()
    data = harness.need_data(args)
    from omnifill import api

    judges, unseen = judged(data, args)
    budget, single = ("2m", "1m") if args.quick else (args.budget, args.single)
    table = digits(data, args)
    protocol = (
        f"{ROWS:,} records, a picture and a sound of one digit each; {budget} for the model of all "
        f"three fields, {single} for each of two, "
        f"{'codecs from elsewhere' if args.codec else 'with the codecs of the former'}; {ASKED} "
        f"unseen records for each direction"
    )
    runs = args.work / "modalities"
    models = {"one": [WHOLE], "two": PAIRS, None: [WHOLE, *PAIRS]}[args.only]
    for fields in models:
        run, whole = harness.fresh(runs / "-".join(fields)), fields == WHOLE
        codec = args.codec or (None if whole else runs / "-".join(WHOLE))
        model = api.train(
            table[list(fields)], run, budget=budget if whole else single, seed=args.seed,
            recipe={"train": {"codec": codec and str(codec)}},
        )  # fmt: skip
        part = {
            f"{given} -> {want}": asked(model, given, want, unseen, judges)
            for given in fields for want in fields if given != want
        }  # fmt: skip
        figures = harness.kept("modalities", protocol)
        figures.setdefault("one model" if whole else "models of two", {}).update(part)
        harness.keep("modalities", protocol, figures, ["pillow", "soundfile"], args.quick)


def digits(data, args) -> pd.DataFrame:
    """A picture, and any sound of the same digit."""
    from peers.picture_judge import read_idx

    pictures, labels = (read_idx(data / "mnist" / name) for name in FILES[:2])
    path = speech.table(data / "fsdd", "train", args.work / "fsdd")
    spoken = pd.read_csv(path, dtype=str)
    sounds = speech.read(spoken, path.parent)
    rng = np.random.default_rng(0)
    of_digit = {d: np.flatnonzero(spoken["digit"] == str(d)) for d in range(10)}
    rows = rng.permutation(len(pictures))[: 2000 if args.quick else ROWS]
    return pd.DataFrame({
        "label": [str(labels[i]) for i in rows], "image": [pictures[i] for i in rows],
        "audio": [sounds[rng.choice(of_digit[int(labels[i])])] for i in rows],
    })  # fmt: skip


def judged(data, args) -> tuple[dict[str, Any], pd.DataFrame]:
    """Classifiers of pictures and of sounds; and unseen records, as many of each digit."""
    import torch

    from peers import picture_judge

    torch.set_num_threads(harness.THREADS)
    pictures, labels, others, truth = (
        picture_judge.read_idx(data / "mnist" / name) for name in FILES
    )
    parts = []
    for part in ("train", "test"):
        path = speech.table(data / "fsdd", part, args.work / "fsdd")
        frame = pd.read_csv(path, dtype=str)
        parts.append((frame, speech.read(frame, path.parent)))
    (known, heard), (spoken, sounds) = parts
    judges = {
        "image": judge_of(args, "mnist", pictures, labels),
        "audio": speech.judge_of(args, "digit", heard, known["digit"].tolist()),
    }
    rng, rows = np.random.default_rng(1), []
    for i in range(100 if args.quick else ASKED):
        digit = i % 10
        image = others[rng.choice(np.flatnonzero(truth == digit))]
        sound = sounds[rng.choice(np.flatnonzero(spoken["digit"] == str(digit)))]
        rows.append({"label": str(digit), "image": image, "audio": sound})
    return judges, pd.DataFrame(rows)


def asked(model, given: str, want: str, unseen: pd.DataFrame, judges: dict[str, Any]) -> float:
    """How often the digit of what was made is that of what was given."""
    table = pd.DataFrame({given: unseen[given], want: None})
    made = model.fill(table, draw=want != "label")[want].tolist()
    truth = unseen["label"].tolist()
    if want == "label":
        told = [str(value) for value in made]
    elif want == "image":
        pictures = np.stack([np.asarray(picture) for picture in made])
        told = [str(n) for n in judges["image"].read(pictures)[1]]
    else:
        told = judges["audio"].told(made)
    return float(np.mean([a == b for a, b in zip(told, truth, strict=True)]))


if __name__ == "__main__":
    main()
