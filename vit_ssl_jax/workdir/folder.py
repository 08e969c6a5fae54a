"""The folder of a run: whether it can be written, and the config in it."""

import importlib.metadata
import json
import os
import platform
import uuid

import jax
from etils import epath

from vit_ssl_jax.distributed import processes
from vit_ssl_jax.errors import CLOUD, UserError
from vit_ssl_jax.workdir.files import is_stored, replace

FILES = "config.json", "versions.json", "data.json", "metrics.jsonl", "summary.json"
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


def find(path):
    """A folder as an absolute path; one of a store (`gs://...`) is one already.

    Raises UserError for a store that can't be reached.
    """
    path = epath.Path(path)
    if not is_stored(path):
        return path.absolute()
    try:
        path.exists()
    except Exception as error:
        raise UserError(f"{path} can't be reached ({error}){CLOUD}") from error
    return path


def open_workdir(path):
    """Creates the folder and tries to write there.

    Raises UserError if it can't, or if several processes see different folders.
    """
    path = epath.Path(path)
    probe = path / f".write-test-{uuid.uuid4().hex}"
    with processes.together():
        try:
            path.mkdir(parents=True, exist_ok=True)
            probe.write_text("")
            probe.unlink()
        except Exception as error:  # noqa: BLE001 - stores of objects have their own
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise UserError(
                f"--workdir={path} can't be written ({why}); give a folder that you may "
                "write to" + CLOUD * is_stored(path)
            ) from None
        for name in () if is_stored(path) else FILES:
            if (path / name).is_dir():
                raise UserError(
                    f"--workdir={path}: {name} is a folder there, where a run writes a "
                    "file; move it away, or give another folder"
                )
    processes.check_shared(path)
    return path


def write_config(config, path, version, finished=False):
    """Writes config.json and versions.json; returns the keys that a resume changed.

    Called only once the checkpoint has been found to fit the config. A `finished` run
    keeps what it has, if that can be read.
    """
    new = json.loads(config.to_json_best_effort())
    file = path / "config.json"
    try:
        old = json.loads(file.read_text()) if file.exists() else new
    except (OSError, ValueError, RecursionError):
        old, finished = {"config.json": "(can't be read)"}, False
    if finished and file.exists():
        changed = _differences(old, new)
        return [f"{line} (not written: the run is finished)" for line in changed]
    if jax.process_index() == 0:
        replace(file, json.dumps(new, indent=2, sort_keys=True) + "\n")
        versions = find_versions(version)
        (path / "versions.json").write_text(json.dumps(versions, indent=2) + "\n")
    return _differences(old, new)


def find_versions(version):
    """Versions of packages and the machine, `version` being this package's."""
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    versions |= {"vit_ssl_jax": version, "python": platform.python_version()}
    return versions | describe_machine()


def describe_machine():
    """What a run is on: devices of all processes, and this one's cores and system."""
    devices = jax.devices()
    return {
        "devices": f"{len(devices)} {devices[0].device_kind}",
        "processes": jax.process_count(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _differences(old, new, prefix="config"):
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return [] if old == new else [f"{prefix}: {old} -> {new}"]
    out = []
    for key in sorted(old.keys() | new.keys()):
        out += _differences(old.get(key), new.get(key), f"{prefix}.{key}")
    return out
