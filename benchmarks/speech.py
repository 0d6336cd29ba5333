"""Sounds from labels and labels from sounds: fsdd, digits that five people speak.

    python benchmarks/speech.py --data DIR [--objective causal] [--budget 45m] [--quick]

One model without a named task is asked for each digit of each speaker, all at once. A classifier
trained here on the real training sounds tells both again; beside it stands what it tells of real
test sounds, and of these once they have been codes.
"""

from __future__ import annotations

import tarfile
import time
from pathlib import Path
from typing import Any

import pandas as pd

import harness

EACH = 20
"""Sounds of each digit and speaker."""


def main() -> None:
    parser = harness.parser(__doc__)
    harness.training_options(parser, "45m", "causal", "masked")
    args = parser.parse_args()
    data = harness.need_data(args)
    budget = "60s" if args.quick else args.budget
    train, test = (table(data / "fsdd", part, args.work / "fsdd") for part in ("train", "test"))
    run, spent = harness.trained(args, "speech", budget, train, "--field", "digit:category",
                                 "--set", f"objective.name={args.objective}")  # fmt: skip
    figures = {"train_seconds": spent, **measured(args, run, train, test)}
    protocol = (
        f"`omnifill train --budget {budget}` with objective {args.objective}"
        + "".join(f", {item}" for item in args.set)
        + f"; {EACH} sounds of each digit and speaker"
    )
    harness.keep(f"speech-{args.objective}", protocol, figures, ["soundfile"], args.quick)


def table(folder: Path, part: str, work: Path) -> Path:
    """An archive as a table of paths, digits and speakers."""
    work.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / f"{part}.tar.gz") as archive:
        archive.extractall(work, filter="data")
    files = sorted((work / part).glob("*.wav"))
    names = [file.stem.split("_") for file in files]
    pd.DataFrame({
        "audio": [f"{part}/{file.name}" for file in files],
        "digit": [name[0] for name in names], "speaker": [name[1] for name in names],
    }).to_csv(work / f"{part}.csv", index=False)  # fmt: skip
    return work / f"{part}.csv"


def measured(args, run: Path, train: Path, test: Path) -> dict[str, Any]:
    import torch

    from omnifill import api
    from omnifill.codecs.spectra import DECIBELS, Mel
    from omnifill.data.audio import SoundShape, padded, to_samples, to_sound
    from omnifill.evaluate.media import frechet
    from peers.sound_judge import RATE

    torch.set_num_threads(harness.THREADS)
    real, unseen = pd.read_csv(train, dtype=str), pd.read_csv(test, dtype=str)
    sounds = {part: read(frame, test.parent) for part, frame in (("train", real), ("test", unseen))}
    judges = {
        what: judge_of(args, what, sounds["train"], real[what].tolist())
        for what in ("digit", "speaker")
    }
    out: dict[str, Any] = {
        f"{what}_of_real": judge.accuracy(sounds["test"], unseen[what].tolist())
        for what, judge in judges.items()
    }
    model = api.load(run)
    each = 2 if args.quick else EACH
    pairs = real[["digit", "speaker"]].drop_duplicates()
    asked = pd.concat([pairs] * each, ignore_index=True)
    started = time.monotonic()
    made = model.fill(asked.assign(audio=None), draw=True, seed=args.seed)["audio"].tolist()
    seconds = time.monotonic() - started
    for what in ("digit", "speaker"):
        told = judges[what].accuracy(made, asked[what].tolist())
        out[f"{what}_of_generated"] = told
        out[f"{what}_of_generated_share"] = told / out[f"{what}_of_real"]
    out["generated_seconds"] = sum(len(s.samples) for s in made) / RATE
    out["times_real_time"] = out["generated_seconds"] / seconds
    codec: Any = model.run.vocabulary["audio"].codec
    spec = model.run.schema["audio"]
    values = [to_samples(sound, SoundShape.of(spec.options)) for sound in sounds["test"]]
    started = time.monotonic()
    codes, _ = codec.encode_many(values)
    back = codec.decode_many(codes.reshape(len(values), -1))
    spent = time.monotonic() - started
    out["codec_times_real_time"] = sum(map(len, values)) / 2 / RATE / spent
    mel = Mel(RATE)
    samples = torch.tensor([len(value) // 2 for value in values])
    ours, theirs = (torch.from_numpy(padded(part, int(samples.max()))) for part in (back, values))
    out["codec_log_mel_distance"] = DECIBELS * float(mel.apart(ours, theirs, samples).mean())
    coded = [to_sound(value, SoundShape.of(spec.options)) for value in back]
    for what, judge in judges.items():
        out[f"{what}_of_coded"] = judge.accuracy(coded, unseen[what].tolist())
    judge = judges["digit"]
    truth = judge.features(sounds["test"])
    out["frechet"] = frechet(judge.features(made), truth)
    out["frechet_of_coded"] = frechet(judge.features(coded), truth)
    out["frechet_of_training"] = frechet(judge.features(sounds["train"]), truth)
    told = model.fill(pd.DataFrame({"audio": sounds["test"], "digit": None, "speaker": None}))
    for what in ("digit", "speaker"):
        out[f"audio_to_{what}"] = float((told[what].astype(str) == unseen[what]).mean())
    return out


def judge_of(args, what: str, sounds: list[Any], labels: list[str]) -> Any:
    """The judge of digits or speakers: the one that an earlier run left, or else a new one."""
    from peers.sound_judge import SoundJudge

    epochs = 3 if args.quick else 40
    file = args.work / "judges" / f"fsdd-{what}-{epochs}.safetensors"
    return SoundJudge(file, sounds, labels, epochs)


def read(frame: pd.DataFrame, folder: Path) -> list[Any]:
    import soundfile

    from omnifill.types import Sound

    return [Sound(*soundfile.read(folder / path, dtype="float32")) for path in frame["audio"]]


if __name__ == "__main__":
    main()
