"""Gives every notebook its Colab badge and a hidden cell that installs mmllm on Colab; run again, it changes nothing.

The badge is a cell of its own below the title, because nbdev turns the whole title cell into the head of a page.
"""
import json
from notebooks import NBS, load, paths, settings

def badge(path):
    "The line that opens this notebook on Colab."
    place = "{user}/{repo}/blob/{branch}".format(**settings()) + f"/nbs/{path.relative_to(NBS).as_posix()}"
    return ("[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
            f"(https://colab.research.google.com/github/{place})")

def install():
    "The source of the cell that works on Colab and nowhere else."
    return "#| hide\n#| eval: false\n! [ -e /content ] && pip install -q git+https://github.com/{user}/{repo}".format(**settings())

def cells(path):
    "The two cells that follow the title."
    return [dict(cell_type="markdown", id="colab-badge", metadata={}, source=[badge(path)]),
            dict(cell_type="code", id="colab-setup", metadata={}, execution_count=None, outputs=[],
                 source=install().splitlines(keepends=True))]

def with_badge(notebook, path):
    "`notebook` with the two cells after its title, wherever they were before."
    rest = [c for c in notebook["cells"] if c.get("id") not in ("colab-badge", "colab-setup")]
    return {**notebook, "cells": rest[:1] + cells(path) + rest[1:]}

def write(path):
    "Bring one notebook up to date; says whether it had to."
    old = load(path)
    new = with_badge(old, path)
    if new == old: return False
    path.write_text(json.dumps(new, sort_keys=True, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return True

if __name__ == "__main__":
    changed = [p.name for p in paths() if write(p)]
    print(f"{len(changed)} notebooks changed" + "".join(f"\n  {o}" for o in changed))
