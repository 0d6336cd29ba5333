"""Pictures from captions in twelve languages: emoji.

    python benchmarks/emoji.py --data DIR [--objective causal] [--budget 45m] [--quick]

One model learns each language's name -> picture, small and on white. A retrieval model trained here
on all real pairs says how often the caption is among the best five of a hundred for the picture
made from it: for captions that were trained on, for held-out ones, and for real pictures.
"""

from __future__ import annotations

import io
import tarfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import harness

HELD_OUT = 320
ASKED = 300
"""Captions of each kind and language."""
OPTIONS = "{height: 48, width: 48, stride: 8, mode: RGB}"
SHOWN = ("en", "zh", "de", "ar", "hi")


def main() -> None:
    parser = harness.parser(__doc__)
    harness.training_options(parser, "45m", "causal", "masked", "seq2seq")
    args = parser.parse_args()
    data = harness.need_data(args)
    budget = "3m" if args.quick else args.budget
    table = prepared(data / "emoji", args.work / "emoji")
    frame = pd.read_csv(table, dtype=str, keep_default_na=False)
    names = [name for name in frame if name.startswith("name_")]
    recipe = args.work / "emoji.yaml"
    recipe.write_text(as_recipe(names, args.objective), encoding="utf-8")
    run, spent = harness.trained(args, "emoji-run", budget, table, "--recipe", recipe)
    figures = {"train_seconds": spent, **measured(args, run, frame, names, table.parent)}
    protocol = (
        f"`omnifill train --budget {budget}`, objective {args.objective}"
        + "".join(f", {item}" for item in args.set)
        + f", {OPTIONS}, one task for each language; {HELD_OUT} of {len(frame)} pictures held out, "
        f"none for validation; {ASKED} captions of each language and kind"
    )
    harness.keep(f"emoji-{args.objective}", protocol, figures, ["pillow"], args.quick)


def prepared(folder: Path, work: Path) -> Path:
    """The archive's pictures, and a table of their names with a column that says which are held
    out. None are for validation: an emoji cannot be foretold from others, and a run that stops
    where unseen ones get no likelier has not yet learned those that it has."""
    work.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / "emoji72.tar.gz") as archive:
        archive.extractall(work, filter="data")
    frame = pd.read_csv(folder / "emoji72_captions.csv.gz", dtype=str, keep_default_na=False)
    order = np.random.default_rng(0).permutation(len(frame))
    held = np.zeros(len(frame), bool)
    held[order[:HELD_OUT]] = True
    frame["part"] = np.where(held, "test", "train")
    some = ["file", "part", *(name for name in frame if name.startswith("name_"))]
    frame[some].to_csv(work / "emoji.csv", index=False)
    return work / "emoji.csv"


def as_recipe(names: list[str], objective: str) -> str:
    tasks = "\n".join(f"    - {{given: [{name}], want: [file]}}" for name in names)
    return (
        f"data:\n  split: {{column: part}}\nobjective: {{name: {objective}}}\n"
        f"schema:\n  fields: {{file: {{type: image, options: {OPTIONS}}}}}\n"
        f"form:\n  tasks:\n{tasks}\n"
    )


def measured(args, run: Path, frame: pd.DataFrame, names: list[str], folder: Path) -> dict:
    import torch

    from omnifill import api
    from peers import retrieval
    from peers.keeping import learned

    torch.set_num_threads(harness.THREADS)
    model = api.load(run)
    options = model.run.schema["file"].options
    size = (options["width"], options["height"])
    real = as_tensor([opened(folder / path, size) for path in frame["file"]])
    captions = frame[names].to_numpy().tolist()
    steps = 50 if args.quick else 2000
    judge = learned(args.work / "judges" / f"emoji-{size[0]}-{steps}.safetensors",
                    retrieval.untrained(real),
                    lambda judge: retrieval.train(judge, real, captions, steps))  # fmt: skip
    num, out = 20 if args.quick else ASKED, {}
    for part in ("train", "test"):
        # Not the first ones: the table begins with all the faces, which are hard to tell apart.
        rows = frame.index[frame["part"] == part]
        some = rows[np.sort(np.random.default_rng(1).permutation(len(rows))[:num])]
        for language in SHOWN:
            name = f"name_{language}"
            texts, others = frame.loc[some, name].tolist(), frame[name].tolist()
            started = time.monotonic()
            table = pd.DataFrame({name: texts, "file": [None] * len(texts)})
            made = as_tensor(list(model.fill(table, draw=True)["file"]))
            key = f"{part} / {language}"
            out[key] = {
                "found": retrieval.found(judge, made, texts, others),
                "found_of_real": retrieval.found(judge, real[some], texts, others),
                "pictures_per_second": len(texts) / (time.monotonic() - started),
            }
    return out


def opened(path: Path, size: tuple[int, int]) -> Any:
    from PIL import Image

    with Image.open(io.BytesIO(path.read_bytes())) as picture:
        return picture.convert("RGBA").resize(size)


def as_tensor(pictures: list[Any]) -> Any:
    """(n, 3, H, W) of 0 to 1, on white."""
    import torch
    from PIL import Image

    out = []
    for picture in pictures:
        ground = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        whole = Image.alpha_composite(ground, picture.convert("RGBA")).convert("RGB")
        out.append(np.asarray(whole))
    return torch.from_numpy(np.stack(out)).permute(0, 3, 1, 2).float() / 255


if __name__ == "__main__":
    main()
