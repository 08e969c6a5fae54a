"""A workdir in a bucket (gs://), which an emulator of Google's store holds."""

import http.server
import json
import signal
import subprocess
import sys
import threading

import pytest
from etils import epath

from tests import runs

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """`gs://bucket` as a folder; its `.cloudstorage/bucket` is where the objects lie."""
    server = pytest.importorskip("gcp_storage_emulator.server")
    pytest.importorskip("gcsfs")
    folder, port = tmp_path_factory.mktemp("store"), runs.free_port()
    say_generations()
    store = server.create_server(
        "localhost", port, in_memory=False, default_bucket="bucket", data_dir=folder
    )
    store.start()
    address = f"http://localhost:{port}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", address)
        patch.setenv("TENSORSTORE_GCS_HTTP_URL", address)
        patch.setenv("GOOGLE_CLOUD_PROJECT", "project")
        patch.setenv("NO_GCE_CHECK", "true")
        yield folder / ".cloudstorage" / "bucket"
    store.stop()


def say_generations():
    """Has the emulator tell what it leaves out and Orbax's tensorstore asks for.

    And serve several clients, one request after the other: its dictionaries bear no more.
    Of every file called `lost.txt` the answer to the first deletion is lost on its way.
    """
    from gcp_storage_emulator import server
    from gcp_storage_emulator.exceptions import NotFound
    from gcp_storage_emulator.handlers import objects

    server.server.HTTPServer = http.server.ThreadingHTTPServer
    download = objects.download

    def with_generation(request, response, storage, *more):
        download(request, response, storage, *more)
        names = request.params["bucket_name"], request.params["object_id"]
        try:
            found = storage.get_file_obj(*names)
        except NotFound:
            return
        response["x-goog-generation"] = found["generation"]

    delete, lost = objects.delete, set()

    def without_answer(request, response, *more):
        delete(request, response, *more)
        name = request.params["object_id"]
        if name.endswith("lost.txt") and name not in lost:
            lost.add(name)
            response.status = http.HTTPStatus.SERVICE_UNAVAILABLE

    instead = {download: with_generation, delete: without_answer}
    objects.download, turn = with_generation, threading.Lock()
    server.HANDLERS = ((r".*/moveTo/.*", {server.POST: refuse}), *server.HANDLERS)
    for _, handlers in server.HANDLERS:
        for method, handler in handlers.items():
            handlers[method] = in_turn(instead.get(handler, handler), turn)


def in_turn(handler, lock):
    """The handler, which waits until the one before it is done."""

    def handle(*args, **kwargs):
        with lock:
            return handler(*args, **kwargs)

    return handle


def refuse(request, response, *more):
    """To what the emulator can't do: at "not implemented" the client tries for long."""
    response.status = http.HTTPStatus.BAD_REQUEST


def train(name, steps, wanted="", **changes):
    """Trains in `gs://bucket/NAME`; killed once it prints `wanted`. What it printed."""
    changes = dict(log_every=5, checkpoint_every=20, steps=steps) | changes
    process = runs.command(f"gs://bucket/{name}", **changes)
    out = ""
    for line in process.stdout:
        out += line
        if wanted and wanted in line:
            process.send_signal(signal.SIGKILL)
    code = process.wait()
    assert code == (-signal.SIGKILL if wanted else 0), out
    return out


def losses(folder):
    """`{step: loss}`; a step that is there twice is an error."""
    rows = [(row["step"], row["train/loss"]) for row in runs.metrics(folder)]
    assert len(dict(rows)) == len(rows)
    return dict(rows)


def test_a_killed_run_goes_on_with_all_its_metrics(bucket):
    train("killed", 80, "step 55/")
    kept = losses(bucket / "killed")
    assert list(kept)[:8] == list(range(5, 41, 5))  # those before a checkpoint
    assert "starting at step" in train("killed", 80)
    train("straight", 80)
    assert losses(bucket / "killed") == losses(bucket / "straight")
    events = list((bucket / "killed").glob("events.out.tfevents.*"))
    assert len(events) == 2


def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_is_taken(bucket):
    train("damaged", 40)
    for file in epath.Path("gs://bucket/damaged/checkpoints/40/state/d").iterdir():
        file.write_bytes(b"torn")
    epath.Path("gs://bucket/damaged/checkpoints/40/lost.txt").write_text("asked twice")
    assert "starting at step 20" in train("damaged", 40)
    assert (bucket / "damaged/damaged-40/state").exists()
    assert (bucket / "damaged/damaged-40/lost.txt").read_text() == "asked twice"
    assert (bucket / "damaged/checkpoints/40/commit_success.txt").exists()


def test_what_is_in_a_bucket_is_evaluated_and_listed(bucket):
    """By its workdir, and by a run that starts from it."""
    train("done", 20)
    train("next", 20, init_from="gs://bucket/done")
    command = [sys.executable, "-m", "vit_ssl_jax.evaluate"]
    command += ["--config=configs/eval_quickstart.py", "--checkpoint=gs://bucket/done"]
    subprocess.run(command, cwd=runs.ROOT, check=True)
    (file,) = (bucket / "done/evaluations").glob("*.json")
    assert json.loads(file.read_text())["step"] == 20
    command = [sys.executable, "-m", "vit_ssl_jax.results", "gs://bucket/done"]
    table = subprocess.run(
        command, cwd=runs.ROOT, capture_output=True, text=True, check=False
    )
    assert "eval_quickstart" in table.stdout, table.stderr
