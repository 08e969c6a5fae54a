"""launch/slurm.sh: the job that it submits, and when that job asks for another go."""

import subprocess

import pytest

RUN = ("--config=configs/mae_vitl.py", "--workdir=/shared/my-run")
DRY = {
    "slurm_one": RUN,
    "slurm_nodes": (
        *("--nodes=2", "--gpus=8", "--time=2-00:00:00", "--partition=gpu"),
        *("--account=vision", "--constraint=h100", "--cpus=12", "--name=my-run"),
        *("--python=/venv/bin/python", *RUN, "--", "--config.note=it's one"),
    ),
}
DRY["slurm_evaluate"] = (
    *("--gpus=4", "--config=configs/probe_vitl.py:mae", "--checkpoint=/shared/my-run"),
    *("--", "--config.evals.probe.accum=2"),
)
STOPPED = "stopped at step 3, saved; the same command continues"


@pytest.mark.parametrize("name", DRY)
def test_a_dry_run_prints_the_job(stage, name):
    stage.golden(name, "slurm.sh", *DRY[name])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (RUN[:1], "--workdir=DIR"),
        (RUN[1:], "--config=configs/NAME.py"),
        ((*RUN, "--nodes=0"), "--nodes: '0' isn't a number above 0"),
        ((*RUN, "--gpus=two"), "--gpus: 'two'"),
        ((*RUN, "--time=soon"), "--time: 'soon' isn't like 24:00:00"),
        ((*RUN, "--name=my run"), "--name: 'my run'"),
        ((*RUN, "--node=2"), "unknown flag --node=2"),
        (RUN, "sbatch isn't here"),
    ],
)
def test_bad_flags_are_refused_with_the_way_out(stage, flags, message):
    stage.refused(message, "slurm.sh", *flags)


@pytest.mark.parametrize(
    ("says", "code", "again"),
    [(STOPPED, 0, True), ("the table", 0, False), (STOPPED, 1, False)],
)
def test_a_job_goes_on_only_after_it_was_stopped(stage, says, code, again):
    """The submitted script runs here, with an srun that says what main would."""
    submitted = stage.tool("sbatch", f'cat >"{stage.folder}/job.sh"')
    assert stage("slurm.sh", *DRY["slurm_nodes"]).returncode == 0
    assert "--nodes=2 --ntasks-per-node=8" in submitted.read_text()
    srun = stage.tool("srun", f"echo '{says}'; exit {code}")
    requeued = stage.tool("scontrol", "")
    with open(stage.folder / "my-run-7.out", "w") as out:
        print(STOPPED, file=out, flush=True)  # the go before this one
        done = subprocess.run(
            ["bash", "job.sh"],
            cwd=stage.folder,
            env=dict(PATH=str(stage.bin), SLURM_JOB_ID="7"),
            stdout=out,
            check=False,
        )
    assert done.returncode == code
    main = "/venv/bin/python -m vit_ssl_jax.main --config=configs/mae_vitl.py"
    main += " --workdir=/shared/my-run --config.note=it's one"
    assert srun.read_text().endswith(f" --cpus-per-task=12 {main}\n")
    assert requeued.exists() == again
    assert not again or requeued.read_text() == "requeue 7\n"
