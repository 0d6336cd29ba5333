"""Judge generated rows: SDMetrics' two scores, XGBoost trained on them, copied rows.

Runs in an environment of its own (benchmarks/requirements-judges.txt: sdmetrics caps pandas).

    python judges/tabular.py TRAIN.csv TEST.csv SYNTHETIC.csv --target income
"""

from __future__ import annotations

import argparse
import json
import warnings

import numpy as np
import pandas as pd


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("train")
    parser.add_argument("test")
    parser.add_argument("synthetic")
    parser.add_argument("--target", required=True)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    train, test, synthetic = (
        pd.read_csv(p, keep_default_na=False, na_values=[""])
        for p in (args.train, args.test, args.synthetic)
    )
    out = quality(train, synthetic)
    out["auc_real"] = trained_on(train, test, args.target)
    out["auc_synthetic"] = trained_on(synthetic, test, args.target)
    seen = {tuple(row) for row in train.astype(str).to_numpy()}
    out["copied"] = share_in(synthetic, seen)
    out["copied_held_out"] = share_in(test, seen)
    print(json.dumps(out))


def share_in(frame: pd.DataFrame, seen: set[tuple[str, ...]]) -> float:
    return float(np.mean([tuple(row) in seen for row in frame.astype(str).to_numpy()]))


def quality(real: pd.DataFrame, synthetic: pd.DataFrame) -> dict[str, float]:
    from sdmetrics.reports.single_table import QualityReport

    columns = {
        name: {"sdtype": "numerical" if real[name].dtype.kind in "if" else "categorical"}
        for name in real.columns
    }
    report = QualityReport()
    report.generate(real, synthetic[real.columns], {"columns": columns}, verbose=False)
    scores = report.get_properties().set_index("Property")["Score"]
    return {
        "column_shapes": float(scores["Column Shapes"]),
        "pair_trends": float(scores["Column Pair Trends"]),
    }


def trained_on(train: pd.DataFrame, test: pd.DataFrame, target: str) -> float:
    """ROC-AUC on the real test rows of XGBoost trained on `train`."""
    from sklearn.metrics import roc_auc_score
    from xgboost import XGBClassifier

    both = pd.concat([train, test]).drop(columns=target)
    for name in both.columns:
        if both[name].dtype.kind not in "if":
            both[name] = both[name].astype("category")
    positive = sorted(test[target].unique())[-1]
    y_train = (train[target] == positive).astype(int)
    y_test = (test[target] == positive).astype(int)
    model = XGBClassifier(enable_categorical=True, n_estimators=300, max_depth=6,
                          learning_rate=0.1, n_jobs=2, random_state=0)  # fmt: skip
    model.fit(both.iloc[: len(train)], y_train)
    return float(roc_auc_score(y_test, model.predict_proba(both.iloc[len(train) :])[:, 1]))


if __name__ == "__main__":
    main()
