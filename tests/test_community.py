"""CITATION.cff and the forms of .github: well formed, and true of the package."""

import pytest
import yaml

import vit_ssl_jax
from tests import runs

FORMS = sorted((runs.ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
ASKED = ("printed", "config.json", "versions.json", "python -m vit_ssl_jax.doctor")


def test_the_citation_is_of_this_version_and_license():
    cite = yaml.safe_load((runs.ROOT / "CITATION.cff").read_text())
    assert cite["cff-version"] == "1.2.0"
    assert cite["version"] == vit_ssl_jax.__version__
    assert f'license="{cite["license"]}"' in (runs.ROOT / "setup.py").read_text()
    assert {"message", "title", "authors"} <= set(cite)


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_a_form_has_what_one_needs(path):
    form = yaml.safe_load(path.read_text())
    assert form["name"] and form["description"]
    ids = [part["id"] for part in form["body"] if part["type"] != "markdown"]
    assert len(ids) == len(set(ids))
    for part in form["body"]:
        assert part["type"] in {"markdown", "textarea", "input", "checkboxes"}
        assert "value" in part["attributes"] or part["attributes"]["label"]


def test_a_bug_and_a_change_come_with_what_is_needed_to_answer():
    bug = (runs.ROOT / ".github" / "ISSUE_TEMPLATE" / "bug.yml").read_text()
    change = (runs.ROOT / ".github" / "pull_request_template.md").read_text()
    assert {path.stem for path in FORMS} == {"bug", "question", "feature"}
    for text in (bug, change):
        assert not [words for words in ASKED if words not in text]
