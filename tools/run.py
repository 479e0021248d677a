"""Runs notebooks from top to bottom and saves their outputs: without progress bars, warnings and other noise of one run.

    python tools/run.py nbs/02_data/00_media.ipynb nbs/index.ipynb
"""
import argparse, re, subprocess, tempfile
from pathlib import Path
import nbformat
from nbclient import NotebookClient
from notebooks import BIN, ROOT, split

class Client(NotebookClient):
    "A client that leaves out the cells that nbdev leaves out."
    async def async_execute_cell(self, cell, cell_index, **kwargs):
        "Run one cell unless it says `#| eval: false`."
        if cell.cell_type == "code" and split(cell.source)[0].get("eval") == "false":
            return cell
        return await super().async_execute_cell(cell, cell_index, **kwargs)

WIDGET = "application/vnd.jupyter.widget-view+json"
SCRATCH = re.compile(re.escape(tempfile.gettempdir()) + r"/tmp\w{8}/") # what `tempfile` makes: another name each time

def without_noise(output):
    "An output as a page shows it; None of what went to stderr, and of progress bars."
    data = output.get("data")
    if "text" in output: output["text"] = SCRATCH.sub("", output["text"])
    if output.get("name") == "stderr" or "%|" in "".join((data or {}).get("text/plain", "")): return None
    if data is None: return output
    data.pop(WIDGET, None) # no page can show it
    return output if data else None

def run(path):
    "Run one notebook in its own folder and save it; a cell that fails stops it, and nothing is saved."
    notebook = nbformat.read(path, as_version=4)
    client = Client(notebook, timeout=1800, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}})
    client.execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [shown for output in cell.outputs if (shown := without_noise(output))]
    notebook.metadata.pop("widgets", None)
    nbformat.write(notebook, path)

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", type=Path)
    for path in parser.parse_args().paths:
        run(path.resolve())
        subprocess.run([BIN/"nbdev_clean", "--fname", str(path)], cwd=ROOT, check=True)
        print("ran", path)
