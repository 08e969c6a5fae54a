"""launch/gke.sh and pod.sh: the manifest, and what a pod tells Kubernetes of its end."""

import os
import signal
import subprocess
import time

import pytest
import yaml

RUN = ("--image=europe-docker.pkg.dev/p/r/vit:1", "--config=configs/mae_vitl.py")
BUCKET = ("--workdir=gs://my-bucket/my-run",)
CLAIM = ("--claim=shared", "--workdir=/data/my-run")
DRY = {
    "gke_one": (*RUN, *BUCKET, "--gpus=1"),
    "gke_pods": (
        *("--name=my-run", "--pods=4", "--accelerator=nvidia-h100-80gb", "--spot"),
        *(*RUN, *CLAIM, "--", '--config.note=a "b" \\ $(PODS) & @NAME@'),
    ),
}
DRY["gke_evaluate"] = (
    *(RUN[0], "--config=configs/eval_imagenet.py", "--pods=2", "--claim=shared"),
    "--checkpoint=gs://my-bucket/my-run,/data/other",
)
FLAGS = ("--config", "--workdir", "--checkpoint")
STOPPED = "stopped at step 3, saved; the same command continues"


@pytest.mark.parametrize("name", DRY)
def test_a_dry_run_prints_the_manifest(stage, name):
    text = stage.golden(name, "gke.sh", *DRY[name])
    service, job = yaml.safe_load_all(text)
    assert job["metadata"] == service["metadata"]
    pod = job["spec"]["template"]["spec"]
    assert pod["subdomain"] == service["metadata"]["name"]
    [container] = pod["containers"]
    asked = DRY[name]
    main = [flag for flag in asked if flag.startswith(FLAGS)]
    assert [arg.replace("$$", "$") for arg in container["args"]] == main


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (BUCKET, "--image=IMAGE"),
        ((RUN[0], *BUCKET), "--config=configs/NAME.py"),
        (RUN, "--workdir: '' goes with the pod"),
        ((*RUN, "--workdir=/data/r"), "give --workdir=gs://BUCKET/RUN, or --claim"),
        ((*RUN, "--checkpoint=gs://b/r,/r"), "--workdir: '/r' goes with the pod"),
        ((*RUN, "--claim=c", "--workdir=/r"), "--workdir: '/r' goes with the pod"),
        ((*RUN, *BUCKET, "--pods=0"), "--pods: '0' isn't a number above 0"),
        ((*RUN, *BUCKET, "--name=My_Run"), "--name: 'My_Run'"),
        ((*RUN, *BUCKET, "--claim=a b"), "--claim: 'a b'"),
        ((*RUN[1:], *BUCKET, "--image=a b"), "--image: 'a b'"),
        ((*RUN, *BUCKET, "--gpu=8"), "unknown flag --gpu=8"),
        (
            (*RUN, "--workdir=gs://b/r\n  evil: 1"),
            "has a line break or another control",
        ),
        ((*RUN, *BUCKET, "--", "--config.note=a\nb"), "has a line break or another"),
        ((*RUN, *BUCKET), "kubectl isn't installed"),
    ],
)
def test_bad_flags_are_refused_with_the_way_out(stage, flags, message):
    stage.refused(message, "gke.sh", *flags)


def test_what_is_applied_is_what_a_dry_run_prints(stage):
    log = stage.tool("kubectl", f'cat >"{stage.folder}/applied.yaml"')
    assert stage("gke.sh", *DRY["gke_pods"]).returncode == 0
    assert log.read_text() == "apply -f -\n"
    text = stage.golden("gke_pods", "gke.sh", *DRY["gke_pods"])
    assert (stage.folder / "applied.yaml").read_text() == text


def pod(stage, index, main, *flags):
    """A pod of two, its `python` being `main`; the process."""
    log = stage.tool("python", main)
    process = subprocess.Popen(
        [
            stage.bin / "bash",
            "launch/pod.sh",
            "--config=c.py",
            "--workdir=gs://b/r",
            *flags,
        ],
        env=dict(
            PATH=str(stage.bin),
            TMPDIR=str(stage.folder),
            COORDINATOR="run-0.run:8476",
            PODS="2",
            JOB_COMPLETION_INDEX=str(index),
        ),
        stdout=subprocess.PIPE,
        text=True,
    )
    return process, log


@pytest.mark.parametrize(
    ("index", "main", "code"),
    [
        (0, "echo the table", 0),
        (0, f"echo '{STOPPED}'", 75),
        (0, "echo error; exit 1", 1),
        (1, "", 75),
        (1, "exit 3", 3),
    ],
)
def test_only_pod_0_may_say_that_the_run_is_finished(stage, index, main, code):
    process, log = pod(stage, index, main)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == code, out
    assert log.read_text() == (
        "-m vit_ssl_jax.main --coordinator=run-0.run:8476 --num_processes=2"
        f" --process_id={index} --start_timeout=86400 --config=c.py --workdir=gs://b/r\n"
    )


def test_a_pod_judges_what_a_checkpoint_names(stage):
    process, log = pod(stage, 0, "", "--checkpoint=gs://b/r")
    assert process.wait(timeout=60) == 0
    assert log.read_text().startswith("-m vit_ssl_jax.evaluate --coordinator=run-0.run")


def test_a_pod_that_has_to_go_lets_main_save(stage):
    trap = f"trap 'sleep 0.5; echo \"{STOPPED}\"; exit 0' TERM; echo on"
    process, _ = pod(stage, 0, f"{trap}; while true; do sleep 0.1; done")
    assert process.stdout.readline() == "on\n"
    time.sleep(0.3)
    os.kill(process.pid, signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert STOPPED in out and process.returncode == 75
