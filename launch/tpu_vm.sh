#!/usr/bin/env bash
# A run on a Cloud TPU slice, from a laptop: one queued resource, one run on it.
#   launch/tpu_vm.sh ACTION --name=NAME [--flag=value ...] [-- flags of main ...]
#
# ACTION
#   create   asks for the slice and waits until it is there
#   install  puts the package on all its hosts, into a virtual environment
#   run      starts `python -m vit_ssl_jax.main` on all hosts, or `evaluate`; it outlives the connection
#   logs     follows the run's output (host 0), to its end
#   loop     all of these; after a preemption all again, until the run is finished
#   status   the slice's state, and what the run says: running, finished, stopped, failed
#   stop     asks the run to save and end
#   delete   gives the slice back, with the disks of its hosts
#
# Flags
#   --name=NAME        of the slice
#   --project=, --zone=   else those of `gcloud config`
#   --type=TYPE        v5litepod-8, v5litepod-64, v6e-16, v5p-32, v4-32, ...
#   --version=VERSION  of the hosts' image; else the one for the type
#   --spot             cheaper, and may be taken away
#   --package=SPEC     a wheel, or git+https://...; else the last commit of this checkout
#   --setup=COMMAND    install: what each host does at last, to mount its data, say
#   --config=FILE      configs/NAME.py, as the package has it
#   --workdir=DIR      gs://BUCKET/..., or a host's own folder for a slice of one host
#   --checkpoint=DIR   judges finished runs, DIR[,...]: `evaluate`; --workdir= may be left out
#   --delete           loop: gives the slice back when the run is finished
#   --poll=SECONDS     between looks at the slice (30)
#   --dry_run          prints the commands, one a line, and runs none
# What follows `--` goes to main, or to evaluate: -- --config.batch_size=1024
set -euo pipefail
# shellcheck source=launch/shell.sh
. "$(dirname "$0")/shell.sh"

