"""The search over plans, with a plan that needs no compiler."""

import pytest

from tests import runs
from vit_ssl_jax.errors import UserError
from vit_ssl_jax.plan import search, topologies

GIB = 2**30


def pretend(monkeypatch, need, breaks=lambda mesh: False):
    """A slice of 8 devices whose plans take `need(config)` GiB of 16; calls it returns."""
    calls = []

    def plan(config, topology, say):
        mesh = dict(config.mesh)
        calls.append((mesh, config.vit.remat, config.accum))
        if mesh["tensor"] == 4:
            raise UserError("config.mesh.tensor: 4 doesn't divide the heads")
        work = {"none": 3.0, "dots": 3.3, "full": 4.0}[config.vit.remat]
        seconds = work * (1 + 0.01 * config.accum) * (1.02 if mesh["fsdp"] > 1 else 1)
        total = int(need(config) * GIB)
        return dict(
            fits=total <= chip.hbm_bytes,
            argument_bytes=int(8 / mesh["fsdp"] * GIB),
            temp_bytes=total - int(8 / mesh["fsdp"] * GIB),
            total_bytes=total,
            cycles_per_image=seconds * 1e6,
            peak_fraction=0.5 / seconds,
            seconds_per_step=seconds,
            images_per_second=config.batch_size / seconds,
            compile_seconds=1.0,
            communication=dict(exposed_share=0.01),
            violations=["float32 matmul"] * breaks(mesh),
        )

    chip = topologies.CHIPS["v5e"]
    monkeypatch.setattr(search, "plan", plan)
    monkeypatch.setattr(topologies, "get_devices", lambda name, say: ([0] * 8, chip))
    return calls


def activations(config):
    """GiB: the state over fsdp, activations by remat and micro-batch."""
    each = {"none": 40, "dots": 24, "full": 6}[config.vit.remat]
    return 8 / config.mesh.fsdp + each / config.accum


def test_what_a_row_makes_unlikely_comes_last(monkeypatch):
    """Once pure data parallelism fits, the other meshes come before its own rest."""
    calls = pretend(monkeypatch, lambda config: 8 + 1 / config.accum)
    search.search(runs.small(), "v5e:2x4", 512, 60.0, quiet)
    meshes = [(mesh["data"], mesh["fsdp"], mesh["tensor"]) for mesh, _, _ in calls]
    assert calls[0][1:] == ("none", 1)
    assert len(set(meshes[:8])) == 8  # each with its own likely best
    assert all(call[1:] == ("none", 1) for call in calls[:8])


def test_micro_batches_that_stay_too_large_come_last(monkeypatch):
    calls = pretend(monkeypatch, activations)
    search.search(runs.small(), "v5e:2x4", 512, 60.0, quiet)
    first = [(r, a) for mesh, r, a in calls if mesh["data"] == 8]
    assert first[:2] == [("none", 1), ("none", 8)]  # 8 + 40 / 4 is above 15.75 GiB


def quiet(text):
    assert text


def test_candidates_fill_the_slice_and_divide_the_batch():
    found = search.candidates(8, 64)
    shapes = {(c["data"], c["fsdp"], c["tensor"]) for c in found}
    assert {(8, 1, 1), (1, 8, 1), (2, 4, 1), (4, 1, 2), (1, 2, 4)} <= shapes
    for c in found:
        assert c["data"] * c["fsdp"] * c["tensor"] == 8
        assert 64 % (c["data"] * c["fsdp"] * c["accum"]) == 0
    first = found[0]
    assert (first["data"], first["remat"], first["accum"]) == (8, "none", 1)
    assert len(found) == len({tuple(c.values()) for c in found})


