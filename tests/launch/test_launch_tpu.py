"""launch/tpu_vm.sh: what it prints, what it refuses, and its loop on a host of ours."""

import time

import pytest

PLACE = ("--name=my-run", "--project=my-project", "--zone=us-west4-a")
SLICE = ("--type=v5litepod-64", "--spot")
RUN = ("--config=configs/ijepa_vith.py", "--workdir=gs://my-bucket/my-run")
MORE = ("--", "--config.mesh.fsdp=8", "--config.note=it's one")
DRY = {
    "create": (*PLACE, *SLICE),
    "install": PLACE,
    "run": (*PLACE, *RUN, *MORE),
    "logs": PLACE,
    "loop": (*PLACE, *SLICE, *RUN, "--delete", *MORE),
    "status": PLACE,
    "stop": PLACE,
    "delete": PLACE,
}
SUITE = ("--config=configs/eval_imagenet.py", "--checkpoint=gs://b/one,gs://b/two")


@pytest.mark.parametrize("action", DRY)
def test_a_dry_run_prints_the_commands(stage, action):
    stage.golden(f"tpu_{action}", "tpu_vm.sh", action, *DRY[action])


def test_runs_are_judged_where_a_checkpoint_is_given(stage):
    more = ("--", "--config.tasks.imagenet.dir=/mnt/sets")
    text = stage.golden("tpu_evaluate", "tpu_vm.sh", "run", *PLACE, *SUITE, *more)
    assert "-m vit_ssl_jax.evaluate " in text and "vit_ssl_jax.main" not in text


def test_a_package_by_address_is_not_copied(stage):
    url = "--package=git+https://example.com/vit_ssl_jax.git"
    text = stage.golden("tpu_install_git", "tpu_vm.sh", "install", *PLACE, url)
    assert "scp" not in text


@pytest.mark.parametrize(
    ("type_", "version"),
    [
        ("v5litepod-8", "v2-alpha-tpuv5-lite"),
        ("v5p-8", "v2-alpha-tpuv5"),
        ("v6e-8", "v2-alpha-tpuv6e"),
        ("v4-8", "tpu-ubuntu2204-base"),
    ],
)
def test_the_image_goes_with_the_type(stage, type_, version):
    done = stage("tpu_vm.sh", "create", *PLACE, f"--type={type_}", "--dry_run")
    assert f"--runtime-version={version}\n" in done.stdout
    own = ("--version=mine", "--dry_run")
    done = stage("tpu_vm.sh", "create", *PLACE, f"--type={type_}", *own)
    assert "--runtime-version=mine\n" in done.stdout


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "say what to do"),
        (("dance", *PLACE), "say what to do"),
        (("create", *SLICE), "--name"),
        (("create", "--name=My_Run", *SLICE), "isn't a name"),
        (("create", *PLACE), "accelerator type"),
        (("create", *PLACE, "--type=v5e:8x8"), "isn't an accelerator type"),
        (
            ("create", *PLACE, "--typ=v6e-8"),
            "unknown flag --typ=v6e-8; there are --name",
        ),
        (("create", *PLACE, "--type"), "--type needs a value"),
        (("run", *PLACE, *RUN, "--config.steps=2"), "put it after --"),
        (("run", *PLACE, RUN[0]), "--workdir=gs://"),
        (("loop", *PLACE, "--type=v4-8", RUN[0], "--checkpoint=/a"), "/a goes when"),
        (
            ("run", *PLACE, *SLICE, RUN[0], "--checkpoint=gs://b/a,/b"),
            "v5litepod-64 don't share /b",
        ),
        (("run", *PLACE, RUN[1]), "--config=configs/NAME.py"),
        (("run", *PLACE, *SLICE, RUN[0], "--workdir=/r"), "don't share /r"),
        (("loop", *PLACE, "--type=v4-8", RUN[0], "--workdir=/r"), "/r goes when"),
        (("install", *PLACE, "--package=a.whl"), "a.whl isn't a file"),
        (("create", *PLACE, *SLICE, "--poll=soon"), "--poll"),
    ],
)
def test_bad_flags_are_refused_with_the_way_out(stage, flags, message):
    log = stage.tool("gcloud", "exit 1")
    stage.refused(message, "tpu_vm.sh", *flags)
    assert not log.exists()


def test_without_gcloud_it_says_where_to_get_it(stage):
    flags = ("create", *PLACE, *SLICE)
    stage.refused("https://cloud.google.com/sdk/docs/install", "tpu_vm.sh", *flags)


