#!/usr/bin/env bash
# In a container: `evaluate` where the flags name a --checkpoint, else `main`.
program=main
for flag in "$@"; do
  if [[ $flag == --checkpoint=* ]]; then program=evaluate; fi
done
exec python -m vit_ssl_jax."$program" "$@"
