"""The pages of the methods: one each, with the recipes' values and pictures that are there."""

import re

import pytest

from tests import published, runs
from vit_ssl_jax import methods, recipes

FOLDER = runs.ROOT / "docs" / "methods"
SECTIONS = (
    "The idea",
    "The math",
    "In the code",
    "Recipe",
    "Run it",
    "What a healthy run looks like",
    "What goes wrong",
    "Paper and code",
    "Results",
)


def section(name, title):
    """The text under a heading of a method's page."""
    text = (FOLDER / f"{name}.md").read_text()
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)[
        1
    ]


def table(text):
    """Rows of the first table in a text, as lists of cells."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in rows if not set("".join(row)) <= set("-")]


@pytest.mark.parametrize("name", methods.names())
def test_every_method_has_a_page_of_the_same_sections(name):
    text = (FOLDER / f"{name}.md").read_text()
    assert tuple(re.findall(r"^## (.*)$", text, re.MULTILINE)) == SECTIONS
    assert f"vit_ssl_jax/methods/{name}.py" in section(name, "In the code")
    assert f"]({name}.md)" in (FOLDER / "index.md").read_text()


@pytest.mark.parametrize("name", methods.names())
def test_the_table_of_a_recipe_has_the_values_of_its_config(name):
    (_, *names), *rows = table(section(name, "Recipe"))
    configs = [load(recipe) for recipe in names]
    for key, *cells in rows:
        values = [config[key.strip("`")] for config in configs]
        assert cells == [published.show(value) for value in values], key
    assert len(rows) > 10 and {"B", "L", "H"} <= {
        config["vit.variant"].partition("/")[0] for config in configs
    }


def test_a_wrong_value_in_a_table_is_noticed():
    """So that the comparison above can fail."""
    text = section("mae", "Recipe").replace("| 0.75 |", "| 0.6 |", 1)
    (_, first, *_), *rows = table(text)
    (ratio,) = (row for row in rows if row[0] == "`method.mask_ratio`")
    assert ratio[1] != published.show(load(first)["method.mask_ratio"])


def load(recipe):
    """A recipe by the name that a table gives it: `{dotted key: value}`."""
    file, colon, argument = recipe.partition(":")
    return recipes.flatten(recipes.load(f"{file}.py{colon}{argument}").to_dict())


def anchors(page):
    """What headings of a page are linked by: lower case, hyphens, no punctuation."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", x.lower()).replace(" ", "-") for x in headings}


@pytest.mark.parametrize("page", sorted(FOLDER.glob("*.md")), ids=lambda p: p.stem)
def test_links_and_pictures_are_there_and_small(page):
    for target, anchor in re.findall(r"\]\(([^)#:]*)#?([^):]*)\)", page.read_text()):
        file = page.parent / target if target else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), f"{target}#{anchor}"
    for picture in re.findall(r"!\[.+?\]\((.+?)\)", page.read_text()):
        assert (page.parent / picture).stat().st_size < 60_000, picture


@pytest.mark.parametrize("page", sorted(FOLDER.glob("*.md")), ids=lambda p: p.stem)
def test_commands_name_recipes_that_load_and_keys_that_they_have(page):
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL)
    for command in "".join(blocks).splitlines():
        recipe = re.search(r"--config=configs/(\S+)", command)
        config = recipes.flatten(recipes.load(recipe[1]).to_dict()) if recipe else {}
        keys = re.findall(r"--config\.([\w.]+)=", command)
        assert set(keys) <= set(config), command
