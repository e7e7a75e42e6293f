"""The end of a run: the agent that it leaves behind, calibrated and judged on held-out battles."""

import filecmp
import json
import logging
from pathlib import Path

from trainer import checkpoint
from trainer.export import WEIGHTS, copy_model
from trainer.heldout import all_packs, evaluate_dataset, rule_of
from trainer.scores import as_text, calibrate

log = logging.getLogger(__name__)


def finish(run) -> None:
    """The chosen checkpoint's model, calibrated and evaluated, becomes OUTPUT/model."""
    target, chosen = run.output / "model", _chosen(run)
    step = int(chosen.name.removeprefix(checkpoint.PREFIX))
    _part_from_play(run.output, chosen / "model")
    copy_model(chosen / "model", target)
    network = checkpoint.load_network(target).to(run.accelerator.device)
    network.attention = run.objective.network.attention
    calibration = calibrate(network, all_packs(run.dataset.some(run.config.eval.calibration_battles)))
    (target / "calibration.json").write_text(json.dumps(calibration, indent=1))
    judged = run.heldout.some(run.config.eval.final_battles)
    result = {"step": step, **evaluate_dataset(network, judged, run.dataset, calibration)}
    # `trainer.evaluate` judges on what the model has never seen, which is less where it began with another one.
    data, rule, unseen = run.config.data, rule_of(run.config.data), network.config.heldout_share
    if unseen < data.heldout_share:
        rule += f", of which the model that it went on from may have seen all but {unseen:g}"
    of = len(run.dataset) + len(run.heldout)
    result["judged"] = {"battles": len(judged), "of": of, "heldout": rule}
    (run.output / "evaluation.json").write_text(json.dumps(result, indent=1))
    log.info("%s\n\nthe agent is in %s: that of step %d", as_text(result), target, step)
    if len(judged) < len(run.heldout):
        log.info(
            "judged on %d of %d held-out battles (eval.final_battles); trainer.evaluate takes all of them",
            len(judged), len(run.heldout),
        )  # fmt: skip
    objective = run.config.objective
    if objective.filter != "imitation" and step <= objective.filter_warmup < run.course.total:
        log.warning(
            "the agent is of step %d, which no filter has touched (objective.filter_warmup=%d): held-out likelihood is "
            "best where every action is cloned; eval.choose=last takes the last step's",
            step, objective.filter_warmup,
        )  # fmt: skip
    if run.config.log.report:
        from trainer.report import report_of_run  # draws with matplotlib: a second that no start need wait for

        report_of_run(run.output)
    run.telling.publisher.finish(target, run.course.total)


def _chosen(run) -> Path:
    """The checkpoint that the agent is taken from. A best one that was never written, for want of room, or that is
    damaged by now gives way to the newest: the run could not end."""
    if run.config.eval.choose == "likelihood":
        best = checkpoint.step_folder(run.output, run.best["step"])
        try:
            checkpoint.verify(best)
        except checkpoint.CheckpointError as error:
            log.warning("the best checkpoint cannot be taken (%s): the newest takes its place", error)
        else:
            return best
    return checkpoint.newest_valid(run.output)


def _part_from_play(output: Path, model: Path) -> None:
    """Win rates of an agent that gives way to another one are not the new one's."""
    weights, played = [folder / WEIGHTS for folder in (output / "model", model)], output / "play.json"
    if played.exists() and not (weights[0].exists() and filecmp.cmp(*weights, shallow=False)):
        played.replace(output / "play_before.json")
        log.warning("%s tells of the agent before: it is play_before.json now", played)