def test_project_and_zone_come_from_gcloud_or_are_asked_for(stage):
    flags = ("status", "--name=my-run")
    stage.tool("gcloud", "exit 1")
    stage.refused("gcloud config set project", "tpu_vm.sh", *flags)
    stage.tool("gcloud", '[[ $* != *project ]] || echo "(unset)"')
    stage.refused("gcloud config set project", "tpu_vm.sh", *flags)
    stage.tool("gcloud", "[[ $* != *project ]] || echo p")
    stage.refused("gcloud config set compute/zone", "tpu_vm.sh", *flags)
    log = stage.tool("gcloud", "case $* in *project) echo p ;; *zone) echo z ;; esac")
    assert stage("tpu_vm.sh", *flags).returncode == 0
    assert "describe my-run --zone=z --project=p" in log.read_text()


def test_a_type_that_the_zone_lacks(stage):
    lists = "printf 'v5litepod-16\\nv5litepod-8\\n'"
    absent = "echo NOT_FOUND >&2; exit 1"
    log = stage.tool(
        "gcloud", f"if [[ $* == *list* ]]; then {lists}; else {absent}; fi"
    )
    flags = ("create", *PLACE, *SLICE)
    message = (
        "us-west4-a has no v5litepod-64 for my-project; it has v5litepod-8 v5litepod-16"
    )
    stage.refused(message, "tpu_vm.sh", *flags)
    stage.refused(message, "tpu_vm.sh", "loop", *flags[1:], *RUN)
    assert "create" not in log.read_text()
    stage.tool("gcloud", "echo 'no such zone' >&2; exit 1")
    stage.refused("gcloud compute tpus locations list", "tpu_vm.sh", *flags)


CLOUD = """
state=$(cat "$CLOUD/state" 2>/dev/null)
case "$*" in
*"accelerator-types list"*) echo v5litepod-64 ;;
*"resources describe"*)
  [[ $state ]] || { echo "ERROR: NOT_FOUND: no such thing" >&2; exit 1; }
  echo "$state" ;;
*"resources create"*)
  if [[ -e $CLOUD/full && -e $CLOUD/taken ]]; then rm "$CLOUD/full"; echo "no capacity" >&2; exit 1; fi
  echo WAITING_FOR_RESOURCES >"$CLOUD/state"; mkdir -p "$CLOUD/host/.local/bin"
  cat "$CLOUD/uv" >"$CLOUD/host/.local/bin/uv"; chmod +x "$CLOUD/host/.local/bin/uv" ;;
*"resources delete"*) rm -r "$CLOUD/state" "$CLOUD/host" ;;
*"vm describe"*) echo READY ;;
*"vm scp"*) [[ ! -e $CLOUD/broken ]] ;;
*"vm ssh"*)
  [[ ! -e $CLOUD/deaf ]] || exit 255
  for word in "$@"; do [[ $word != --command=* ]] || (cd "$CLOUD/host" && HOME=$PWD bash -c "${word#--command=}"); done ;;
esac
code=$?
[[ $state != WAITING_FOR_RESOURCES ]] || echo ACTIVE >"$CLOUD/state"
exit $code
"""
# What a host has not before `install`.
UV = """#!/bin/bash
mkdir -p vit_ssl_jax/venv/bin
echo '#!/bin/bash' >vit_ssl_jax/venv/bin/pip
printf '#!/bin/bash\\n. "$CLOUD/main.sh"' >vit_ssl_jax/venv/bin/python
chmod +x vit_ssl_jax/venv/bin/*
"""
# The run: the first is stopped by a preemption, as main is by SIGTERM; the next finishes.
STOPPED = """
echo "$@" >>"$CLOUD/started"
if [[ ! -e $CLOUD/taken ]]; then
  touch "$CLOUD/taken"
  echo "stopped at step 3, saved; the same command continues"
  echo SUSPENDED >"$CLOUD/state"
fi
"""


def cloud(stage, main, script=CLOUD):
    """A cloud whose hosts are a folder and whose main is `main`; what it was asked."""
    log = stage.tool("gcloud", script)
    stage.tool("python3", "")
    stage.tool("git", "")
    (stage.folder / "main.sh").write_text(main)
    (stage.folder / "uv").write_text(UV)
    return log


def loop(stage, main, *flags, **changes):
    """A loop on that cloud."""
    log = cloud(stage, main, **changes)
    flags = (*PLACE, *SLICE, *RUN, "--poll=0", *flags, *MORE)
    done = stage("tpu_vm.sh", "loop", *flags, CLOUD=str(stage.folder))
    words = "create", "delete", "scp"
    asked = [
        w for line in log.read_text().splitlines() for w in words if f" {w} " in line
    ]
    return done, asked


