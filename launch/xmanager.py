"""Several runs as one experiment: configs, a sweep of one, or both.

    python launch/xmanager.py --config=configs/a.py,configs/b.py --workdir=DIR
    python launch/xmanager.py --config=configs/a.py --sweep=FILE.py --workdir=DIR --local
    python launch/xmanager.py ... --executor=vertex --resources=h100=8 --config.steps=100

Every run is a work unit: `python -m vit_ssl_jax.main` with its own flags, in DIR/1, DIR/2,
... A sweep is a function `get_hyper(hyper)` in FILE.py or in the config itself, as in
big_vision and Scenic (`launch/sweeps.py` has the helpers). With `--checkpoint=RUN[,RUN]` a work
unit is `python -m vit_ssl_jax.evaluate` by its suite, and DIR/1 is for its results. Units on
this machine (`--local`, `--executor=local`) run under `--python=VENV/bin/python`, else under
the Python that runs this.
"""

import argparse
import importlib.util
import pathlib
import shlex
import signal
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
MAIN = ["-m", "vit_ssl_jax.main"]
EVALUATE = ["-m", "vit_ssl_jax.evaluate"]


def main(argv=None):
    """Reads the flags, and prints, runs or launches the work units."""
    args, more = parse(sys.argv[1:] if argv is None else argv)
    program = EVALUATE if args.checkpoint else MAIN
    more = [f"--checkpoint={args.checkpoint}"] * bool(args.checkpoint) + more
    units = work_units(args.config.split(","), args.workdir, args.sweep, more)
    if args.dry_run:
        for flags in units:
            print(shlex.join([args.python or "python", *program, *flags]))
    elif args.local:
        run_here([interpreter(args.python), *program], units)
    elif args.executor == "local":
        binary = [interpreter(args.python), *program]
        launch(args.title, binary, units, args.executor, resources(args.resources))
    else:
        launch(args.title, program, units, args.executor, resources(args.resources))


