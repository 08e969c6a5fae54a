"""Links of the documentation lead to what is there: files of the repository, headings."""

import re

import pytest

from tests import runs
from tests.docs import pages

ALL = [*pages.paths(), runs.ROOT / "CHANGELOG.md"]
ALL += sorted((runs.ROOT / "docs" / "results").rglob("*.md"))
LINK = re.compile(
    r"\]\((?P<target>[^\s)]+)\)|^\[[^\]\n]+\]: (?P<other>\S+)", re.MULTILINE
)


def prose(path):
    """A page without its code."""
    return re.sub(r"`[^`\n]*`", "", pages.FENCE.sub("", path.read_text()))


def links(text):
    """The targets of a page's links, but for those of other sites."""
    found = [match["target"] or match["other"] for match in LINK.finditer(text)]
    return [target for target in found if not re.match(r"[a-z]+:", target)]


def anchors(path):
    """The anchors of a page's headings, as GitHub and the site make them."""
    text = pages.FENCE.sub("", path.read_text())
    heads = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {anchor(head) for head in heads} | set(re.findall(r'id="([^"]+)"', text))


def anchor(heading):
    """The anchor of a heading."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
    return re.sub(r"[^\w\- ]", "", text.lower()).strip().replace(" ", "-")


@pytest.mark.parametrize("path", ALL, ids=pages.name)
def test_links_lead_somewhere(path):
    for target in links(prose(path)):
        file, _, place = target.partition("#")
        there = path if not file else (path.parent / file).resolve()
        assert there.exists(), target
        assert runs.ROOT in [there, *there.parents], f"{target} leaves the repository"
        if place and there.suffix == ".md":
            assert place in anchors(there), f"{target}: {sorted(anchors(there))}"


def test_how_links_and_anchors_are_read():
    text = "[a](b.md#c) `[no](no.md)` ![p](q.webp) [x](https://x.y)\n[r]: s.md\n"
    assert links(re.sub(r"`[^`\n]*`", "", text)) == ["b.md#c", "q.webp", "s.md"]
    assert anchor("`evals.knn`: a vote, k-NN's") == "evalsknn-a-vote-k-nns"
