"""The notebook in docs/, and the Python on the page about it, as a user runs them: a kernel, a network, a figure."""

from __future__ import annotations

import re

import nbformat
import pytest
from nbclient import NotebookClient

from tests.support.page import blocks, read
from tests.support.running import ROOT


@pytest.mark.filterwarnings("default")  # of Jupyter's own parts
def test_notebook_goes_from_bring_up_to_a_figure():
    """Every cell runs; the last figure is a picture, and the run ends with a clean audit."""
    notebook = nbformat.read(ROOT / "docs" / "notebook.ipynb", as_version=4)

    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(ROOT)}}).execute()

    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert pictures
    assert any("<svg" in output.get("data", {}).get("image/svg+xml", "") for output in outputs)
    shown = outputs[-1]["data"]["text/plain"]
    compared, identical = re.search(r"'compared': (\d+), 'identical': (\d+)", shown).groups()
    assert compared == identical != "0"
    assert shown.endswith("'clean')")


def test_python_of_the_page_runs_as_printed(capsys):
    """It starts a network, and ends it."""
    (example,) = blocks(read("operator.md"), "python")

    exec(compile(example.text, "docs/operator.md", "exec"), {})  # noqa: S102 - our own page

    assert "single_hop" in capsys.readouterr().out