def test_the_fastest_that_fits_wins(monkeypatch):
    pretend(monkeypatch, activations)
    config = runs.small()
    found = search.search(config, "v5e:2x4", 512, 60.0, quiet)
    fitting = [row for row in found["rows"] if row["fits"]]
    fastest = min(row["seconds_per_step"] for row in fitting)
    assert found["best"]["seconds_per_step"] == fastest
    assert found["fits"] and found["left"] == 0
    assert found["best"]["remat"] == "none" and found["best"]["accum"] == 4
    assert found["best"]["fsdp"] > 1  # 8 + 40 / 4 is above 16, accum 8 is slower
    text = search.describe(found)
    assert "--config.accum=4 --config.vit.remat=none --config.mesh.data=" in text
    assert config.accum == 1  # the caller's config is left alone


def test_what_needs_more_than_one_that_did_not_fit_is_not_compiled(monkeypatch):
    calls = pretend(monkeypatch, activations)
    search.search(runs.small(), "v5e:2x4", 512, 60.0, quiet)
    seen = [(mesh["data"], mesh["fsdp"], r, a) for mesh, r, a in calls]
    assert (8, 1, "none", 1) in seen
    dots = seen.index((8, 1, "dots", 2))  # 8 + 24 / 2: doesn't fit either
    assert (8, 1, "dots", 1) not in seen[dots:]


def test_nothing_fits(monkeypatch):
    pretend(monkeypatch, lambda config: 100 - config.accum)
    found = search.search(runs.small(), "v5e:2x4", 512, 60.0, quiet)
    assert not found["fits"] and found["best"] is None and found["overrides"] == []
    assert found["would_fit"] == dict(
        least_bytes=36 * GIB, batch_size=0, times=3, chips=["v5p", "tpu7x"]
    )
    text = search.describe(found)
    assert "nothing fits: the least was 36.00 of 15.75 GiB" in text
    assert "3 times as many chips; as many chips of v5p, tpu7x" in text


def test_a_batch_that_would_fit_is_told(monkeypatch):
    """Temporaries of 20 GiB beside 8 of state, of which 7.75 have room: 198 of 512."""
    pretend(monkeypatch, lambda config: 28 if config.mesh.fsdp == 1 else 99)
    found = search.search(runs.small(), "v5e:2x4", 512, 60.0, quiet)
    assert (found["would_fit"]["batch_size"], found["would_fit"]["times"]) == (192, 3)
    assert "--global_batch=192; 3 times" in search.describe(found)


def test_what_is_refused_is_told(monkeypatch):
    pretend(monkeypatch, activations)
    found = search.search(runs.small(), "v5e:2x4", 512, 60.0, quiet)
    assert {row["tensor"] for row in found["refused"]} == {4}
    assert len({str(row) for row in found["refused"] + found["rows"]}) == len(
        found["refused"] + found["rows"]
    )
    text = search.describe(found)
    assert (
        f"refused, {len(found['refused'])} of the candidates: config.mesh.tens" in text
    )


def test_a_plan_that_breaks_a_contract_wins_only_alone(monkeypatch):
    pretend(monkeypatch, lambda config: 1.0, breaks=lambda mesh: mesh["fsdp"] == 1)
    found = search.search(runs.small(), "v5e:2x4", 512, 60.0, quiet)
    assert found["best"]["fsdp"] > 1 and found["best"]["violations"] == []
    assert "yes, BREAKS CONTRACTS" in search.describe(found)
    pretend(monkeypatch, lambda config: 1.0, breaks=lambda mesh: True)
    found = search.search(runs.small(), "v5e:2x4", 512, 60.0, quiet)
    assert "fastest by estimate, though it breaks contracts: " in search.describe(found)


def test_the_budget_ends_it_after_one(monkeypatch):
    calls = pretend(monkeypatch, activations)
    found = search.search(runs.small(), "v5e:2x4", 512, 0.0, quiet)
    assert len(calls) == len(found["rows"]) == 1 and found["left"] > 10
    assert "weren't compiled" in search.describe(found)


def test_errors(monkeypatch):
    pretend(monkeypatch, activations)
    with pytest.raises(UserError, match="give --topology"):
        search.search(runs.small(), "", 512, 1.0, quiet)
    with pytest.raises(UserError, match="--global_batch: 513"):
        search.search(runs.small(), "v5e:2x4", 513, 1.0, quiet)