# What can be known before anything is asked for.
check() {
  local several='' size=${type##*-} places folder
  [[ $name =~ ^[a-z]([a-z0-9-]*[a-z0-9])?$ ]] ||
    die "--name: '$name' isn't a name for a slice; lower-case letters, digits and dashes, --name=my-run"
  [[ $poll =~ ^[0-9]+$ ]] || die "--poll: '$poll' isn't a number of seconds"
  if [[ $action == create || $action == loop || $type ]]; then
    [[ $type =~ ^v[0-9]+[a-z]*-[0-9]+$ ]] ||
      die "--type: '$type' isn't an accelerator type; --type=v5litepod-8, v6e-16, v4-32, ..."
    if ((10#$size > 8)); then several=yes; fi # a host has 8 chips at most, or 8 cores
  fi
  if [[ $action == run || $action == loop ]]; then
    [[ $config ]] || die "give --config=configs/NAME.py"
    [[ $workdir || $checkpoint ]] || die "give --workdir=gs://BUCKET/RUN"
    IFS=, read -ra places <<<"${workdir:-$checkpoint}" # where it is written
    for folder in "${places[@]}"; do
      [[ $folder == gs://?* || ! $several ]] ||
        die "--workdir: the hosts of a $type don't share $folder; give --workdir=gs://BUCKET/RUN"
      [[ $folder == gs://?* || $action != loop ]] ||
        die "--workdir: $folder goes when the slice does; give --workdir=gs://BUCKET/RUN"
    done
  fi
  [[ ! $package || $package == git+* || -f $package ]] ||
    die "--package: $package isn't a file; give a wheel, or git+https://..."
  [[ ! $package || $package == git+* ]] || package=$(realpath "$package")
  check_gcloud
}

check_gcloud() {
  if [[ ! $dry_run ]]; then
    command -v gcloud >/dev/null ||
      die "gcloud isn't installed; get it at https://cloud.google.com/sdk/docs/install, then run gcloud init"
    [[ $project ]] || project=$(gcloud config get-value project 2>/dev/null) || true
    [[ $zone ]] || zone=$(gcloud config get-value compute/zone 2>/dev/null) || true
  fi
  [[ $project && $project != '(unset)' ]] ||
    die "no project; give --project=PROJECT, or run: gcloud config set project PROJECT"
  [[ $zone && $zone != '(unset)' ]] ||
    die "no zone; give --zone=ZONE, or run: gcloud config set compute/zone ZONE"
  place=(--zone="$zone" --project="$project")
}

# Ends with a message where the zone has no such slice.
check_type() {
  local types
  types=$(do_ gcloud compute tpus accelerator-types list "${place[@]}" '--format=value(type)') ||
    die "can't list what $zone has, see above; zones: gcloud compute tpus locations list"
  [[ $dry_run ]] || grep -qxF -- "$type" <<<"$types" ||
    die "--type: $zone has no $type for $project; it has $(sort -V <<<"$types" | paste -sd' '). Other zones: gcloud compute tpus locations list"
}

runtime() {
  case $type in
  v5litepod-*) echo v2-alpha-tpuv5-lite ;;
  v5p-*) echo v2-alpha-tpuv5 ;;
  v6e-*) echo v2-alpha-tpuv6e ;;
  *) echo tpu-ubuntu2204-base ;;
  esac
}

# ABSENT, UNKNOWN (couldn't ask), PREEMPTED, or the queued resource's state.
state() {
  local out
  if ! out=$(do_ gcloud compute tpus queued-resources describe "$name" "${place[@]}" \
    '--format=value(state.state)' 2>&1); then
    if [[ $out == *NOT_FOUND* ]]; then out=ABSENT; else out=UNKNOWN; fi
  fi
  out=${out##*$'\n'} # after warnings
  if [[ $out == ACTIVE ]]; then
    case $(gcloud compute tpus tpu-vm describe "$name" "${place[@]}" '--format=value(state)' 2>/dev/null) in
    PREEMPTED | TERMINATED) out=PREEMPTED ;;
    esac
  fi
  if [[ $dry_run ]]; then echo "$assumed"; else echo "$out"; fi
}

# A host that goes away without a word is noticed after two minutes.
ssh_() {
  do_ gcloud compute tpus tpu-vm ssh "$name" "${place[@]}" --worker="$1" \
    --ssh-flag='-o ServerAliveInterval=30' --ssh-flag='-o ServerAliveCountMax=4' --command="$2"
}

create() { check_type && request; }

request() {
  local now before=''
  do_ gcloud compute tpus queued-resources create "$name" --node-id="$name" "${place[@]}" \
    --accelerator-type="$type" --runtime-version="${version:-$(runtime)}" ${spot:+--spot} ||
    die "$name wasn't asked for, see above"
  assumed=ACTIVE
  while now=$(state) && [[ $now != ACTIVE ]]; do
    [[ $now == "$before" ]] || say "$name is $now; looking every $poll s"
    case $now in FAILED | SUSPENDED | PREEMPTED | ABSENT) return 1 ;; esac
    before=$now && sleep "$poll"
  done
}

delete() { do_ gcloud compute tpus queued-resources delete "$name" "${place[@]}" --force --quiet; }

# The images have Python 3.10: uv, in the home folder, brings a newer one. gcsfs is for gs://
install() {
  local file spec
  if [[ $package == git+* ]]; then
    spec="vit_ssl_jax[tpu] @ $package"
  else
    file=${package:-${TMPDIR:-/tmp}/$name-vit_ssl_jax.tar.gz}
    if [[ ! $package ]]; then
      [[ $dry_run ]] || git rev-parse HEAD >/dev/null 2>&1 ||
        die "this isn't a git checkout; give --package=git+https://... or a wheel"
      [[ $dry_run || ! $(git status --porcelain) ]] || say "what isn't committed isn't sent"
      do_ git archive --format=tar.gz --prefix=vit_ssl_jax/ --output="$file" HEAD || return
    fi
    do_ gcloud compute tpus tpu-vm scp "$file" "$name:" "${place[@]}" --worker=all || return
    spec="./${file##*/}[tpu]"
  fi
  ssh_ all "set -e; PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install -q --user uv; test -d vit_ssl_jax/venv ||\
 ~/.local/bin/uv venv -q --seed --python=3.12 vit_ssl_jax/venv;\
 vit_ssl_jax/venv/bin/pip uninstall -q -y vit_ssl_jax;\
 vit_ssl_jax/venv/bin/pip install -q $(quote "$spec") gcsfs${setup:+; $setup}"
}

# Said on a host. ~/vit_ssl_jax has venv/, log.txt, the run's pid and its exit code.
# shellcheck disable=SC2016
{
  here='cd ~/vit_ssl_jax || exit 1;'
  alive='kill -0 "$(cat pid 2>/dev/null)" 2>/dev/null'
  start='nohup sh -c '\''"$@" >log.txt 2>&1; echo $? >code'\'' run'
  started='</dev/null >/dev/null 2>&1 & echo $! >pid'
  word='cd ~/vit_ssl_jax 2>/dev/null || { echo lost; exit; }; '
  word+="if $alive; then echo running; elif ! test -s code; then echo lost;"
  word+=' elif test "$(cat code)" != 0; then echo failed;'
  word+=" elif tail -n 5 log.txt | grep -q 'same command continues'; then echo stopped;"
  word+=' else echo finished; fi'
}

run() {
  local main
  main=$(with_flags line venv/bin/python -m "$(module)")
  ssh_ all "$here if $alive; then echo 'a run is on: stop it first' >&2; exit 1; fi;\
 rm -f code; $start $main $started"
}

logs() { ssh_ 0 "$here tail -n ${1:-+1} -F --pid=\"\$(cat pid)\" log.txt"; }
stop() { ssh_ all "$here pkill -TERM -P \"\$(cat pid)\""; }

status() {
  local now
  now=$(state)
  say "$name is $now"
  [[ $now != ACTIVE && ! $dry_run ]] || ssh_ all "$word"
}

# What the run on host 0 says of itself, a word of `word`; unseen: it can't be asked.
ask() { { ssh_ 0 "$word" || echo unseen; } | tail -n 1; }

# Installs and starts the run, or finds it running, and follows it to its end. Sets `ended`.
attempt() {
  ended=$(ask)
  [[ $ended != unseen ]] || return 0
  unseen=0
  # Of a run that was followed any word but these is the end.
  if [[ $ended == lost || ($ended != running && ! $followed) ]]; then
    ended=lost from=+1
    install && run && ended=running || return 0
  fi
  followed=yes
  while [[ $ended == running ]]; do
    logs "$from" || true
    ended=$(ask) from=20
    [[ $ended != running ]] || lost=0
  done
  [[ ! $dry_run ]] || ended=finished
}

# Whether the slice goes within four polls: a preemption shows later than it hits.
goes() {
  for _ in 1 2 3 4; do sleep "$poll" && [[ $(state) == ACTIVE ]] || return 0; done
  return 1
}

loop() {
  local now asked='' followed='' from=+1 lost=0 unseen=0
  check_type
  while now=$(state); do
    case $now in
    ACTIVE)
      asked=yes
      attempt
      [[ $ended != finished ]] || break
      ! goes || continue
      [[ $ended != unseen ]] || ((++unseen == 10)) || continue
      [[ $ended != lost ]] || ((++lost == 3)) || continue
      die "the run is $ended and $name is still there; see above, and loop again after a fix"
      ;;
    ABSENT) # what fails at first is a mistake, later it may pass
      if [[ $asked ]]; then (request) || sleep "$poll"; else request || asked=yes; fi ;;
    FAILED | SUSPENDED | PREEMPTED)
      say "$name is $now: deleting it and asking again"
      delete || true
      asked=yes followed='' lost=0 unseen=0
      sleep "$poll"
      ;;
    *) sleep "$poll" ;;
    esac
  done
  say "the run is finished: ${workdir:-$checkpoint}"
  if [[ $delete ]]; then delete; else say "$name is still there; launch/tpu_vm.sh delete gives it back"; fi
}

action=${1-} name='' project='' zone='' type='' version='' spot='' package='' setup=''
delete='' poll=30 assumed=ABSENT
[[ " create install run logs loop status stop delete " == *" $action "* ]] ||
  die "say what to do: launch/tpu_vm.sh create|install|run|logs|loop|status|stop|delete --name=NAME"
parse "name project zone type version package setup config workdir checkpoint poll" "spot delete dry_run" "${@:2}"
check
cd "$(dirname "$0")/.."
"$action"
