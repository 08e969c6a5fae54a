#!/usr/bin/env bash
# In a pod of launch/gke.yaml: one process of the run, and what Kubernetes is told of its end.
#
# Status 0 ends the whole job, and only pod 0 may say so, when the run is finished. 75 asks
# for another pod: after a stop (a spot node leaves: it saves and ends with 0), and on all
# other pods, which can't know. Any other status is an error of main, or of evaluate.
set -uo pipefail
log=${TMPDIR:-/tmp}/pod.log
# A spot node may be long in coming: for a day the pods wait for each other.
bash "$(dirname "$0")/start.sh" --coordinator="$COORDINATOR" --num_processes="$PODS" \
  --process_id="$JOB_COMPLETION_INDEX" --start_timeout=86400 "$@" > >(tee "$log") 2>&1 &
run=$!
asked=''
trap 'asked=yes; kill -TERM "$run"' TERM
wait "$run"
code=$?
while [[ $asked ]]; do # the trap ended the wait
  asked=''
  wait "$run"
  code=$?
done
((code == 0)) || exit "$code"
sleep 1 # tee's last lines
if ((JOB_COMPLETION_INDEX > 0)) || tail -n 5 "$log" | grep -q 'same command continues'; then exit 75; fi
