"""Makes README.md from nbs/index.ipynb, and README_files/ from its pictures. Needs no Quarto.

Directives mean what they mean on the site: hide, export and `include: false` drop a cell, `echo: false` its code,
`output: false` its result. Links relative to nbs/ become links relative to the project.
"""
import re, shutil
from pathlib import Path
import nbformat
from nbconvert import MarkdownExporter
from traitlets.config import Config
from notebooks import NBS, ROOT, split

FILES = "README_files"
DROPPED = {"hide", "export", "exporti", "exports", "default_exp"}
PRIORITY = ["text/markdown", "text/html", "image/svg+xml", "image/png", "image/jpeg", "text/plain"]
LINK = re.compile(r"""(\]\(|(?:src|href)=["'])(?![a-z]+:|[#/])(\.\./|\./)?([^)"'#\s]+)""")

def shown(cell):
    "`cell` as a reader sees it, or None."
    if cell.cell_type == "raw": return None
    if cell.cell_type == "markdown": return cell
    directives, code = split(cell.source)
    if DROPPED & directives.keys() or directives.get("include") == "false": return None
    cell.source = "" if directives.get("echo") == "false" else "\n".join(code).strip("\n")
    if directives.get("output") == "false": cell.outputs = []
    cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
    return cell if cell.source or cell.outputs else None

def from_root(text, nbs=NBS):
    "Links to files beside the notebook, as the project's root sees them."
    def moved(m):
        start, up, target = m.group(1), m.group(2) or "", m.group(3)
        if up == "../": return start + target
        return f"{start}nbs/{target}" if (nbs/target).exists() else m.group(0)
    return LINK.sub(moved, text)

def exporter():
    config = Config()
    config.NbConvertBase.display_data_priority = PRIORITY
    return MarkdownExporter(config=config)

def render(path=NBS/"index.ipynb"):
    "Every file that the notebook at `path` becomes: {path below the root: bytes}."
    notebook = nbformat.read(path, as_version=4)
    cells = [shown(c) for c in notebook.cells]
    for c in cells:
        if c is not None and c.cell_type == "markdown": c.source = from_root(c.source, path.parent)
    notebook.cells = [c for c in cells if c is not None]
    notebook.metadata.language_info = {"name": "python"}
    text, resources = exporter().from_notebook_node(notebook, resources={"unique_key": "figure", "output_files_dir": FILES})
    text = re.sub(r"\x1b\[[0-9;]*m", "", text).replace("```python\n\n```\n", "")
    text = re.sub(r"[ \t]+$", "", re.sub(r"<style[^>]*>.*?</style>\s*", "", text, flags=re.S), flags=re.M)
    text = re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"
    return {"README.md": text.encode(), **{Path(k).as_posix(): v for k, v in resources.get("outputs", {}).items()}}

def write(files, root=ROOT):
    "Put `files` below `root`, in place of what was there."
    shutil.rmtree(root/FILES, ignore_errors=True)
    for name, content in files.items():
        (root/name).parent.mkdir(exist_ok=True)
        (root/name).write_bytes(content)

if __name__ == "__main__":
    files = render()
    write(files)
    print("wrote " + ", ".join(files))
