# shellcheck shell=bash disable=SC2034
# What the launch scripts share: messages, quoting, and commands that --dry_run only prints.
set -euo pipefail
exec 3>&1
dry_run='' config='' workdir='' checkpoint='' more=()

die() {
  echo "error: $*" >&2
  exit 1
}

say() { [[ $dry_run ]] || echo "$@" >&2; }

# One argument as a shell reads it back.
quote() {
  local plain='^[A-Za-z0-9_./:=,@%+~-]+$' q="'\\''"
  if [[ $1 =~ $plain ]]; then printf '%s' "$1"; else printf "'%s'" "${1//\'/$q}"; fi
}

# A command line as a shell reads it back.
line() {
  local text='' word
  for word in "$@"; do text+=" $(quote "$word")"; done
  printf '%s\n' "${text# }"
}

# Runs a command, or prints it, past any $(...).
do_() { if [[ $dry_run ]]; then line "$@" >&3; else "$@" 3>&-; fi; }

# parse "VALUES" "SWITCHES" "$@": --name=value and --switch into variables of those names;
# what follows -- into the array `more`.
parse() {
  local values=" $1 " switches=" $2 " flag
  shift 2
  more=()
  while (($#)); do
    flag=${1%%=*} flag=${flag#--}
    if [[ $1 == -- ]]; then
      more=("${@:2}")
      return
    elif [[ $1 == --*=* && $values == *" $flag "* ]]; then
      printf -v "$flag" %s "${1#*=}"
    elif [[ $1 == --* && $1 != *=* && $switches == *" $flag "* ]]; then
      printf -v "$flag" yes
    elif [[ $1 == --config.* ]]; then
      die "$1 goes to main or evaluate: put it after --"
    elif [[ $values == *" $flag "* ]]; then
      die "--$flag needs a value: --$flag=..."
    else
      # shellcheck disable=SC2086
      die "unknown flag $1; there are$(printf ' --%s=...' $values)$(printf ' --%s' $switches)"
    fi
    shift
  done
}

# What is started: main, or evaluate where there is a --checkpoint.
module() { if [[ $checkpoint ]]; then echo vit_ssl_jax.evaluate; else echo vit_ssl_jax.main; fi; }

# with_flags COMMAND...: runs it with the flags of main, or of evaluate, behind.
with_flags() {
  "$@" --config="$config" ${checkpoint:+--checkpoint="$checkpoint"} \
    ${workdir:+--workdir="$workdir"} ${more[@]+"${more[@]}"}
}

# number NAME: ends unless the variable is a whole number above 0.
number() { [[ ${!1} =~ ^[1-9][0-9]*$ ]] || die "--$1: '${!1}' isn't a number above 0"; }
