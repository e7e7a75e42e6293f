"""Gradient-boosted trees on the network's own observations: the yardstick that a sequence model must beat.

    python -m launch.yardstick --data CACHE [--heldout-share 0.05] [--filter …] [--decisions 100000] [--out FILE]

One tree model over the action slots (scikit-learn's HistGradientBoostingClassifier), which sees what the network sees
of one turn: every word as a category, every number, previous action and reward; no memory. Its chances are renormalized
over the legal actions. Trained on decisions of the training split, told by accuracy and likelihood on the held-out one.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from data.dataset import BattleDataset, DataConfig
from data.report_file import report_file
from data.tokenizer import Tokenizer
from trainer.heldout import all_packs
from trainer.scores import bootstrap, rank_of

CATEGORIES = 250  # of a word slot: the most frequent ones, the others as one (the trees take 255 bins at most)
EPS = 1e-6
RARE = 20


def decisions_of(packs: Iterable[dict]) -> dict[str, np.ndarray]:
    """Recorded decisions with a choice: words int32 [n,S], numbers fp32 [n,F+2] (previous action, −1 where unknown, and
    reward last), legal bool [n,A], action int64 [n], row int64 [n]."""
    columns: dict[str, list[np.ndarray]] = {name: [] for name in ("words", "numbers", "legal", "action", "row")}
    for pack in packs:
        legal = pack["legal"].numpy()
        kept = (pack["action_known"] & pack["decision"]).numpy() & (legal.sum(1) >= 2)
        last = np.where(pack["prev_action_known"].numpy(), pack["prev_action"].numpy(), -1)
        previous = np.stack([last, pack["prev_reward"].numpy()], 1)
        rows = pack["windows"][:, 0].numpy()
        columns["words"].append(pack["words"].numpy()[kept])
        columns["numbers"].append(np.concatenate([pack["numbers"].numpy(), previous], 1)[kept].astype(np.float32))
        columns["legal"].append(legal[kept])
        columns["action"].append(pack["action"].numpy()[kept])
        columns["row"].append(rows[np.minimum(pack["segment"].numpy(), len(rows) - 1)][kept])
    return {name: np.concatenate(parts) for name, parts in columns.items()}


def fit_and_score(train: dict[str, np.ndarray], heldout: dict[str, np.ndarray], battles: np.ndarray) -> dict:
    """Fit on `train`; mean and 95% interval (bootstrapped by `battles`, [n] of the held-out decisions) of top-1, top-3
    and negative log-likelihood over the legal actions."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.preprocessing import OrdinalEncoder

    coder = OrdinalEncoder(max_categories=CATEGORIES, handle_unknown="use_encoded_value", unknown_value=CATEGORIES)
    # A slot taken by nearly nobody cannot be split for early stopping: its chance stays at EPS.
    common = np.isin(train["action"], np.flatnonzero(np.bincount(train["action"]) >= RARE))
    train = {name: values[common] for name, values in train.items()}
    words = coder.fit_transform(train["words"])
    model = HistGradientBoostingClassifier(
        max_iter=150, learning_rate=0.1, max_leaf_nodes=31, l2_regularization=1.0, early_stopping=True,
        validation_fraction=0.1, random_state=0, categorical_features=list(range(words.shape[1])),
    )  # fmt: skip
    started = time.monotonic()
    model.fit(np.concatenate([words, train["numbers"]], 1), train["action"])
    seconds = time.monotonic() - started
    seen = model.predict_proba(np.concatenate([coder.transform(heldout["words"]), heldout["numbers"]], 1))
    chance = np.full(heldout["legal"].shape, EPS)
    chance[:, model.classes_] += seen
    chance *= heldout["legal"]
    chance /= chance.sum(1, keepdims=True)
    taken = chance[np.arange(len(chance)), heldout["action"]]
    rank = rank_of(chance, heldout["action"])
    units = np.unique(battles, return_inverse=True)[1]
    measures = {"top1": rank == 0, "top3": rank < 3, "nll": -np.log(taken)}
    return {
        "trees": int(model.n_iter_), "fit_s": round(seconds), "training_decisions": len(train["action"]),
        "decisions": len(taken), "battles": int(units.max() + 1),
        **bootstrap({name: np.asarray(values, np.float64) for name, values in measures.items()}, units),
    }  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Fit, score, print; write JSON where --out is given."""
    parser = argparse.ArgumentParser(
        prog="python -m launch.yardstick", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="token cache or battle files")
    parser.add_argument("--heldout-share", type=float, default=0.05)
    parser.add_argument("--filter", default="", help="which battles to take, as data.filter")
    parser.add_argument("--decisions", type=int, default=100_000, help="of training, at most")
    parser.add_argument("--out", type=report_file, help="JSON of the result")
    options = parser.parse_args(argv)
    source = DataConfig(path=str(options.data), heldout_share=options.heldout_share, filter=options.filter)
    sides = {side: BattleDataset(source, Tokenizer.load(), side) for side in ("train", "heldout")}
    train, heldout = (decisions_of(all_packs(sides[side])) for side in ("train", "heldout"))
    # The index is sorted by format: a sample of all, not the first ones.
    drawn = np.random.default_rng(0).permutation(len(train["action"]))[: options.decisions]
    train = {name: values[drawn] for name, values in train.items()}
    names = {row: sides["heldout"].info(row)["battle_id"] for row in np.unique(heldout["row"]).tolist()}
    result = fit_and_score(train, heldout, np.array([names[row] for row in heldout["row"].tolist()]))
    result |= {"data": str(options.data)}
    print(json.dumps(result))
    if options.out:
        options.out.write_text(json.dumps(result), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
