"""Three aims at once: how often all are met, at what cost in tokens and in fluency.

    python benchmarks/aims.py --data DIR [--budget 5m] [--quick]

A run is trained on ag_news, and another, apart, that tells the bits per byte of what the first
writes. The aims are a rare word, a length that few texts keep to, and one domain of four.
"""

from __future__ import annotations

import json
import warnings

import numpy as np
import pandas as pd

import harness

AIMS = ["domain=Sports", "length<=120", "contains=win"]


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--budget", default="5m")
    parser.add_argument("--train", default="ag_news/train.csv.gz")
    parser.add_argument("--each", type=int, default=200)
    args = parser.parse_args()
    data = harness.need_data(args)
    budget, each = ("30s", 20) if args.quick else (args.budget, args.each)
    runs = [harness.fresh(args.work / name) for name in ("aims", "aims-judge")]
    for seed, run in enumerate(runs):
        harness.omnifill("train", data / args.train, "--out", run, "--budget", budget,
                         "--seed", args.seed + seed)  # fmt: skip
    from omnifill import api
    from omnifill.generate.aims import parse_aims, scored

    model = api.load(runs[0])
    aims = parse_aims(model.run, AIMS, ["text"])

    def met(made: pd.DataFrame) -> np.ndarray:
        columns = {n: [None if v != v else v for v in made[n].tolist()] for n in made}
        return scored(aims, columns)[1]

    warnings.simplefilter("ignore")
    plain = model.generate(each, seed=args.seed)
    aimed = model.generate(each, aims=AIMS, seed=args.seed)
    drawn = model.generate(each, aims=AIMS, candidates=1, seed=args.seed)
    codec = model.run.vocabulary["text"].codec
    tokens = [np.mean([len(codec.encode(t)) for t in f["text"].dropna()]) for f in (plain, drawn)]
    figures = {
        **{
            f"plain {aim}": float(share)
            for aim, share in zip(AIMS, met(plain).mean(0), strict=True)
        },
        "plain_all": float(met(plain).all(axis=1).mean()),
        **{
            f"aimed {aim}": float(share)
            for aim, share in zip(AIMS, met(aimed).mean(0), strict=True)
        },
        "aimed_all": float(met(aimed).all(axis=1).mean()),
        "tokens_ratio": 6 * float(tokens[1] / tokens[0]),
    }
    same = plain[met(plain)[:, 0]]  # of the same domain, so that only length and word differ
    for name, part in (("plain", plain), ("plain_same_domain", same), ("aimed", aimed)):
        part.dropna(subset=["text"]).to_csv(args.work / "aims.csv", index=False)
        harness.omnifill("evaluate", runs[1], args.work / "aims.csv", "--json",
                         out=args.work / "evaluation.json")  # fmt: skip
        told = json.loads((args.work / "evaluation.json").read_text(encoding="utf-8"))
        figures[f"bits_per_byte_{name}"] = told["fields"]["text"]["bits_per_byte"]["value"]
    protocol = (
        f"`omnifill train {args.train} --budget {budget}` twice; {each} plain records and as many "
        f"with the aims {', '.join(AIMS)}, six candidates each; bits per byte under the second run"
    )
    harness.keep("aims", protocol, figures, ["pandas"], args.quick)


if __name__ == "__main__":
    main()
