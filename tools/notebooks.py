"The notebooks as plain data: what the other scripts of this folder share."
import json, re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT/"nbs"
DIRECTIVE = re.compile(r"\s*#\s*\|\s*(.*?)\s*$")

def paths(nbs=NBS):
    "Every notebook below `nbs`, in order of reading."
    found = [p for p in nbs.rglob("*.ipynb") if not any(o[0] in "._" for o in p.relative_to(nbs).parts)]
    return sorted(found, key=lambda p: p.relative_to(nbs).as_posix())

def load(path): return json.loads(path.read_text(encoding="utf-8"))

def source(cell): return "".join(cell["source"])

def code_cells(notebook):
    "(position from 1, cell) of every code cell that is not empty."
    return [(i, c) for i, c in enumerate(notebook["cells"], 1) if c["cell_type"] == "code" and source(c).strip()]

def split(text):
    "The directives that open a cell, as {name: value}, and the lines after them; the way nbdev reads them."
    lines = text.splitlines()
    start = next((i for i, o in enumerate(lines) if o.strip() and not DIRECTIVE.match(o) and not re.match(r"\s*%%\w", o)), len(lines))
    words = [re.split(r"[:\s]+", DIRECTIVE.match(o).group(1), maxsplit=1) for o in lines[:start] if DIRECTIVE.match(o)]
    return {w[0]: w[1] if len(w) > 1 else "" for w in words}, lines[start:]

def number(path, nbs=NBS):
    "(1, 4) of `01_weights/04_fetch.ipynb`, (13,) of `13_cli.ipynb`; None of a page without a number."
    found = [re.match(r"(\d+)_", part) for part in Path(path).relative_to(nbs).parts]
    return tuple(int(m.group(1)) for m in found) if all(found) else None

def module(path, nbs=NBS):
    "`weights.fetch` of `01_weights/04_fetch.ipynb`."
    return ".".join(re.sub(r"^\d+_", "", part) for part in Path(path).relative_to(nbs).with_suffix("").parts)

def where(path, position, cell=None):
    "A place as a person finds it: file, cell, first line of it."
    head = next((o for o in source(cell).splitlines() if o.strip()), "")[:50] if cell else ""
    return f"{path.relative_to(ROOT).as_posix()}, cell {position}" + (f" ({head})" if head else "")
