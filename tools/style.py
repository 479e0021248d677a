"""Measures how the pages are written, and says where they break the house's rules. Strings over several lines are left out.

    python tools/style.py                 the table and every fault
    python tools/style.py 02_data 07      only pages whose path has one of these words
"""
import ast, re, statistics, sys
from notebooks import ROOT, code_cells, load, parsed, paths, source, split, where

COLUMNS, CELL, PAGE, FUNCTION = 100, 30, 350, 40 # at most
LIMITS = {"body p90": 525, "cell median": 13}    # of all pages together
SHOWN = 0.75                                      # at least
EXPORT = {"export", "exports", "exporti"}
FUNCTIONS = ast.FunctionDef, ast.AsyncFunctionDef
FRONT_END = re.compile(r"</?(div|span|table|style|script|html|body)\b|\bfunction\s*\w*\(|=>\s*{|{[^{}]*:[^{}]*;")

def is_exported(cell): return bool(EXPORT & split(source(cell))[0].keys())

def long_strings(tree):
    "Lines inside strings that stretch over several lines."
    inside = set()
    for node in ast.walk(tree):
        is_text = isinstance(node, ast.JoinedStr) or isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_text and node.end_lineno > node.lineno: inside |= set(range(node.lineno, node.end_lineno + 1))
    return inside

def code_lines(cell):
    "(number, text) of the lines of a cell that are code."
    lines, inside = split(source(cell))[1], long_strings(parsed(cell))
    return [(i, line) for i, line in enumerate(lines, 1) if i not in inside]

def functions(tree): return [node for node in ast.walk(tree) if isinstance(node, FUNCTIONS)]

def body_of(node, lines):
    "The text of a function's body, without its docstring."
    body = node.body[1:] if ast.get_docstring(node) else node.body
    return "\n".join(lines[body[0].lineno - 1:body[-1].end_lineno]) if body else ""

def public(tree):
    "Names of the public functions, methods and classes that a cell defines at its top level."
    return [node.name for node in tree.body if isinstance(node, (*FUNCTIONS, ast.ClassDef)) and node.name[0] != "_"]

def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(share * len(values)))] if values else 0

def faults(words=()):
    "A sentence for each place that breaks a rule."
    for path in chosen(words):
        cells, exported = code_cells(load(path)), 0
        for i, cell in cells:
            here, lines, tree = where(path, i, cell), split(source(cell))[1], parsed(cell)
            for n, line in code_lines(cell):
                if len(line) > COLUMNS: yield f"{here}, line {n} has {len(line)} columns: break it, {COLUMNS} are shown"
            if not is_exported(cell): continue
            exported += len(lines)
            if len(lines) > CELL and public(tree): yield f"{here} has {len(lines)} lines: one idea a cell, at most {CELL}"
            for node in functions(tree):
                size = len(body_of(node, lines).splitlines())
                if size > FUNCTION: yield f"{here}: {node.name} has {size} lines, at most {FUNCTION}: give its parts names"
            for node in ast.walk(tree):
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and FRONT_END.search(node.value):
                    yield f"{here}: HTML, CSS or JavaScript in a string: keep it in a file below mmllm/"
        if exported > PAGE: yield f"{path.relative_to(ROOT)} exports {exported} lines, at most {PAGE}: split the page"

def chosen(words): return [p for p in paths() if not words or any(w in p.as_posix() for w in words)]

def figures(words=()):
    "What is measured, as numbers: {name: value}."
    widths, bodies, sizes, shown, longest = [], [], [], 0, 0
    for path in chosen(words):
        cells = code_cells(load(path))
        for at, (_, cell) in enumerate(cells):
            if not is_exported(cell): continue
            tree, lines = parsed(cell), split(source(cell))[1]
            widths += [len(line) for _, line in code_lines(cell) if line.strip()]
            texts = [body_of(node, lines) for node in functions(tree)]
            bodies += map(len, texts)
            longest = max([longest, *(len(text.splitlines()) for text in texts)])
            if not public(tree): continue
            sizes.append(len(lines))
            shown += at + 1 < len(cells) and not is_exported(cells[at + 1][1])
    return {
        "line p90": percentile(widths, .9), "line max": max(widths, default=0),
        "body median": percentile(bodies, .5), "body p90": percentile(bodies, .9), "function max": longest,
        "cell median": statistics.median(sizes) if sizes else 0, "cell p90": percentile(sizes, .9),
        "public cells": len(sizes), "shown": shown / max(len(sizes), 1),
    }

def table(words=()):
    "The figures as lines of text."
    f = figures(words)
    rows = {
        "line, columns p90 / max": f"{f['line p90']} / {f['line max']}",
        "function body, characters median / p90": f"{f['body median']} / {f['body p90']}",
        "function body, lines max": f["function max"],
        "exported cell, lines median / p90": f"{f['cell median']:g} / {f['cell p90']}",
        "public cells followed by an example": f"{f['shown']:.0%} of {f['public cells']}",
    }
    return "\n".join(f"{name:42}{value}" for name, value in rows.items())

if __name__ == "__main__":
    print(table(sys.argv[1:]))
    found = list(faults(sys.argv[1:]))
    print(*found, f"{len(found)} faults", sep="\n")
