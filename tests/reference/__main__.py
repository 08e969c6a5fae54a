"""Writes docs/reference/: `python -m tests.reference`."""

from tests import runs
from tests.reference import api, commands, metrics, settings

PAGES = {
    "config.md": settings.page,
    "metrics.md": metrics.page,
    "commands.md": commands.page,
    "api.md": api.page,
}


def main():
    """Writes all pages."""
    folder = runs.ROOT / "docs" / "reference"
    folder.mkdir(exist_ok=True)
    for name, page in PAGES.items():
        (folder / name).write_text(page())


if __name__ == "__main__":
    main()
