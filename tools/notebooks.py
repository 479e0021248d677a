"The notebooks as plain data, and where things are: what the other scripts of this folder share."
import ast, json, re, subprocess, sys
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NBS = ROOT/"nbs"
BIN = Path(sys.executable).parent # where nbdev, ruff and mmllm stand
DIRECTIVE = re.compile(r"\s*#\s*\|\s*(.*?)\s*$")

def paths(nbs=NBS):
    "Every notebook below `nbs`, in order of reading."
    found = [p for p in nbs.rglob("*.ipynb") if not any(o[0] in "._" for o in p.relative_to(nbs).parts)]
    return sorted(found, key=lambda p: p.relative_to(nbs).as_posix())

def settings():
    "What `settings.ini` says, with its `%(names)s` filled in."
    parser = ConfigParser(delimiters=["="])
    parser.read(ROOT/"settings.ini", encoding="utf-8")
    return dict(parser["DEFAULT"])

def tracked():
    "The files that git has or would take."
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode: raise RuntimeError(f"git cannot list the files: {done.stderr.strip()}")
    names = sorted(set(filter(None, done.stdout.split("\0"))))
    return [ROOT/name for name in names if (ROOT/name).is_file()]

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

def parsed(cell):
    "The tree of a code cell; an empty one where it holds a magic."
    try: return ast.parse("\n".join(split(source(cell))[1]))
    except SyntaxError: return ast.parse("")

def number(path, nbs=NBS):
    "(1, 4) of `01_weights/04_fetch.ipynb`, (13,) of `13_cli.ipynb`; None of a page without a number."
    found = [re.match(r"(\d+)_", part) for part in Path(path).relative_to(nbs).parts]
    return tuple(int(m.group(1)) for m in found) if all(found) else None

def page_name(here):
    "`weights/fetch` of `01_weights/04_fetch.ipynb`: a path below `nbs` without its numbers."
    return "/".join(re.sub(r"^\d+_", "", part) for part in Path(here).with_suffix("").parts)

def module(path, nbs=NBS):
    "`weights.fetch` of the page `nbs/01_weights/04_fetch.ipynb`."
    return page_name(Path(path).relative_to(nbs)).replace("/", ".")

def where(path, position, cell=None):
    "A place as a person finds it: file, cell, first line of it."
    head = next((o for o in source(cell).splitlines() if o.strip()), "")[:50] if cell else ""
    return f"{path.relative_to(ROOT).as_posix()}, cell {position}" + (f" ({head})" if head else "")
