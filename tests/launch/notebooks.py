"""What the tests of notebooks share: their cells, and how one is run."""

import nbformat

from tests import runs


def read(name):
    """A notebook of launch/ as it is stored."""
    return nbformat.read(runs.ROOT / "launch" / name, as_version=4)


def tags(cell):
    """What a cell is marked with."""
    return set(cell.metadata.get("tags", []))


def code(notebook):
    """Cells of code."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def check_clean(notebook, marks):
    """It is valid, has no outputs, and its cells' marks are those."""
    nbformat.validate(notebook)
    for cell in code(notebook):
        assert not cell.outputs and cell.execution_count is None
    assert set().union(*map(tags, notebook.cells)) == marks


def execute(notebook, folder, without, values):
    """Runs it in a folder: what its cells printed, and the outputs.

    without: marks of cells that are left out. values: what the cell of parameters is
    followed by, by name.
    """
    import nbclient

    text = "\n".join(f"{name} = {value!r}" for name, value in values.items())
    cells = []
    for cell in notebook.cells:
        if not tags(cell) & without:
            cells.append(cell)
        if "parameters" in tags(cell):
            cells.append(nbformat.v4.new_code_cell(text))
    shown = nbformat.v4.new_notebook(cells=cells)
    resources = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(shown, timeout=300, resources=resources).execute()
    outputs = [output for cell in code(shown) for output in cell.outputs]
    return "".join(output.get("text", "") for output in outputs), outputs
