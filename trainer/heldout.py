"""Held-out evaluation joined to data: which battles are read, what is known of each, and where results go."""

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from data.dataset import BattleDataset, DataConfig
from data.folders import EmptySplit
from data.loader import heldout_packs
from data.sampler import BatchConfig
from data.tokenizer import Tokenizer
from model.attention import choose_implementation
from model.configuration_turnwise import TurnwiseConfig
from model.modeling_turnwise import TurnwiseForOfflineRL
from trainer.checkpoint import find_model, load_network
from trainer.finetune import check_formulas
from trainer.paired import paired
from trainer.scores import calibrate, collect, grouped, report

log = logging.getLogger(__name__)


def all_packs(dataset: BattleDataset) -> Iterator[dict]:
    """Packs of a data set's battles, every window once."""
    return heldout_packs(dataset, BatchConfig(battles=32))


def describe(dataset: BattleDataset, rows: np.ndarray, teams: set[int] | None) -> dict[int, dict]:
    """What is known of each battle evaluated: {row: {"format", "battle_id", "seen_team"}}."""
    about = {}
    for row in np.unique(rows).tolist():
        info = dataset.info(row)
        seen = None if teams is None else dataset[row].team in teams
        about[row] = {"format": info["format"], "battle_id": info["battle_id"], "seen_team": seen}
    return about


def rule_of(config: TurnwiseConfig | DataConfig) -> str:
    """By which rule battles are held out: "0.02 by battle"."""
    return f"{config.heldout_share:g} by {config.split_by}"


class Opened(NamedTuple):
    """A saved model and the battles that it is judged on. train: the folder's others, None where it was trained on
    none."""

    folder: Path
    network: TurnwiseForOfflineRL
    everything: BattleDataset
    train: BattleDataset | None
    heldout: BattleDataset


def open_model(checkpoint: str, source: DataConfig, whole: bool, rule: TurnwiseConfig | None = None) -> Opened:
    """A saved model on its device, and the battles of `source` (its path and filters) as the model reads them.

    Held out are those that the model's own rule holds out, or `rule`'s, or `whole` all of them. Raises CheckpointError,
    ConfigError, DataError.
    """
    folder = find_model(checkpoint)
    network = load_network(folder)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network.to(device)
    network.attention = choose_implementation("auto", device)
    config = network.config
    check_formulas(config, str(checkpoint))
    source = replace(
        source, space=config.observation_space, reward=config.reward_kind, max_turns=config.max_turns,
        heldout_share=(rule or config).heldout_share, split_by=(rule or config).split_by,
    )  # fmt: skip
    tokenizer = Tokenizer.load(folder / "vocabulary.json")
    everything = BattleDataset(source, tokenizer, "all")
    sides = (None, everything) if whole else _sides(source, tokenizer, everything)
    return Opened(folder, network, everything, *sides)


def _sides(source: DataConfig, tokenizer: Tokenizer, everything: BattleDataset) -> tuple[BattleDataset, BattleDataset]:
    try:
        train, heldout = (BattleDataset(source, tokenizer, side, beside=everything) for side in ("train", "heldout"))
    except EmptySplit as error:
        raise EmptySplit(f"{error}; or judge all of them by --all, where the model was trained on none") from error
    return train, heldout


def evaluate_folder(
    checkpoint: str,
    data: str,
    gamma: float | None = None,
    battles: int | None = None,
    formats: Sequence[str] = (),
    chosen: str = "",
    illegal: str = "reject",
    whole: bool = False,
    against: str | None = None,
    cloned: str = "",
) -> dict:
    """Evaluate a saved model on a folder's held-out battles; JSON-able.

    Held out are those that the model's own rule holds out, or `whole` all of them: battles that it was not trained on.
    The observation space, reward and vocabulary are the model's own; the calibration is the one saved with it, or is
    fitted on the folder's other battles (`whole`: on the same). `chosen`: a filter over the battles, as `data.filter`;
    `illegal`: as `data.illegal_actions`; `against`: another model, held against it decision by decision; `cloned`: of
    those battles, whose actions the policy is judged by, as `data.clone`. Raises CheckpointError, ConfigError,
    DataError, ValueError, OSError.
    """
    if battles is not None and battles < 1:
        raise ValueError(f"battles={battles}: give 1 or more, or leave it away for all")
    source = DataConfig(path=data, formats=list(formats), filter=chosen, illegal_actions=illegal, clone=cloned)
    model = open_model(checkpoint, source, whole)
    network, config, heldout = model.network, model.network.config, model.heldout.some(battles)
    other = None if against is None else open_model(against, source, whole, config)
    for name, opened in ({checkpoint: model} | ({} if other is None else {against: other})).items():
        try:
            opened.network.config.gamma_index(gamma)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    fitted = model.folder / "calibration.json"
    if fitted.exists():
        calibration = json.loads(fitted.read_text())
    else:
        calibration = calibrate(network, all_packs((model.train or model.heldout).some(1000)))
    decisions = collect(network, all_packs(heldout), gamma)
    result = evaluate_dataset(network, heldout, model.train, calibration, gamma, decisions)
    rule = None if whole else rule_of(config)
    result["judged"] = {"battles": len(heldout), "of": len(model.everything), "heldout": rule}
    if other is not None:
        its = other.network.config
        if not whole and (its.heldout_share, its.split_by) != (config.heldout_share, config.split_by):
            log.warning(
                "%s: it held out %g of the battles by %s, and is judged on %s: it may have seen some of them",
                against, its.heldout_share, its.split_by, rule,
            )  # fmt: skip
        theirs = collect(other.network, all_packs(other.heldout.some(battles)), gamma)
        groups, units = grouped(decisions, describe(heldout, decisions["row"], None))
        result["against"] = {"checkpoint": against, **paired(decisions, theirs, groups, units)}
    return {"checkpoint": str(checkpoint), "data": data, **result}


def evaluate_dataset(
    network: TurnwiseForOfflineRL,
    heldout: BattleDataset,
    train: BattleDataset | None,
    calibration: dict,
    gamma: float | None = None,
    decisions: dict | None = None,
) -> dict:
    """The report of `scores.report` over a held-out data set, of which `decisions` may have been collected; without
    `train` it does not tell teams that were trained on from others."""
    decisions = collect(network, all_packs(heldout), gamma) if decisions is None else decisions
    about = describe(heldout, decisions["row"], train and train.teams())
    if train and about and next(iter(about.values()))["seen_team"] is None:
        log.warning("%d training battles: make a token cache to tell seen and unseen teams apart", len(train))
    used = network.config.gammas[network.config.gamma_index(gamma)]
    result = report(decisions, calibration, network.config.gammas, used, about)
    warn_of_win_chance(result)
    return result


def warn_of_win_chance(result: dict) -> None:
    """Says where the calibrated win chance, fitted on training battles, is further off on held-out ones than a
    constant: critics that learned their battles by heart are too sure."""
    for row in result["values"]:
        if row["gamma"] == result["gamma"] and "brier" in row and row["brier"] >= row["brier_of_share"]:
            log.warning(
                "win chance at γ = %s: its Brier score over %d held-out battles is %.4f, not below %.4f, that of "
                "always telling the share of wins: where AUC is above 0.5 it is too sure of itself, else it knows "
                "nothing; more battles mend either",
                row["gamma"], row["battles"], row["brier"], row["brier_of_share"],
            )  # fmt: skip