def parse(argv):
    """The launcher's own flags, and the `--config.key=value` of all units."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.error = fail
    parser.add_argument("--config", required=True, help="a file, or several: a.py,b.py")
    parser.add_argument("--workdir", required=True, help="folder of the experiment")
    parser.add_argument("--checkpoint", help="runs to judge, in the place of training")
    parser.add_argument("--sweep", help="a file with get_hyper(hyper)")
    parser.add_argument("--title", default="vit_ssl_jax", help="of the experiment")
    parser.add_argument("--executor", choices=["vertex", "local"], default="vertex")
    parser.add_argument("--resources", default="", help="of a unit: h100=8,cpu=96")
    parser.add_argument(
        "--python", help="of units on this machine: bin/python of the package's venv"
    )
    parser.add_argument(
        "--local", action="store_true", help="run here, one by one, without xmanager"
    )
    parser.add_argument(
        "--dry_run", action="store_true", help="print the units' commands"
    )
    args, more = parser.parse_known_args(argv)
    here = args.local or args.dry_run or args.executor == "local"
    if not here and not args.workdir.startswith("gs://"):
        fail(
            f"--workdir: {args.workdir} goes with its container; give "
            "--workdir=gs://BUCKET/RUN, or --local to run the units here"
        )
    more = [flag for flag in more if flag != "--"]
    for flag in more:
        if not (flag.startswith("--config.") and "=" in flag):
            fail(f"unknown flag {flag}; --help lists them, and main's are --config.x=y")
    return args, more


def work_units(configs, workdir, sweep, more):
    """The flags of every work unit, a list of lists of strings."""
    units = []
    for config in configs:
        path, _, _ = config.partition(":")
        for values in hypers(sweep or path, bool(sweep)):
            swept = {k.removeprefix("config."): v for k, v in values.items()}
            units.append(
                [
                    f"--config={config}",
                    f"--workdir={workdir.rstrip('/')}/{len(units) + 1}",
                    *more,
                    *(f"--config.{key}={value}" for key, value in swept.items()),
                ]
            )
    return units


def hypers(path, needed):
    """What get_hyper of a Python file gives; [{}] where it has none and needs none."""
    found = [f for f in (pathlib.Path(path), ROOT / path) if f.is_file()]
    if not found:
        fail(f"{path} doesn't exist")
    spec = importlib.util.spec_from_file_location("swept", found[0])
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        if not hasattr(module, "get_hyper"):
            return fail(f"--sweep: {path} has no get_hyper(hyper)") if needed else [{}]
        values = module.get_hyper(load_sweeps())
    except Exception as error:  # noqa: BLE001 - the file is the user's
        fail(f"{path}: {type(error).__name__}: {error}")
    return values or fail(f"{path}: get_hyper gives nothing to run")


def load_sweeps():
    """launch/sweeps.py, wherever this was started."""
    spec = importlib.util.spec_from_file_location("sweeps", HERE / "sweeps.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def interpreter(path):
    """The Python of units on this machine, which has the package's dependencies.

    path: as of --python; None is this one, which XManager's own environment isn't.
    """
    python = path or sys.executable
    try:
        run = [python, "-c", "import jax, flax"]
        done = subprocess.run(
            run, cwd=ROOT, capture_output=True, text=True, check=False
        )
    except OSError as error:
        fail(f"--python: {python} can't be started: {error.strerror}")
    if done.returncode:
        why = (done.stderr.strip() or f"status {done.returncode}").splitlines()[-1]
        fail(
            f"{python} can't run the units ({why}); give "
            "--python=VENV/bin/python, of the environment with `pip install -e .`"
        )
    return python


def run_here(program, units):
    """Work units one after another; SIGTERM and Ctrl-C stop the one that is on, saved.

    Ends with status 1 if any failed; the others ran.
    """
    asked, failed, unit = [], [], None

    def stop(number, frame):
        del frame
        asked.append(number)
        if unit:
            unit.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    for wid, flags in enumerate(units, 1):
        print(f"work unit {wid} of {len(units)}: {shlex.join(flags)}", flush=True)
        # Its own session: a terminal's Ctrl-C reaches it once, by the handler.
        unit = subprocess.Popen([*program, *flags], start_new_session=True)
        if unit.wait():
            failed.append(wid)
        if asked:
            sys.exit("stopped; the same command goes on")
    if failed:
        fail(f"work units {', '.join(map(str, failed))} of {len(units)} failed")


def resources(text):
    """`h100=8,cpu=96` -> {"h100": 8, "cpu": 96}."""
    pairs = [pair.partition("=")[::2] for pair in text.split(",") if pair]
    for name, count in pairs:
        if not count.isdecimal():
            fail(f"--resources: {text!r} isn't like h100=8,cpu=96")
        if name.startswith("tpu") and name not in ("tpu_v2", "tpu_v3"):
            fail("--resources: Vertex gets no TPU beyond v3 here; use launch/tpu_vm.sh")
    return {name: int(count) for name, count in pairs}


def launch(title, run, units, executor, needs):
    """One XManager experiment, a job each work unit.

    Vertex AI builds launch/Dockerfile and runs its container; `local` starts all units
    at once on this machine and waits for them.
    """
    # Else this file, which has its name, is taken for the package.
    sys.path[:] = [p for p in sys.path if pathlib.Path(p or ".").resolve() != HERE]
    try:
        from absl import flags
        from xmanager import xm, xm_local
    except ImportError as error:
        fail(
            f"{error}; install XManager in an environment of its own (uv pip install "
            "xmanager absl-py ml_collections), or give --local to run the units here, one by one"
        )
    flags.FLAGS(sys.argv[:1])  # xmanager's, at their defaults
    if executor == "vertex":
        place = xm_local.Vertex(requirements=xm.JobRequirements(**needs))
        made = xm.dockerfile_container(
            place.Spec(), str(ROOT), str(HERE / "Dockerfile")
        )
    else:
        place = xm_local.Local(requirements=xm.JobRequirements(**needs))
        made = xm.binary(place.Spec(), run[0], args=run[1:])
    with xm_local.create_experiment(experiment_title=title) as experiment:
        [program] = experiment.package([made])
        for unit in units:
            experiment.add(xm.Job(program, executor=place, args=unit))


def fail(message):
    """Ends with a message and status 1."""
    sys.exit(f"error: {message}")


if __name__ == "__main__":
    main()
