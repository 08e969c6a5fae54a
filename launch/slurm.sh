#!/usr/bin/env bash
# A run on GPUs under SLURM: one job, NODES x GPUS tasks of one GPU each.
#
#   launch/slurm.sh --nodes=2 --gpus=8 --config=configs/NAME.py --workdir=DIR [-- flags of main]
#   launch/slurm.sh ... --config=configs/eval_NAME.py --checkpoint=DIR[,DIR] [-- flags of evaluate]
#
#   --nodes=N, --gpus=N   nodes, and GPUs of each (1, 1); --cpus=N of a task (8)
#   --time=24:00:00       of one go; the job saves two minutes before its end, and goes on
#                         in the queue with the same number until the run is finished
#   --partition=, --account=, --constraint=   as sbatch has them
#   --name=NAME           of the job; its output is NAME-JOB.out here
#   --python=FILE         of the environment that has the package (python)
#   --dry_run             prints what would be submitted
#
# The workdir, checkpoints and this folder must be visible on all nodes. `main` finds the other tasks by
# SLURM's variables. A task sees all GPUs of its node and takes the one of its local number,
# which is why there is no --gpus-per-task.
set -euo pipefail
# shellcheck source=launch/shell.sh
. "$(dirname "$0")/shell.sh"

nodes=1 gpus=1 cpus=8 time=24:00:00 partition='' account='' constraint='' name=vit_ssl_jax
python=python
parse "nodes gpus cpus time partition account constraint name python config workdir checkpoint" dry_run "$@"
number nodes
number gpus
number cpus
[[ $config ]] || die "give --config=configs/NAME.py"
[[ $workdir || $checkpoint ]] || die "give --workdir=DIR, a folder that all nodes see"
[[ $time =~ ^([0-9]+-)?[0-9]+(:[0-9]+)*$ ]] || die "--time: '$time' isn't like 24:00:00 or 2-00:00:00"
[[ $name =~ ^[A-Za-z0-9_.-]+$ ]] || die "--name: '$name' isn't a name for a job; letters, digits, _ . -"
[[ $dry_run ]] || command -v sbatch >/dev/null ||
  die "sbatch isn't here: run this on a login node of the cluster, or see it with --dry_run"

command=(sbatch --job-name="$name" --nodes="$nodes" --ntasks-per-node="$gpus"
  --gres=gpu:"$gpus" --cpus-per-task="$cpus" --time="$time" --output="$name-%j.out"
  --open-mode=append --requeue --signal=TERM@120
  ${partition:+--partition="$partition"} ${account:+--account="$account"}
  ${constraint:+--constraint="$constraint"})
main=$(with_flags line "$python" -m "$(module)")
script="#!/bin/bash
# At --time minus two minutes main gets SIGTERM, saves and says so: then once more.
begun=\$(wc -l <\"$name-\$SLURM_JOB_ID.out\")
srun --kill-on-bad-exit=1 --cpus-per-task=$cpus $main || exit
if tail -n \"+\$((begun + 1))\" \"$name-\$SLURM_JOB_ID.out\" | grep -q 'same command continues'; then
  scontrol requeue \"\$SLURM_JOB_ID\"
fi"
if [[ $dry_run ]]; then
  printf "%s <<'END'\n%s\nEND\n" "$(line "${command[@]}")" "$script"
else
  "${command[@]}" <<<"$script"
fi