def test_the_loop_asks_again_after_a_preemption_until_the_run_is_finished(stage):
    mount = '--setup=echo "its disk" >>"$CLOUD/mounted"'
    done, asked = loop(stage, STOPPED, "--delete", mount)
    assert done.returncode == 0, done.stderr
    assert "stopped at step 3" in done.stdout
    assert (stage.folder / "mounted").read_text() == "its disk\n" * 2  # both slices
    assert asked == ["create", "scp", "delete", "create", "scp", "delete"]
    started = (stage.folder / "started").read_text().splitlines()
    main = "-m vit_ssl_jax.main --config=configs/ijepa_vith.py"
    main += (
        " --workdir=gs://my-bucket/my-run --config.mesh.fsdp=8 --config.note=it's one"
    )
    assert started == [main, main]
    assert "my-run is SUSPENDED" in done.stderr and "finished" in done.stderr


def test_the_loop_ends_with_a_run_that_fails_and_keeps_the_slice(stage):
    done, asked = loop(stage, "echo 'error: no such folder'; exit 1")
    assert done.returncode == 1
    assert "error: no such folder" in done.stdout
    assert "error: the run is failed and my-run is still there" in done.stderr
    assert asked == ["create", "scp"]


def test_the_loop_gives_up_on_a_host_that_it_can_not_install_on(stage):
    (stage.folder / "broken").touch()
    done, asked = loop(stage, "")
    assert done.returncode == 1
    assert "error: the run is lost and my-run is still there" in done.stderr
    assert asked == ["create", "scp", "scp", "scp"]


def test_the_loop_asks_again_when_there_is_no_capacity_after_a_preemption(stage):
    (stage.folder / "full").touch()
    done, asked = loop(stage, STOPPED, "--delete")
    assert done.returncode == 0, done.stderr
    assert "no capacity" in done.stderr and "wasn't asked for" in done.stderr
    assert asked == ["create", "scp", "delete", "create", "create", "scp", "delete"]


def test_the_loop_leaves_a_host_alone_that_does_not_answer(stage):
    """For a run may be on: nothing is installed under it."""
    (stage.folder / "deaf").touch()
    done, asked = loop(stage, "")
    assert done.returncode == 1
    assert "error: the run is unseen and my-run is still there" in done.stderr
    assert asked == ["create"]


def test_the_loop_ends_with_a_run_that_it_lost_sight_of(stage):
    """Stopped by somebody meanwhile, it isn't begun again."""
    (stage.folder / "taken").touch()
    stopped = "echo begun >>$CLOUD/started; touch $CLOUD/deaf; sleep 0.2"
    stopped += "; echo 'stopped at step 3, saved; the same command continues'"
    gone = CLOUD.replace("|| exit 255", '|| { rm "$CLOUD/deaf"; exit 255; }')
    done, asked = loop(stage, stopped, script=gone)
    assert done.returncode == 1
    assert "error: the run is stopped and my-run is still there" in done.stderr
    assert (stage.folder / "started").read_text() == "begun\n"
    assert asked == ["create", "scp"]


def test_a_run_is_one_at_a_time_and_stops_on_request(stage):
    """And outlives the connection that started it."""
    wait = "trap 'echo the same command continues; exit 0' TERM; touch $CLOUD/is_on"
    wait += "; for i in {1..300}; do sleep 0.1; done"
    cloud(stage, wait)
    at = dict(CLOUD=str(stage.folder))
    stage("tpu_vm.sh", "create", *PLACE, *SLICE, "--poll=0", **at)
    assert stage("tpu_vm.sh", "status", *PLACE, **at).stdout == "lost\n"
    assert stage("tpu_vm.sh", "install", *PLACE, **at).returncode == 0
    assert stage("tpu_vm.sh", "run", *PLACE, *RUN, **at).returncode == 0
    again = stage("tpu_vm.sh", "run", *PLACE, *RUN, **at)
    assert again.returncode == 1 and "a run is on: stop it first" in again.stderr
    for_main(stage.folder / "is_on")
    assert stage("tpu_vm.sh", "status", *PLACE, **at).stdout == "running\n"
    assert stage("tpu_vm.sh", "stop", *PLACE, **at).returncode == 0
    logs = stage("tpu_vm.sh", "logs", *PLACE, **at)  # ends with the run
    assert logs.stdout == "the same command continues\n"
    assert stage("tpu_vm.sh", "status", *PLACE, **at).stdout == "stopped\n"


def for_main(path, seconds=20):
    """Waits for a file that a fake main makes."""
    for _ in range(10 * seconds):
        if path.exists():
            return
        time.sleep(0.1)
    raise AssertionError(f"no {path.name} after {seconds} s")
