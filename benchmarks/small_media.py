"""Small data sets of pictures and sounds: cifar10 and sonic_pi_samples, trained and evaluated.

    python benchmarks/small_media.py --data DIR [--only cifar10] [--budget 20m] [--quick]

What `omnifill evaluate` says of each: the codec's reconstructions, and what is generated beside
real items. The report of each is left in the work folder, to look at.
"""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import harness

SETS = ("cifar10", "sonic_pi_samples")


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--only", choices=SETS)
    parser.add_argument("--budget", default="20m")
    args = parser.parse_args()
    data = harness.need_data(args)
    budget = "2m" if args.quick else args.budget
    figures: dict[str, Any] = {}
    for name in [args.only] if args.only else SETS:
        figures[name] = measured(args, name, source(name, data / name, args.work / name), budget)
        which = args.only or "all"
        harness.keep(f"small-media-{which}", f"`omnifill train --budget {budget}`, then `omnifill "
                     "evaluate` on the part that was kept aside", figures, ["pillow", "soundfile"],
                     args.quick)  # fmt: skip


def source(name: str, folder: Path, work: Path) -> Path:
    """The archive itself, or the sounds unpacked beside their table."""
    if name == "cifar10":
        return folder / "train_25k.tar.gz"
    work.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / "sonic_pi_samples.tar.gz") as archive:
        archive.extractall(work, filter="data")
    return Path(shutil.copy(folder / "sonic_pi_samples_labels.csv", work))


def measured(args, name: str, data: Path, budget: str) -> dict[str, Any]:
    run, found = harness.fresh(args.work / f"{name}-run"), args.work / f"{name}.json"
    spent = harness.omnifill("train", data, "--out", run, "--budget", budget, "--seed", args.seed)
    report = args.work / f"{name}.html"
    harness.omnifill("evaluate", run, "--json", "--report", report, out=found)
    figures = json.loads(found.read_text(encoding="utf-8"))
    media = next(f for f, m in figures["fields"].items() if "psnr" in m or "log_mel_distance" in m)
    beside = {
        kind: {key: m["value"] for key, m in part["fields"][media].items()}
        for kind, part in figures["baselines"].items() if part["fields"].get(media)
    }  # fmt: skip
    ours = {key: m["value"] for key, m in figures["fields"][media].items()}
    return {"train_seconds": spent, "ours": ours, **beside}


if __name__ == "__main__":
    main()
