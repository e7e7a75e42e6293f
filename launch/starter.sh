#!/usr/bin/env bash
# The model to start from, battle/starter, rebuilt from nothing: about three hours on two CPU cores.
#
#   launch/starter.sh OUT [STEPS] [TUNE_STEPS]
#
# Battles between the baselines → imitation of the strongest → battles of the imitator against them → the binary filter
# over both → the better of the two by play, packed into battle/starter. A stage that is there already is not done again.
set -euo pipefail

out=${1:?usage: launch/starter.sh OUT [STEPS] [TUNE_STEPS]}
steps=${2:-4000}
tune=${3:-600}
python=${PYTHON:-.venv/bin/python}
formats="gen1ou gen2ou gen3ou gen4ou gen9ou"

train() { # FOLDER SETTINGS…
  local folder=$1
  shift
  [ -e "$folder/evaluation.json" ] || "$python" -m trainer.train --config launch/runs/starter.yaml "output=$folder" "$@"
}

evaluate() { # FOLDER BATTLES OPPONENTS…
  local folder=$1 battles=$2
  shift 2
  # shellcheck disable=SC2086
  [ -e "$folder/play.json" ] || "$python" -m battle.evaluate --agent "starter=$folder" --against "$@" --formats $formats \
    --battles "$battles" --json "$folder/play.json"
}

[ -e "$out/cache/manifest.json" ] || "$python" -m launch.proof record --out "$out" --battles 10000 --searched 60
train "$out/imitation" "data.path=$out/cache" "max_steps=$steps"

# The imitator's own battles: what it does wrong is in nobody else's.
# shellcheck disable=SC2086
"$python" -m battle.selfplay --players "agent=$out/imitation:temperature=0.5,weight=4" planner:weight=2 \
  simple_heuristics:weight=2 type_switch:weight=1 --formats $formats --battles 3000 --explore 0.02 --draft 100 --seed 10 \
  --out "$out/own"
train "$out/starter" "model.init_from=$out/imitation" "data.path=''" "data.filter=''" \
  "data.sources=[{path: $out/cache}, {path: $out/own}]" objective.filter=binary "max_steps=$tune" optim.lr=3.0e-4

evaluate "$out/starter" 500 all
"$python" -m trainer.hub pack "$out/starter" --to battle/starter
