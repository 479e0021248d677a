"""What can be checked without running a notebook. Each check yields one sentence per fault: where, what, what to do."""
import ast, filecmp, functools, io, os, re, shutil, subprocess, tempfile, tokenize
from pathlib import Path
import badges, export, readme, style
from notebooks import (
    BIN, DIRECTIVE, NBS, ROOT, code_cells, load, module, number, parsed, paths, settings, source, split, tracked, where,
)

PACKAGE = ROOT/"mmllm"

def scratch():
    "A temporary copy of what nbdev works on; `.cleanup()` removes it."
    folder = tempfile.TemporaryDirectory(prefix="mmllm-check-")
    shutil.copy(ROOT/"settings.ini", folder.name)
    shutil.copytree(NBS, Path(folder.name)/"nbs", ignore=shutil.ignore_patterns(".*", "_*"))
    return folder

def nbdev(command, folder):
    "Run an nbdev command in `folder`; raises with what it said when it fails."
    env = {k: v for k, v in os.environ.items() if k != "IN_TEST"}
    done = subprocess.run([BIN/command], cwd=folder, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode or "Failed to clean" in done.stdout: raise RuntimeError(f"{command} failed: {done.stdout[-2000:]}")

# --- notebooks

def outputs_are_clean():
    "Notebooks are saved as nbdev_clean leaves them, so that a run changes what it computes and nothing else."
    with scratch() as folder:
        nbdev("nbdev_clean", folder)
        for p in paths():
            if p.read_bytes() != (Path(folder)/p.relative_to(ROOT)).read_bytes():
                yield f"{p.relative_to(ROOT)} holds metadata or counters that change with every run: run nbdev_clean"

def notebooks_are_small():
    "A notebook stays under 1 MB, so that a clone stays quick and GitHub shows the page."
    for p in paths():
        size = p.stat().st_size
        if size >= 1_000_000: yield f"{p.relative_to(ROOT)} has {size/1e6:.1f} MB: make its pictures smaller, it must stay under 1 MB"

def must_run(cell):
    "Whether a run leaves a mark in this cell for sure: a plain `print` at its top level."
    directives, _ = split(source(cell))
    if directives.get("eval") == "false" or directives.get("output") == "false": return False
    calls = [o.value for o in parsed(cell).body if isinstance(o, ast.Expr) and isinstance(o.value, ast.Call)]
    return any(getattr(o.func, "id", "") == "print" for o in calls)

def cells_have_run():
    "A notebook was run before it was saved: what prints has an output."
    for p in paths():
        cells = code_cells(load(p))
        if cells and not any(c["outputs"] for _, c in cells):
            yield f"{p.relative_to(ROOT)} has no outputs at all: run it, save it and run nbdev_clean"
        else:
            for i, c in cells:
                if must_run(c) and not c["outputs"]: yield f"{where(p, i, c)} prints but has no output: run the notebook and save it"

def no_error_is_saved():
    "No page shows a stack trace."
    for p in paths():
        for i, c in code_cells(load(p)):
            for o in c["outputs"]:
                if o["output_type"] == "error": yield f"{where(p, i, c)} ends with {o['ename']}: mend it and run the notebook again"

KNOWN = set("""default_exp export exporti exports hide hide_line eval echo output include exec_doc filter_stream warning error
    code-fold code-summary code-line-numbers column label fig-cap fig-alt fig-width fig-height fig-align tbl-cap layout-ncol
    layout-nrow layout classes""".split())

def directives_are_read():
    "nbdev knows every directive and finds it: one that it misses drops a cell without a word."
    known = KNOWN | set(settings()["tst_flags"].split())
    for p in paths():
        for i, c in code_cells(load(p)):
            directives, code = split(source(c))
            for name in directives.keys() - known:
                yield f"{where(p, i, c)}: no directive is called {name!r}: correct it, or add it to KNOWN in tools/checks.py"
            for line in code:
                if DIRECTIVE.match(line) or re.match(r"#\s*(export|exporti|exports|hide|default_exp)\b[^.,]*$", line):
                    yield f"{where(p, i, c)}: nbdev does not read {line.strip()!r}: directives start with #| and open the cell"

def notebooks_are_named_after_modules():
    "A numbered page exports the module that is called as it is; a page without a number exports none."
    for p in paths():
        names = [d["default_exp"] for _, c in code_cells(load(p)) for d in [split(source(c))[0]] if "default_exp" in d]
        wanted = [module(p)] if number(p) is not None else []
        if names != wanted: yield f"{p.relative_to(ROOT)} exports {names or 'nothing'} and should export {wanted or 'nothing'}: correct its default_exp"

def badges_are_there():
    "Every notebook has its Colab badge and the cell that installs mmllm there."
    for p in paths():
        notebook = load(p)
        if badges.with_badge(notebook, p) != notebook: yield f"{p.relative_to(ROOT)} lacks its Colab badge: run python tools/badges.py"

def sidebar_lists_every_page():
    "The site's table of contents has every page, and no page that is gone."
    text = (NBS/"sidebar.yml").read_text(encoding="utf-8")
    listed, there = re.findall(r"[\w/-]+\.ipynb", text), [p.relative_to(NBS).as_posix() for p in paths()]
    for o in sorted(set(there) - set(listed)): yield f"nbs/sidebar.yml does not list {o}: add it where a reader should meet it"
    for o in sorted(set(listed) - set(there)): yield f"nbs/sidebar.yml lists {o}, which does not exist: remove the line"

LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
NAMED = re.compile(r"`(\d\d_\w+/\d\d_\w+|\d\d_\w+)`") # a page, as `02_data/00_media` or `00_media`

def links_lead_somewhere():
    "What the prose of a page links to, and each page that it names, is there."
    for p in paths():
        for cell in load(p)["cells"]:
            if cell["cell_type"] != "markdown": continue
            text = source(cell)
            for link in LINK.findall(text):
                if "://" not in link and not (p.parent/link).exists():
                    yield f"{p.relative_to(ROOT)} links to {link}, which is not there: name what is"
            for name in NAMED.findall(text):
                if not any((folder/f"{name}{ending}").exists() for folder in (NBS, p.parent) for ending in ("", ".ipynb")):
                    yield f"{p.relative_to(ROOT)} names the page {name}, which is not there: name the one that is"

# --- modules

def modules(folder=PACKAGE): return {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*.py"))}

@functools.lru_cache
def exported():
    "A temporary project with a fresh export of the notebooks."
    folder = scratch()
    nbdev("nbdev_export", folder.name)
    return folder

def export_is_in_step():
    "The modules are what nbdev makes of the notebooks."
    fresh, ours = modules(Path(exported().name)/"mmllm"), modules()
    for name, p in fresh.items():
        if name.endswith("__init__.py"): continue # see inits_are_in_step
        if name not in ours: yield f"mmllm/{name} is missing: run nbdev_export"
        elif not filecmp.cmp(p, ours[name], shallow=False): yield f"mmllm/{name} differs from its notebook: run nbdev_export"

def no_module_is_stale():
    "No module is left of a notebook that is gone."
    made = modules(Path(exported().name)/"mmllm").keys() | export.inits().keys()
    made |= {"__main__.py"} # starts the command, and nothing else
    for name in modules().keys() - made - {n.removeprefix("mmllm/") for n in made}:
        yield f"mmllm/{name} comes from no notebook: delete it"

def ours(tree, inside=()):
    "(line, dotted module below mmllm) for every import of one in `tree`; `inside` is the package that a relative import starts from."
    for o in ast.walk(tree):
        if isinstance(o, ast.Import): names = [a.name for a in o.names]
        elif isinstance(o, ast.ImportFrom):
            start = ["mmllm", *inside[:len(inside) - o.level + 1]] if o.level else []
            base = ".".join([*start, *([o.module] if o.module else [])])
            names = [f"{base}.{a.name}" for a in o.names] if base == "mmllm" else [base]
        else: continue
        yield from ((o.lineno, n.split(".", 1)[1]) for n in names if n.startswith("mmllm."))

def order():
    "{dotted module: its place in the order of reading}; a whole room stands where its last page does."
    found = {module(p): number(p) for p in paths() if number(p) is not None}
    for name, place in sorted(found.items(), key=lambda pair: pair[1]):
        if "." in name: found[name.split(".")[0]] = place
    return found

def imports_point_down():
    "A page imports from pages before it only, in its module and in its examples."
    places = order()
    def place(name): return places.get(name, places.get(name.rsplit(".", 1)[0], (-1,)))
    for name, p in modules().items():
        own = name.removesuffix(".py").replace("/", ".")
        if own not in places or name.endswith("__init__.py"): continue
        for line, other in ours(ast.parse(p.read_text(encoding="utf-8")), own.split(".")[:-1]):
            if place(other) >= places[own]:
                yield f"mmllm/{name}, line {line} imports {other}, which does not come before it: move the code or the import"
    for p in (p for p in paths() if number(p) is not None):
        for i, c in code_cells(load(p)):
            for _, other in ours(parsed(c)):
                if place(other) > number(p): yield f"{where(p, i, c)} imports {other}, which comes later: move it there"

def inits_are_in_step():
    "Each room's `__init__.py` offers what its pages export."
    for name, text in export.inits().items():
        if not (ROOT/name).is_file() or (ROOT/name).read_text(encoding="utf-8") != text:
            yield f"{name} differs from its pages: run python tools/export.py"

def pages_keep_to_the_style():
    "Pages are as short and as well shown as tools/style.py asks for."
    yield from style.faults()
    figures = style.figures()
    for name, limit in style.LIMITS.items():
        if figures[name] > limit: yield f"{name} is {figures[name]:g}, at most {limit}: run python tools/style.py"
    if figures["shown"] < style.SHOWN:
        yield f"{figures['shown']:.0%} of the public cells are followed by an example, {style.SHOWN:.0%} are asked for"

def ruff(*arguments):
    "What `ruff check` finds, a line for each fault; raises with what it said when it fails."
    command = [BIN/"ruff", "check", "--output-format=concise", "--quiet", *arguments]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True)
    if done.returncode > 1: raise RuntimeError(done.stderr)
    yield from done.stdout.splitlines()

def ruff_is_content():
    "Notebooks, tools and tests keep ruff's rules (ruff.toml)."
    yield from ruff(NBS, ROOT/"tools", ROOT/"tests", ROOT/"setup.py")

def modules_use_what_they_import():
    "An import that only a page's examples need belongs into a hidden cell; what `__all__` names counts as used."
    yield from ruff("--select", "F401", PACKAGE)

def progress_bars_are_not_saved():
    "No output is a dead progress bar, a warning or a leftover."
    dead = re.compile(r"\d+%\|[█▏▎▍▌▋▊▉ #]*\||Warning:|^'\d+'$", re.M)
    for p in paths():
        for i, c in code_cells(load(p)):
            for o in c["outputs"]:
                text = "".join(o.get("text", o.get("data", {}).get("text/plain", "")))
                if dead.search(text): yield f"{where(p, i, c)} shows a progress bar, a warning or a bare number in quotes: run it again without"

def nothing_is_star_imported():
    "Modules name what they import."
    for name, p in modules().items():
        for o in ast.walk(ast.parse(p.read_text(encoding="utf-8"))):
            if isinstance(o, ast.ImportFrom) and o.names[0].name == "*": yield f"mmllm/{name}, line {o.lineno} imports *: name what it needs"

def comments(text):
    "{line: comment} of a Python file."
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return {t.start[0]: t.string for t in tokens if t.type == tokenize.COMMENT}

def arguments(function):
    "Every argument of `function` but `self` and `cls`."
    a = function.args
    every = [*a.posonlyargs, *a.args, a.vararg, *a.kwonlyargs, a.kwarg]
    return [o for o in every if o and o.arg not in ("self", "cls")]

def names_its_type(argument):
    "Whether an annotation says it all: `photo: Photo`, `device: torch.device`; `n: int` does not."
    text = ast.unparse(argument.annotation) if argument.annotation else ""
    return bool(re.match(r"[A-Z]|\w+\.", text))

def undocumented(node, name, notes, lines):
    "Sentences about one function or class: no docstring, parameters without a comment on their own line."
    if not ast.get_docstring(node) and node.name != "__init__": yield f"{name} has no docstring: say in one line what it does"
    if isinstance(node, ast.ClassDef): return
    found = arguments(node)
    for o in found:
        above = o.lineno - 1 in notes and lines[o.lineno - 2].lstrip().startswith("#")
        shared = any(p is not o and p.lineno == o.lineno for p in found)
        if names_its_type(o): continue
        if shared or not (o.end_lineno in notes or o.lineno in notes or above):
            yield f"{name}: parameter {o.arg} has no comment: give it a line of its own and say what it is, with shape and unit"

def public(tree):
    "(node, name) of what a module offers: functions, classes and their methods."
    kinds = ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef
    for node in (o for o in tree.body if isinstance(o, kinds) and o.name[0] != "_"):
        yield node, node.name
        if isinstance(node, ast.ClassDef):
            yield from ((o, f"{node.name}.{o.name}") for o in node.body
                        if isinstance(o, kinds) and (o.name[0] != "_" or o.name == "__init__"))

def everything_is_documented():
    "Modules, public classes and functions say what they are for, and parameters what they are."
    for file, p in modules().items():
        if Path(file).name.startswith("_"): continue
        text = p.read_text(encoding="utf-8")
        notes, lines, tree = comments(text), text.splitlines(), ast.parse(text)
        if not ast.get_docstring(tree): yield f"mmllm/{file} has no docstring: its notebook needs a promise, '> ...', below the title"
        for node, name in public(tree): yield from undocumented(node, f"mmllm/{file}: {name}", notes, lines)

# --- everything

def readme_is_in_step():
    "README.md is what nbs/index.ipynb makes."
    fresh = readme.render()
    there = {"README.md"} | {p.relative_to(ROOT).as_posix() for p in (ROOT/readme.FILES).rglob("*") if p.is_file()}
    for name in sorted(fresh.keys() | there):
        path = ROOT/name
        if name not in fresh: yield f"{name} is no longer part of the README: run make readme"
        elif not path.exists() or path.read_bytes() != fresh[name]: yield f"{name} differs from nbs/index.ipynb: run make readme"

def card_is_in_step():
    "The model card shows the figures of data/lite/figures.json."
    import card # it imports mmllm, which takes seconds
    text = card.CARD.read_text(encoding="utf-8")
    try:
        if card.update_card(text) != text: yield "data/lite/README.md differs from data/lite/figures.json: run python tools/card.py"
    except ValueError as e: yield f"data/lite/README.md: {e}"

PRIVATE = re.compile(r"(?<![\w.~-])/(?:work|root)/[\w.]|/tmp/[x]\b|/opt/(?:wheels|pypi)\b|/home/(?!user/|you/)[a-z]\w*/"
                     r"|https?://[^\s\"']+/simple\b|https?://[^\s\"']+/packages/[0-9a-f]{2}/|file:///\w") # paths; package indexes

def no_machine_is_named():
    "No file names a path or a package index of the machine that it was written on."
    for p in tracked():
        try: lines = p.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError: continue
        for i, line in enumerate(lines, 1):
            found = PRIVATE.search(line)
            if found: yield f"{p.relative_to(ROOT)}, line {i} names {found.group(0)!r}, which is one machine's affair: remove it"

ALL = [outputs_are_clean, notebooks_are_small, cells_have_run, no_error_is_saved, directives_are_read,
       notebooks_are_named_after_modules, badges_are_there, sidebar_lists_every_page, links_lead_somewhere, export_is_in_step, inits_are_in_step, no_module_is_stale,
       imports_point_down, nothing_is_star_imported, everything_is_documented, pages_keep_to_the_style, ruff_is_content, modules_use_what_they_import, progress_bars_are_not_saved, readme_is_in_step, card_is_in_step, no_machine_is_named]
