#!/usr/bin/env bash
# The loop, K rounds: record → train on weighted sources → evaluate → record with the new agent.
#
#   launch/loop.sh OUT ROUNDS [key=value overrides of the training run …]
#
# Environment: FORMATS, BATTLES (recorded per round), EVAL_BATTLES (per opponent and format), CONFIG (training YAML),
# START (players of round 1), FIXED (opponents outside the loop, the same in every round), PYTHON.
# A round that is there already is not done again, so a stopped loop goes on where it was.
set -euo pipefail

out=${1:?usage: launch/loop.sh OUT ROUNDS [key=value …]}
rounds=${2:?usage: launch/loop.sh OUT ROUNDS [key=value …]}
shift 2
python=${PYTHON:-.venv/bin/python}
formats=${FORMATS:-gen1ou gen2ou gen3ou gen4ou gen9ou}
battles=${BATTLES:-1000}
eval_battles=${EVAL_BATTLES:-100}
config=${CONFIG:-launch/runs/quickstart.yaml}
start=${START:-type_switch:weight=3 most_damage:weight=1 boss:weight=1}
fixed=${FIXED:-random boss most_damage type_switch}

players=$start
sources=""
checkpoint=""
for round in $(seq 1 "$rounds"); do
  here=$out/round$round
  mkdir -p "$here"

  # Record. selfplay keeps a journal: it plays only what is missing.
  # shellcheck disable=SC2086
  "$python" -m battle.selfplay --players $players --formats $formats --battles "$battles" --seed "$round" \
    --out "$here/battles"

  # Train on all rounds so far; each newer round weighs twice as much as the one before.
  weight=$((2 ** (round - 1)))
  sources=${sources:+$sources, }"{path: $here/battles, weight: $weight}"
  if [ ! -e "$here/trained" ]; then
    # shellcheck disable=SC2086
    "$python" -m trainer.train --config "$config" "data.path=''" "data.sources=[$sources]" "output=$here/run" "$@"
    touch "$here/trained"
  fi
  checkpoint=$here/run

  # Evaluate against a pool outside the loop, with teams that were never recorded.
  if [ ! -e "$here/play.json" ]; then
    # shellcheck disable=SC2086
    "$python" -m battle.evaluate --agent "round$round=$checkpoint" --against $fixed --formats $formats \
      --battles "$eval_battles" --json "$here/play.json"
  fi

  # The next round is played by this one's agent, its predecessors' battles and the better baselines.
  players="round$round=$checkpoint:temperature=1,weight=4 $start"
done
