"""Which processes make up a run: flags, SLURM's variables, a TPU slice's hosts."""

import http.server
import threading

import pytest

from vit_ssl_jax.distributed import clusters
from vit_ssl_jax.errors import UserError


def test_without_flags_and_cluster_a_process_is_a_run_by_itself(monkeypatch):
    monkeypatch.setattr(clusters.os, "environ", {})
    assert clusters.find_group() is None


def test_flags_describe_the_group():
    group = clusters.find_group("10.0.0.2:8476", "4", "3")
    assert group == clusters.Group("10.0.0.2:8476", 4, 3)
    assert clusters.find_group("[fd00::2]:1", "2", "0").coordinator == "[fd00::2]:1"


def test_one_process_by_flags_is_a_run_by_itself():
    assert clusters.find_group("localhost:1", "1", "0") is None


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("a:1", "", ""), "--num_processes, --process_id is missing"),
        (("", "2", "0"), "--coordinator is missing"),
        (("a", "2", "0"), "give HOST:PORT"),
        (("a:0", "2", "0"), "give HOST:PORT"),
        (("a:99999", "2", "0"), "give HOST:PORT"),
        (("http://a:1", "2", "0"), "give HOST:PORT"),
        (("fd00::2:1", "2", "0"), "give HOST:PORT"),
        (("a:1", "0", "0"), "give numbers"),
        (("a:1", "two", "0"), "give numbers"),
        (("a:1", "2", "-1"), "give numbers"),
        (("a:1", "2", "2"), "from 0 to 1"),
    ],
)
def test_flags_that_make_no_sense_are_refused(flags, words):
    with pytest.raises(UserError, match=words):
        clusters.find_group(*flags)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a", ["a"]),
        ("a,b-2", ["a", "b-2"]),
        ("node[1-3]", ["node1", "node2", "node3"]),
        ("n[08-10,7]-ib,login", ["n08-ib", "n09-ib", "n10-ib", "n7-ib", "login"]),
        ("r[1-2]n[3,5]", ["r1n3", "r1n5", "r2n3", "r2n5"]),
    ],
)
def test_slurms_short_form_of_names(text, names):
    assert clusters.expand(text) == names


SLURM = {
    "SLURM_STEP_NUM_TASKS": "16",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
    "SLURM_PROCID": "11",
    "SLURM_LOCALID": "3",
    "SLURM_JOB_ID": "4099",
}


def test_a_task_of_srun_takes_the_gpu_of_its_number():
    group = clusters.by_slurm(SLURM)
    assert (group.coordinator, group.count, group.index) == ("gpu07:61443", 16, 11)
    assert group.hosts == ("gpu07", "gpu08")
    assert group.devices == (3,)


@pytest.mark.parametrize(
    ("variables", "devices"),
    [
        ({"CUDA_VISIBLE_DEVICES": "3"}, None),
        ({"CUDA_VISIBLE_DEVICES": "0,1"}, None),  # two GPUs a task, its own
        ({"CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7"}, (3,)),
        ({"CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7", "SLURM_GPUS_PER_TASK": "8"}, None),
    ],
)
def test_a_task_that_sees_its_own_gpus_takes_them_all(variables, devices):
    assert clusters.by_slurm({**SLURM, **variables}).devices == devices


def test_tasks_that_srun_did_not_start_are_refused():
    started_otherwise = {k: v for k, v in SLURM.items() if k != "SLURM_STEP_NODELIST"}
    with pytest.raises(UserError, match="one of 16 tasks, but not SLURM_STEP_NODELIST"):
        clusters.by_slurm(started_otherwise)


def test_one_task_a_node_takes_all_its_gpus():
    assert clusters.by_slurm({**SLURM, "SLURM_STEP_NUM_TASKS": "2"}).devices is None


def test_a_batch_script_and_a_single_task_are_runs_by_themselves():
    alone = {k: v for k, v in SLURM.items() if "STEP" not in k}
    assert clusters.by_slurm(alone | {"SLURM_NTASKS": "16"}) is None
    assert clusters.by_slurm({**SLURM, "SLURM_STEP_NUM_TASKS": "1"}) is None


@pytest.fixture
def chips(monkeypatch):
    """A host with TPU chips, by what lies in /dev."""
    monkeypatch.setattr(
        clusters.glob, "glob", lambda path: ["/dev/accel0"] * ("accel" in path)
    )


@pytest.fixture
def cloud():
    """A metadata server: `(attributes that it has, variables that lead to it)`."""
    attributes = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            key = self.path.rsplit("/", 1)[1]
            found = key in attributes and self.headers["Metadata-Flavor"] == "Google"
            self.send_response(200 if found else 404)
            self.end_headers()
            self.wfile.write(attributes.get(key, "").encode())

        def log_message(self, *args):
            pass

    with http.server.HTTPServer(("localhost", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield attributes, {"GCE_METADATA_IP": f"localhost:{server.server_port}"}
        server.shutdown()


def test_a_host_without_chips_asks_nobody(cloud):
    attributes, env = cloud
    attributes["worker-network-endpoints"] = "a,b"
    assert clusters.by_tpu(env) is None


@pytest.mark.parametrize("workers", ["10.0.0.1,10.0.0.2", "a:1:10.0.0.1,b:2:10.0.0.2"])
def test_hosts_of_a_tpu_slice(chips, cloud, workers):
    attributes, env = cloud
    attributes["worker-network-endpoints"] = workers
    attributes["agent-worker-number"] = "1"
    group = clusters.by_tpu(env)
    assert group == clusters.Group("10.0.0.1:8476", 2, 1, ("10.0.0.1", "10.0.0.2"))


def test_hosts_of_several_slices(chips, cloud):
    attributes, env = cloud
    attributes["worker-network-endpoints"] = "10.0.1.1,10.0.1.2"
    attributes["agent-worker-number"] = "1"
    attributes["tpu-env"] = (
        "ZONE: 'z'\nMEGASCALE_NUM_SLICES: '3'\nMEGASCALE_SLICE_ID: '2'\n"
        "MEGASCALE_COORDINATOR_ADDRESS: '10.0.0.1:8080'\n"
    )
    group = clusters.by_tpu(env)
    assert (group.coordinator, group.count, group.index) == ("10.0.0.1:8476", 6, 5)


def test_a_single_tpu_host_is_a_run_by_itself(chips, cloud):
    attributes, env = cloud
    attributes["worker-network-endpoints"] = "10.0.0.1"
    attributes["agent-worker-number"] = "0"
    assert clusters.by_tpu(env) is None
    attributes.clear()
    assert clusters.by_tpu(env) is None


def test_pods_of_gke_are_told_by_variables(chips):
    env = {"TPU_WORKER_HOSTNAMES": "w-0.s,w-1.s,w-2.s", "TPU_WORKER_ID": "2"}
    group = clusters.by_tpu(env)
    assert (group.coordinator, group.count, group.index) == ("w-0.s:8476", 3, 2)
