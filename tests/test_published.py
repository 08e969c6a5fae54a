"""The recipes are the published ones, value by value, or say why not."""

import dataclasses
import io
from contextlib import redirect_stdout

import pytest

from tests import published, runs
from tests.published import __main__ as document
from tests.published import families

# Recipes that no publication has: said so in their own text.
OURS = {
    *("dino_vitl.py", "dino_vith.py"),  # the paper stops at ViT-B
    "imagenette.py",  # one for all objectives
    *("own.py", "quickstart.py", "pretext_cpu.py", "relvit_cpu.py", "maskfeat_vith.py"),
    *(
        f"{name}_vit{size}.py"
        for size in "blh"
        for name in ("rotation", "colorization")
    ),
    *(
        f"{name}_vit{size}.py"
        for size in "blh"
        for name in ("jigsaw", "context", "relvit")
    ),
    # The same as transfer_vitb.py but for its size.
    *("transfer_vitl.py", "transfer_vith.py"),
}


@pytest.mark.parametrize("family", families.ALL, ids=lambda f: f.title)
def test_a_value_is_the_published_one_or_says_why_not(family):
    unexplained = [
        f"{row.key} of {label}: {ours!r}, published {theirs!r}"
        for row, label, ours, theirs in published.moved(family)
        if not row.why
    ]
    assert not unexplained
    explained = {row.key for row, *_ in published.moved(family)}
    needless = [row.key for row in family.rows if row.why and row.key not in explained]
    assert not needless, "a reason where nothing differs"


@pytest.mark.parametrize("family", families.ALL, ids=lambda f: f.title)
def test_every_value_with_a_meaning_has_a_row(family):
    keys = [row.key for row in family.rows]
    assert len(keys) == len(set(keys))
    assert not (family.whole and published.uncovered(family))


def test_every_recipe_of_a_publication_is_in_a_table():
    shown = {file for family in families.ALL for file, _ in family.files.values()}
    assert set(runs.RECIPES) == shown & set(runs.RECIPES) | OURS
    assert not shown & OURS


def test_a_value_that_moves_away_is_noticed():
    """So that an empty list means that nothing moved."""
    family = families.ALL[0]
    rows = tuple(
        dataclasses.replace(row, released=0.6)
        if row.key == "method.mask_ratio"
        else row
        for row in family.rows
        if row.key != "optim.wd"
    )
    changed = dataclasses.replace(family, rows=rows)
    moved = {(row.key, label) for row, label, *_ in published.moved(changed)}
    assert {("method.mask_ratio", size) for size in family.files} <= moved
    assert {key for _, key in published.uncovered(changed)} == {"optim.wd"}


def test_the_document_is_that_of_the_configs():
    out = io.StringIO()
    with redirect_stdout(out):
        document.main()
    written = (runs.ROOT / "docs" / "recipes.md").read_text()
    assert written == out.getvalue(), "python -m tests.published > docs/recipes.md"
