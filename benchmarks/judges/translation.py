"""Judge translations, line by line.

Runs in an environment of its own (benchmarks/requirements-judges.txt).

    python judges/translation.py MADE.txt REAL.txt --language de
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from sacrebleu.metrics import BLEU, CHRF
from sacremoses import MosesTokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("made", type=Path)
    parser.add_argument("real", type=Path)
    parser.add_argument("--language", required=True, help="whose rules of tokenising hold")
    args = parser.parse_args()
    made, real = (p.read_text(encoding="utf-8").split("\n")[:-1] for p in (args.made, args.real))
    moses = MosesTokenizer(args.language)
    plain = [[moses.tokenize(line.lower(), return_str=True, escape=False) for line in lines]
             for lines in (made, real)]  # fmt: skip
    tokenised = BLEU(tokenize="none", force=True)
    print(json.dumps({
        "bleu_lower_tokenised": tokenised.corpus_score(plain[0], [plain[1]]).score,
        "sacrebleu_13a_cased": BLEU().corpus_score(made, [real]).score,
        "chrf2": CHRF().corpus_score(made, [real]).score,
        "lines": len(made),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
