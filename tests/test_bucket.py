"""A workdir in a bucket (gs://), which an emulator of Google's store holds."""

import http.server
import io
import json
import signal
import subprocess
import sys
import threading

import pytest
from etils import epath
from PIL import Image

from tests import runs
from vit_ssl_jax.data import decoding, prepare, reading, sources
from vit_ssl_jax.errors import UserError

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
        patch.setenv(
            "CLOUD_STORAGE_EMULATOR_ENDPOINT", address
        )  # of ArrayRecord's reader
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


def photos(count=12):
    """`{path: PNG}` of two classes; the red of an image is its number."""
    files = {}
    for i in range(count):
        file = io.BytesIO()
        Image.new("RGB", (20, 24), (i, 0, 0)).save(file, "PNG")
        files[f"train/{'ab'[i % 2]}/{i}.png"] = file.getvalue()
    return files


def numbers(source):
    """`{number: class}` of a source of `photos`."""
    read = [source.read(i) for i in range(len(source))]
    return {
        int(decoding.decode(content)[0, 0, 0]): source.class_names[label]
        for content, label in read
    }


def test_a_folder_in_a_bucket_is_read_as_one_on_a_disk(bucket, tmp_path):
    top = epath.Path("gs://bucket/photos")
    files = photos() | {"train/a/notes.txt": b"no", "train/.hidden/x.png": b"x"}
    files["train/b/nameless"] = files["train/b/1.png"]
    for path, content in files.items():
        (top / path).write_bytes(content)
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    ours = sources.open_source("folder", str(top), "train")
    theirs = sources.open_source("folder", str(tmp_path), "train")
    assert len(ours) == 13 and not ours.files
    assert ours.class_names == theirs.class_names == ("a", "b")
    assert [ours.read(i) for i in range(13)] == [theirs.read(i) for i in range(13)]
    assert ours.where(0).startswith("gs://bucket/photos/train/")
    assert any("1 .txt" in note for note in ours.notes)
    (top / "train/a/0.png").unlink()
    gone = [reading.try_to_read(ours, i) for i in range(13)].count(None)
    assert gone == 1 == len(ours.broken)
    with pytest.raises(UserError, match="no images in gs://bucket/nothing"):
        sources.open_source("folder", "gs://bucket/nothing", "train")
    whole, _ = sources.open_files(str(top))
    assert len(whole) == 12


def test_shards_in_a_bucket_are_read_as_those_on_a_disk(bucket, tmp_path):
    for path, content in photos().items():
        (tmp_path / "set" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / path).write_bytes(content)
    words = [str(tmp_path / "set"), str(tmp_path / "out"), "--shard=5", "--workers=1"]
    prepare.prepare(*words[:2], prepare.make_parser().parse_args(words))
    for file in (tmp_path / "out").rglob("*"):
        if file.is_file() and not file.name.startswith("."):
            inside = file.relative_to(tmp_path / "out").as_posix()
            epath.Path(f"gs://bucket/shards/{inside}").write_bytes(file.read_bytes())
    ours = sources.open_source("set", "gs://bucket/shards", "train")
    theirs = sources.open_source("set", str(tmp_path / "out"), "train")
    assert numbers(ours) == numbers(theirs) == {i: "ab"[i % 2] for i in range(12)}


SILENT = """
import os, socket, sys
from vit_ssl_jax.data import reading, sources, stores
from vit_ssl_jax.errors import UserError
stores.PATIENCE = 2.0
source = sources.open_source("folder", "gs://bucket/photos", "train")
server = socket.create_server(("localhost", 0))  # it listens and never says a word
store = stores.of_scheme("gs")
store._endpoint = f"http://localhost:{server.getsockname()[1]}"
for name, top in (("folder", "gs://bucket/photos"), ("set", "gs://bucket/shards")):
    try:
        sources.open_source(name, top, "train")
    except UserError as error:
        print("open:", error)
try:
    reading.try_to_read(source, 0)
except UserError as error:
    print("read:", error)
print("broken:", len(source.broken))
"""


def test_a_bucket_that_stops_answering_is_one_message_and_no_broken_image(bucket):
    """Within seconds: of `stores.PATIENCE`, which is a minute."""
    (bucket / "photos" / "train").mkdir(parents=True, exist_ok=True)
    epath.Path("gs://bucket/photos/train/0.png").write_bytes(photos(1)["train/a/0.png"])
    done = subprocess.run(
        [sys.executable, "-c", SILENT],
        cwd=runs.ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr[-2000:]
    assert [line.partition(":")[0] for line in lines] == [
        "open",
        "open",
        "read",
        "broken",
    ]
    for line in lines[:3]:
        assert "its store doesn't answer or refuses (FSTimeoutError)" in line
        assert "the same command goes on from the last checkpoint" in line
    assert lines[3] == "broken: 0"


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
