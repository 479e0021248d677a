"""Everything that CI checks: the files, every notebook, and a pass without a network. The last line counts.

    python tools/check.py             everything
    python tools/check.py --fast      the files only, in seconds
    python tools/check.py 03 index    the files, and the notebooks whose path has one of these words
    python tools/check.py browser     the files, and the chat in Chromium; likewise tests, docs and wheel
"""
import argparse, os, subprocess, sys, tempfile, threading, time
from concurrent.futures import ThreadPoolExecutor
import checks
from notebooks import BIN, ROOT, paths

MINUTES = 15                                      # before a notebook counts as hung
OFFLINE = ["00_core", "01_weights/04_fetch", "index"] # run once more without a network
FETCH = """
from mmllm.core import get_preset
from mmllm.weights import fetch
preset = get_preset("lite")
for name in (preset.vision, preset.audio, preset.language): assert fetch(name).is_dir(), name
"""
BLOCKED = """
import socket
try: socket.create_connection(("198.51.100.1", 80), 5)
except OSError as e: assert "blocked" in str(e), e
else: raise AssertionError("a connection went through")
"""

class Count:
    "Prints a line per result and counts them."
    def __init__(self): self.passed = self.failed = 0
    def __call__(self, name, faults, note=""):
        faults = list(faults)
        if faults: self.failed += 1
        else: self.passed += 1
        print(f"{'FAIL' if faults else 'ok  '}  {name}{note and f'  ({note})'}", *(f"      {o}" for o in faults), sep="\n", flush=True)

def faults_of(check):
    "What `check` finds; a check that breaks is a fault too."
    try: return list(check())
    except Exception as e: return [f"the check itself broke: {type(e).__name__}: {e}"]

def execute(command, **env):
    "(exit code, output, seconds, GB at most) of a program run from the project's root."
    start = time.time()
    with tempfile.TemporaryFile("w+", errors="replace") as out:
        p = subprocess.Popen([str(o) for o in command], cwd=ROOT, env={**os.environ, **env}, stdout=out, stderr=subprocess.STDOUT)
        timer = threading.Timer(MINUTES * 60, p.kill)
        timer.start()
        try: _, status, usage = os.wait4(p.pid, 0)
        finally: timer.cancel()
        out.seek(0)
        size = usage.ru_maxrss / (1e9 if sys.platform == "darwin" else 1e6)
        return os.waitstatus_to_exitcode(status), out.read(), time.time() - start, size

def without_network():
    "The environment of a program that must do without: tools/offline is imported by every Python that starts."
    path = os.pathsep.join(filter(None, [str(ROOT/"tools"/"offline"), os.environ.get("PYTHONPATH")]))
    return dict(PYTHONPATH=path, HF_HUB_OFFLINE="1", PIP_NO_INDEX="1")

def run_program(count, name, command, **env):
    if not os.path.exists(command[0]): return count(name, [f"{os.path.basename(command[0])} is not installed: remove .venv/.ready and run make setup"])
    code, output, seconds, size = execute(command, **env)
    count(name, [] if code == 0 else [f"exit code {code}; it said:", *output.strip().splitlines()[-40:]], f"{seconds:.0f} s, {size:.1f} GB")

def notebook_result(path, label="", **env):
    "(name, faults, note) of one notebook, run in a process of its own; one that nbdev skips is a fault, not a success."
    name = path.relative_to(ROOT).as_posix()
    code, output, seconds, size = execute([BIN/"nbdev_test", "--path", name, "--do_print"], **env)
    if code == 0 and f"- Completed {path}" not in output: code, output = 1, f"nbdev_test did not run it: {output}"
    faults = [f"{name} fails (exit code {code}); it said:", *output.strip().splitlines()[-40:]] if code else []
    return label + name, faults, f"{seconds:.0f} s, {size:.1f} GB"

def run_notebooks(count, chosen, label="", **env):
    "Run notebooks, two at a time with a thread each where there are two cores: most of their time is imports."
    if (os.cpu_count() or 1) > 1: env.setdefault("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))
    with ThreadPoolExecutor(2 if "OMP_NUM_THREADS" in env else 1) as pool:
        for result in pool.map(lambda path: notebook_result(path, label, **env), chosen): count(*result)

def run_offline(count):
    "With the cache filled, everything must work without a network."
    env = without_network()
    run_program(count, "offline: connections are refused", [sys.executable, "-c", BLOCKED], **env)
    run_program(count, "offline: mmllm plan", [BIN/"mmllm", "plan"], **env)
    run_program(count, "offline: fetch finds the lite weights", [sys.executable, "-c", FETCH], **env)
    run_notebooks(count, [p for p in paths() if any(name in p.as_posix() for name in OFFLINE)], "offline: ", **env)

def run_tests(count):
    "The hostile cases in tests/, as one more program."
    run_program(count, "pytest tests", [sys.executable, "-m", "pytest", "-q", "--tb=short", ROOT/"tests"])

def run_docs(count):
    "The documentation site."
    run_program(count, "tools/docs.py", [sys.executable, ROOT/"tools"/"docs.py"])

def run_wheel(count):
    "The package as people install it: built, unpacked elsewhere, its files found and the chat opened from there."
    run_program(count, "tools/wheel.py", [sys.executable, ROOT/"tools"/"wheel.py"])

def run_browser(count):
    "The chat in a real browser, where there is one."
    import browser
    if not browser.chromium(): return print("skip  tools/browser.py: no Chromium here, so nobody looked at the chat in a browser (Debian: apt install chromium)", flush=True)
    run_program(count, "tools/browser.py", [sys.executable, ROOT/"tools"/"browser.py"])

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="run only the notebooks whose path has one of these")
    parser.add_argument("--fast", action="store_true", help="run no notebook")
    args = parser.parse_args()
    count, start = Count(), time.time()
    for check in checks.ALL: count(check.__name__.replace("_", " "), faults_of(check))
    if not args.fast:
        chosen = [p for p in paths() if not args.words or any(w in p.as_posix() for w in args.words)]
        if not chosen and not {"browser", "docs", "tests", "wheel"} & set(args.words): count("notebooks to run", ["no notebook has that in its path: see nbs/"])
        run_notebooks(count, chosen)
        if not args.words or "tests" in args.words: run_tests(count)
        if not args.words or "docs" in args.words: run_docs(count)
        if not args.words or "wheel" in args.words: run_wheel(count)
        if not args.words or "browser" in args.words: run_browser(count)
        if not args.words: run_offline(count)
    print(f"{time.time() - start:.0f} s in all")
    print(f"{count.passed} passed, {count.failed} failed", flush=True)
    return 1 if count.failed else 0

if __name__ == "__main__": sys.exit(main())
