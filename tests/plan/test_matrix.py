"""The matrix of recipes and slices: what is there is kept, what fails is a result."""

import json
import sys

import pytest

from vit_ssl_jax.errors import UserError
from vit_ssl_jax.plan import matrix

GIB = 2**30


def test_eleven_methods_three_sizes_seven_topologies():
    assert len(matrix.cells()) == 11 * 3 * 7
    sizes = [recipe[-1] for recipe, _ in matrix.cells()]
    assert sizes == ["b"] * 77 + ["l"] * 77 + ["h"] * 77
    assert ("ijepa_vith", "v5e:8x8") in matrix.cells()
    assert matrix.cells(["mae_vitb"]) == [("mae_vitb", s) for s in matrix.SLICES]
    assert matrix.cells(["mae_vitb", "v6e"]) == [("mae_vitb", "v6e:4x4")]
    assert len(matrix.cells(["v5e"])) == 33 * 2
    with pytest.raises(UserError, match="--only: resnet"):
        matrix.cells(["resnet"])


def pretend(monkeypatch, fits_with):
    """Plans that fit from so many changes on; the calls made."""
    calls = []

    def plan_apart(recipe, topology, changes):
        calls.append((recipe, topology, changes))
        found = dict(fits=len(changes) >= fits_with, total_bytes=GIB, hbm_bytes=2 * GIB)
        return found | dict(peak_fraction=0.5, images_per_second=1234.5)

    monkeypatch.setattr(matrix, "plan_apart", plan_apart)
    return calls


def test_cells_are_kept_and_the_table_has_them(monkeypatch, tmp_path):
    calls = pretend(monkeypatch, 0)
    only = ["mae_vitb", "v5e:4x4"]
    matrix.fill(tmp_path, 60.0, only, say=str)
    matrix.fill(tmp_path, 60.0, ["mae_vitb", "v5e"], say=str)
    assert [call[1] for call in calls] == ["v5e:4x4", "v5e:8x8"]  # none twice
    row = next(
        line
        for line in (tmp_path / "table.md").read_text().splitlines()
        if line.startswith("| mae_vitb |")
    )
    assert row.count("1.0 of 2.0 GiB, 0.50, 1234/s") == 2
    assert not list(tmp_path.glob("*.part"))


def test_the_ladder_ends_where_it_fits(monkeypatch):
    calls = pretend(monkeypatch, 3)
    found = matrix.measure("mae_vith", "v5e:4x4")
    assert len(calls) == 3 and found["fits"]
    assert found["overrides"][-1] == "--config.vit.remat=full"
    assert matrix.cell(found).endswith("1234/s FR")
    pretend(monkeypatch, 99)
    found = matrix.measure("mae_vith", "v5e:4x4")
    assert len(found["tried"]) == len(matrix.LADDER)
    assert matrix.cell(found).startswith("no: 1.0 of 2.0 GiB")


def test_no_budget_begins_no_cell(monkeypatch, tmp_path):
    calls = pretend(monkeypatch, 0)
    matrix.fill(tmp_path, 0.0, say=str)
    assert calls == [] and (tmp_path / "table.md").exists()


def test_a_process_that_was_killed_is_tried_again(monkeypatch, tmp_path):
    killed = tmp_path / "killed"
    killed.write_text("#!/bin/sh\nkill -KILL $$\n")
    killed.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(killed))
    heard = []
    matrix.fill(tmp_path, 60.0, ["mae_vitb", "v5e:4x4"], say=heard.append)
    assert "killed, for want of memory perhaps; not kept" in heard[0]
    assert not list(tmp_path.glob("*.json"))


def test_a_process_that_dies_is_a_cell(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    found = matrix.measure("mae_vitb", "v5e:4x4")
    assert not found["fits"] and found["error"] == "status 1"
    assert json.dumps(found) and matrix.cell(found) == "error: status 1"
    assert len(found["tried"]) == 1  # less memory mends no crash
    assert set(matrix.KEYS) <= set(found) and found["cycles_per_image"] is None
