#!/usr/bin/env bash
# Start a run again, by the same command, until it is done:
#
#     bash launch/restart.sh OUTPUT COMMAND…
#     bash launch/restart.sh checkpoints/h100_base accelerate launch --config_file launch/accelerate/1gpu.yaml -m trainer.train --config launch/runs/h100_1gpu.yaml
#
# OUTPUT is the run's output folder. A start that ends badly is followed by another as long as there was progress, a newer
# checkpoint; three ends in a row without one stop it. From the first such checkpoint on the command ends with resume=auto,
# lest another `resume` of its own begin anew each time. SIGTERM, Ctrl-C, a hangup and SIGUSR1 are handed on to the run as
# SIGTERM, which it saves itself at, and nothing is started after it. (The `deepspeed` launcher, and accelerate over one plain
# process, die of it and hand nothing on: what they started saves itself some seconds later, and where this script's end
# is the end of a container or a job there are none: take torchrun.)
set -u
output=${1:?give the run\'s output folder, then the command}
: "${2:?give the command too, after the run\'s output folder}"
shift
told=0  # signals so far
owed="" # one that came while there was nobody to hand it to
child=0
hand_on() {
    told=$((told + 1))
    if [ "$child" -ne 0 ]; then kill -s TERM "$child" 2>/dev/null; else owed=yes; fi
}
# A job in the background hears no Ctrl-C; torchrun dies of SIGUSR1, and its processes train on with nobody over them.
trap hand_on TERM INT HUP USR1
newest() { ls -d "$output"/step_*/manifest.json 2>/dev/null | tail -n 1; }
idle=0
mkdir -p "$output" && touch "$output/.begun"
while true; do
    before=$(newest)
    if [ -n "$before" ] && [ "$before" -nt "$output/.begun" ] && [ "${!#}" != resume=auto ]; then
        set -- "$@" resume=auto
    fi
    "$@" &
    child=$!
    [ -n "$owed" ] && kill -s TERM "$child" 2>/dev/null
    # A trapped signal ends `wait` early, with a code of its own: only a wait that none has ended tells the run's.
    while true; do
        before_wait=$told
        wait "$child"
        code=$?
        [ "$told" -eq "$before_wait" ] && break
    done
    child=0
    [ "$code" -eq 0 ] && exit 0
    [ "$told" -gt 0 ] && exit "$code"
    if [ "$(newest)" = "$before" ]; then idle=$((idle + 1)); else idle=0; fi
    if [ "$idle" -ge 3 ]; then
        echo "restart.sh: three ends in a row without a new checkpoint in $output (last exit code $code): not started again" >&2
        exit "$code"
    fi
    echo "restart.sh: ended with $code; starting again" >&2
    sleep "${RESTART_DELAY_S:-5}"
    [ "$told" -gt 0 ] && exit "$code"
done
