"""Pictures from labels and labels from pictures: mnist and fashion_mnist.

    python benchmarks/pictures.py --data DIR [--only mnist] [--objective causal] [--budget 30m]
                                  [--num 10000] [--quick]

One model of each data set, without a named task, is asked in both directions. A classifier that is
trained here on real pictures tells the labels of generated ones, and its features give the Fréchet
distance. Beside it, with as many minutes: a convolutional VAE that is told the label, and a small
classifier; real training pictures are the floor.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

import harness

EPOCHS = {"mnist": 4, "fashion_mnist": 8}
"""The data sets, and epochs of the judge of each."""
STEPS = (1, 2, 4, 8, 16)
FILES = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz",
         "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz")  # fmt: skip


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--only", choices=tuple(EPOCHS))
    parser.add_argument("--objective", default="causal", choices=("causal", "masked"))
    parser.add_argument("--budget", default="30m")
    parser.add_argument("--num", type=int, default=10_000, help="pictures of each way")
    parser.add_argument("--trained", type=Path, help="a run to judge, instead of training one; "
                        "without a VAE beside it")  # fmt: skip
    args = parser.parse_args()
    data = harness.need_data(args)
    budget = "40s" if args.quick else args.budget
    figures: dict[str, Any] = {}
    of = "; of a run that was there, without a VAE" if args.trained else ""
    for name in [args.only] if args.only else EPOCHS:
        figures[name] = measured(args, data / name, budget)
        protocol = (
            f"`omnifill train --budget {budget} --set objective.name={args.objective}` on the idx "
            f"file; {args.num:,} pictures, as many of each label; classifier and VAE on the same "
            f"pictures, the VAE for as long{of}"
        )
        which = args.only or "all"
        harness.keep(f"pictures-{which}-{args.objective}", protocol, figures, ["pillow"],
                     args.quick)  # fmt: skip


def measured(args, folder, budget: str) -> dict[str, Any]:
    import torch

    from omnifill import api
    from omnifill.evaluate.vae import learn_vae
    from omnifill.lengths import parse_duration
    from peers import picture_judge

    torch.set_num_threads(harness.THREADS)
    run = args.trained or harness.fresh(args.work / "pictures")
    real, labels, unseen, truth = (picture_judge.read_idx(folder / name) for name in FILES)
    judge = judge_of(args, folder.name, real, labels)
    floor = judge.figures(real[: len(unseen)], labels[: len(unseen)], unseen)
    spent = 0.0 if args.trained else harness.omnifill(
        "train", folder / FILES[0], "--out", run, "--budget", budget, "--set",
        f"objective.name={args.objective}", "--seed", args.seed,
    )  # fmt: skip
    out: dict[str, Any] = {
        "judge_accuracy": judge.accuracy(unseen, truth),
        "floor_of_training_pictures": floor,
    }  # fmt: skip
    if not args.trained:
        out["train_seconds"] = spent
    model = api.load(run)
    num = 500 if args.quick else args.num
    asked = np.arange(num) % 10
    steps = [{"steps": s} for s in STEPS] if args.objective == "masked" else []
    for options in [{}, *steps]:
        started = time.monotonic()
        made = [
            model.generate(num // 10, given={"label": str(label)}, seed=label, **options)["image"]
            for label in range(10)
        ]
        seconds = time.monotonic() - started
        pictures = np.stack([np.asarray(p) for label in made for p in label])
        found = judge.figures(pictures, np.repeat(np.arange(10), num // 10), unseen)
        found["label_recovered_share"] = found["label_recovered"] / out["judge_accuracy"]
        key = f"{options['steps']} steps" if options else "default"
        out[key] = {**found, "pictures_per_second": num / seconds}
        print(key, out[key], flush=True)
    codec: Any = model.run.vocabulary["image"].codec
    some = unseen[: 500 if args.quick else 5000]
    codes, _ = codec.encode_many([picture.tobytes() for picture in some])
    coded = np.stack([np.frombuffer(value, np.uint8).reshape(some.shape[1:])
                      for value in codec.decode_many(codes.reshape(len(some), -1))])  # fmt: skip
    out["reconstructed"] = judge.figures(coded, truth[: len(some)], unseen)
    table = model.fill(picture_judge.table(some))
    right = table["label"].astype(int).to_numpy() == truth[: len(some)]
    out["image_to_label"] = float(right.mean())
    if args.trained:
        return out
    started = time.monotonic()
    kinds = torch.from_numpy(labels.astype(np.int64))
    vae = learn_vae(picture_judge.pixels(real), kinds, parse_duration(budget))
    drawn = vae.draw(torch.from_numpy(asked), seed=args.seed)[:, 0]
    shades = ((drawn + 1) * 127.5).round().to(torch.uint8).numpy()
    out["vae"] = judge.figures(shades, asked, unseen)
    out["vae"]["seconds"] = time.monotonic() - started
    out["frechet_to_vae"] = out["default"]["frechet"] / out["vae"]["frechet"]
    return out


def judge_of(args, name: str, pictures, labels):
    """The judge of a data set: the one that an earlier run left, or else a new one."""
    from peers import picture_judge
    from peers.keeping import learned

    epochs = 1 if args.quick else EPOCHS[name]
    return learned(
        args.work / "judges" / f"{name}-{epochs}.safetensors", picture_judge.untrained(),
        lambda judge: picture_judge.train(judge, pictures, labels, epochs),
    )  # fmt: skip


if __name__ == "__main__":
    main()
