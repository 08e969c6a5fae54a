#!/usr/bin/env bash
# A run on GPUs in Kubernetes: fills in launch/gke.yaml and applies it.
#
#   docker build -f launch/Dockerfile -t IMAGE . && docker push IMAGE
#   launch/gke.sh --image=IMAGE --pods=2 --gpus=8 --config=configs/NAME.py \
#       --workdir=gs://BUCKET/RUN [-- flags of main]
#   launch/gke.sh ... --config=configs/eval_NAME.py --checkpoint=gs://BUCKET/RUN[,...] [-- flags of evaluate]
#   kubectl logs -f -l batch.kubernetes.io/job-name=NAME,batch.kubernetes.io/job-completion-index=0
#   kubectl delete job/NAME service/NAME      # stops it, saved; apply again to go on
#
#   --pods=N, --gpus=N    pods, and GPUs of each (1, 8)
#   --accelerator=TYPE    of GKE's nodes: nvidia-h100-80gb, nvidia-l4, ...
#   --spot                on spot nodes
#   --claim=NAME          a PersistentVolumeClaim, which all pods see as /data
#   --name=NAME           of job and service (vit-ssl-jax)
#   --dry_run             prints the manifest
set -euo pipefail
# shellcheck source=launch/shell.sh
. "$(dirname "$0")/shell.sh"

# A list of strings as JSON, which is YAML; Kubernetes reads $$ as $.
json() {
  local text='' word
  for word in "$@"; do
    word=${word//\\/\\\\} word=${word//\"/\\\"} word=${word//\$/\$\$}
    text+=", \"$word\""
  done
  printf '[%s]' "${text#, }"
}

# fill KEY VALUE: puts a value into the manifest.
fill() { manifest=${manifest//"@$1@"/"$2"}; }

pods=1 gpus=8 image='' accelerator='' spot='' claim='' name=vit-ssl-jax
parse "pods gpus image accelerator claim name config workdir checkpoint" "spot dry_run" "$@"
number pods
number gpus
[[ $image ]] || die "give --image=IMAGE; docker build -f launch/Dockerfile makes it"
[[ $config ]] || die "give --config=configs/NAME.py"
IFS=, read -ra places <<<"${workdir:-$checkpoint}" # where it is written
for place in "${places[@]-}"; do
  [[ $place == gs://?* || ($claim && $place == /data/?*) ]] ||
    die "--workdir: '$place' goes with the pod; give --workdir=gs://BUCKET/RUN, or --claim=NAME and --workdir=/data/RUN"
done
for word in name claim; do
  [[ ! ${!word} && $word == claim || ${!word} =~ ^[a-z0-9]([a-z0-9-]*[a-z0-9])?$ ]] ||
    die "--$word: '${!word}' isn't a name in Kubernetes; lower-case letters, digits and dashes"
done
for word in image accelerator; do
  [[ ${!word} =~ ^[A-Za-z0-9_./:@-]*$ ]] || die "--$word: '${!word}' isn't one"
done
for word in "$config" "$workdir" "$checkpoint" ${more[@]+"${more[@]}"}; do
  [[ $word != *[[:cntrl:]]* ]] ||
    die "$(printf '%q' "$word") has a line break or another control character, which the manifest would take for its own; give it without"
done
[[ $dry_run ]] || command -v kubectl >/dev/null ||
  die "kubectl isn't installed; gcloud components install kubectl, then gcloud container clusters get-credentials"

data='emptyDir: {}'
[[ ! $claim ]] || data="persistentVolumeClaim: {claimName: $claim}"
nodes=${accelerator:+, cloud.google.com/gke-accelerator: $accelerator}
nodes+=${spot:+, cloud.google.com/gke-spot: \"true\"}
manifest=$(<"$(dirname "$0")/gke.yaml")
fill NAME "$name"
fill PODS "$pods"
fill BACKOFF "$((10 * pods))"
fill GPUS "$gpus"
fill IMAGE "$image"
fill NODES "${nodes#, }"
fill DATA "$data"
fill ARGS "$(with_flags json)"
if [[ $dry_run ]]; then echo "$manifest"; else kubectl apply -f - <<<"$manifest"; fi
