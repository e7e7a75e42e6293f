#!/usr/bin/env bash
# The loop, K rounds: record → train on weighted sources → evaluate → record with the new agent.
#
#   launch/loop.sh OUT ROUNDS [key=value overrides of the training run …]
#
# Environment: FORMATS, RECORD (formats recorded, if others; one named twice gets twice the battles), BATTLES (recorded in
# a round), LATER_BATTLES (from round 2 on, if others), EVAL_BATTLES (per opponent and format), CONFIG (training YAML),
# START (players of round 1, who stay in every round), AGENT (the agent's options when it records), FIXED (opponents
# outside the loop, the same in every round), LATER (overrides of the training run from round 2 on, which starts from the
# last round's model), NAME (of a record), PYTHON.
# A round that is there already is not done again, so a stopped loop goes on where it was, by the same settings.
set -euo pipefail

told="launch/loop.sh OUT $(printf '%q ' "${@:2}")"
for name in FORMATS RECORD BATTLES LATER_BATTLES EVAL_BATTLES CONFIG START AGENT FIXED LATER; do
  if [ -n "${!name:-}" ]; then told="$name=$(printf '%q' "${!name}") $told"; fi
done
out=${1:?usage: launch/loop.sh OUT ROUNDS [key=value …]}
rounds=${2:?usage: launch/loop.sh OUT ROUNDS [key=value …]}
shift 2
root=$(cd "$(dirname "$0")/.." && pwd)
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} # paths stay those of the caller's folder
python=${PYTHON:-$root/.venv/bin/python}
formats=${FORMATS:-gen1ou gen2ou gen3ou gen4ou gen9ou}
record=${RECORD:-$formats}
battles=${BATTLES:-1000}
eval_battles=${EVAL_BATTLES:-100}
config=${CONFIG:-$root/launch/runs/quickstart.yaml}
start=${START:-type_switch:weight=8 most_damage:weight=1 boss:weight=1}
agent=${AGENT:-temperature=0.5,weight=4}
fixed=${FIXED:-random boss most_damage type_switch}
later=${LATER:-optim.lr=4e-4}

# A path as a text of YAML, whatever is in it.
quoted() { printf "'%s'" "${1//\'/\'\'}"; }

sources=""
# Of the round before: its agent as a player, and what a training that goes on from it is told.
player=()
more=()
for round in $(seq 1 "$rounds"); do
  here=$out/round$round
  mkdir -p "$here"
  asked=$(printf '%q ' "$record" "$battles" "$start" "$agent" "$config" "$later" "$fixed" "$formats" "$eval_battles" "$@")
  if [ -e "$here/asked" ] && [ "$(cat "$here/asked")" != "$asked" ]; then
    echo "error: $here was made by other settings (its file asked): give another OUT" >&2
    exit 1
  fi
  printf '%s' "$asked" > "$here/asked"

  # Record. selfplay keeps a journal: it plays only what is missing. A round that is trained wants nothing more, nor the
  # players' code as it was.
  if [ ! -e "$here/trained" ]; then
    # shellcheck disable=SC2086
    "$python" -m battle.selfplay --players "${player[@]}" $start --formats $record --battles "$battles" --seed "$round" \
      --out "$here/battles"
  fi

  # Train on all rounds so far, as much on each: the better baselines' battles stay. A later round goes on from the
  # model before it, so that its steps are added and not begun anew.
  sources=${sources:+$sources, }"{path: $(quoted "$here/battles")}"
  if [ ! -e "$here/trained" ]; then
    "$python" -m trainer.train --config "$config" "data.path=''" "data.sources=[$sources]" "output=$(quoted "$here/run")" \
      eval.choose=last "$@" "${more[@]}"
    touch "$here/trained"
  fi

  # Evaluate against a pool outside the loop, with teams that were never recorded.
  if [ ! -e "$here/play.json" ]; then
    # shellcheck disable=SC2086
    "$python" -m battle.evaluate --agent "round$round=$here/run" --against $fixed --formats $formats \
      --battles "$eval_battles" --json "$here/play.json"
  fi

  # The next round is played by this one's agent and the baselines.
  player=("round$round=$here/run:$agent")
  # shellcheck disable=SC2206
  more=("model.init_from=$(quoted "$here/run")" $later)
  battles=${LATER_BATTLES:-$battles}
done

# All rounds beside each other; with NAME as a record of launch/records.
"$python" -m launch.loop_report "$out" ${NAME:+--name "$NAME"} --command "$told"
