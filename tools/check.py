"""Everything that CI checks: the files, every notebook, and a pass without a network. The last line counts.

    python tools/check.py             everything
    python tools/check.py --fast      the files only, in seconds
    python tools/check.py 03 index    the files, and the notebooks whose path has one of these words
    python tools/check.py browser     the files, and the chat in Chromium; likewise tests, docs and wheel
"""
import argparse, compileall, os, re, subprocess, sys, tempfile, threading, time
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
import checks
from notebooks import BIN, NBS, ROOT, paths
from pages import MINUTES

PAIR = (os.cpu_count() or 1) > 1                  # two notebooks at a time, with a thread each
FORKS = sys.platform == "linux" and not os.path.exists("/dev/nvidiactl") # CUDA and macOS do not stand a fork: see tools/pages.py
OF_IMPORTS = re.compile(r"environ\W+HF_")          # a page with what huggingface_hub reads when it is imported runs from the start
LONG = [                                          # the notebooks that take half a minute or more, the longest first
    "tutorials/own_pictures", "tutorials/full", "08_training/02_align_tune", "09_evaluation/05_spoken",
    "04_audio/01_transcription", "08_training/01_trainer", "09_evaluation/06_bundle", "10_chat/03_conversation",
    "tutorials/own_voice", "tutorials/serving", "08_training/05_small_data", "08_training/03_speech", "13_cli",
    "03_vision/01_lite_clip", "08_training/08_recipes", "08_training/07_scst",
]
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

class Forks:
    "Runs notebooks as `nbdev_test` does, each in a fork of one process that holds the libraries: see tools/pages.py."
    def __init__(self):
        self.process = subprocess.Popen([sys.executable, ROOT/"tools"/"pages.py"], cwd=ROOT, env=os.environ | threads(),
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    def execute(self, notebook):
        "(exit code, output, seconds, GB at most) of a notebook."
        start = time.time()
        with tempfile.NamedTemporaryFile("r", errors="replace") as out:
            try: print(notebook, out.name, sep="\t", file=self.process.stdin, flush=True)
            except OSError: self.process.wait()   # it has just ended
            code, size = self.process.stdout.readline().split() or (1, 0)
            return int(code), out.read() or "tools/pages.py ended: it says why above", time.time() - start, float(size)

here = threading.local()                          # the forks of each of the two that work

def forks():
    "Those of this thread; new ones if their process has ended."
    if not hasattr(here, "forks") or here.forks.process.poll() is not None: here.forks = Forks()
    return here.forks

def threads(): return {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")} if PAIR else {}

def without_network():
    "The environment of a program that must do without: tools/offline is imported by every Python that starts."
    path = os.pathsep.join(filter(None, [str(ROOT/"tools"/"offline"), os.environ.get("PYTHONPATH")]))
    return dict(PYTHONPATH=path, HF_HUB_OFFLINE="1", PIP_NO_INDEX="1")

def program_result(name, command, **env):
    "(name, faults, note) of a program."
    if not os.path.exists(command[0]): return name, [f"{os.path.basename(command[0])} is not installed: remove .venv/.ready and run make setup"], ""
    code, output, seconds, size = execute(command, **env)
    return name, [] if code == 0 else [f"exit code {code}; it said:", *output.strip().splitlines()[-40:]], f"{seconds:.0f} s, {size:.1f} GB"

def notebook_result(path, label="", **env):
    "(name, faults, note) of one notebook, run in a process of its own; one that nbdev skips is a fault, not a success."
    name = path.relative_to(ROOT).as_posix()
    if FORKS and not env and not OF_IMPORTS.search(path.read_text(encoding="utf-8")): code, output, seconds, size = forks().execute(name)
    else: code, output, seconds, size = execute([BIN/"nbdev_test", "--path", name, "--do_print"], **threads(), **env)
    if code == 0 and f"- Completed {path}" not in output: code, output = 1, f"nbdev_test did not run it: {output}"
    faults = [f"{name} fails (exit code {code}); it said:", *output.strip().splitlines()[-40:]] if code else []
    return label + name, faults, f"{seconds:.0f} s, {size:.1f} GB"

def run_all(count, jobs):
    "Run jobs, which return what `count` takes: two at a time where there are two cores, the first ones first."
    with ThreadPoolExecutor(2 if PAIR else 1) as pool:
        for done in as_completed([pool.submit(job) for job in jobs]): count(*done.result())

def notebook_jobs(chosen, label="", **env): return [partial(notebook_result, path, label, **env) for path in chosen]

def offline_jobs():
    "With the cache filled, everything must work without a network."
    env = without_network()
    return [partial(program_result, "offline: connections are refused", [sys.executable, "-c", BLOCKED], **env),
            partial(program_result, "offline: mmllm plan", [BIN/"mmllm", "plan"], **env),
            partial(program_result, "offline: fetch finds the lite weights", [sys.executable, "-c", FETCH], **env),
            *notebook_jobs([p for p in paths() if any(name in p.as_posix() for name in OFFLINE)], "offline: ", **env)]

def tool_jobs(*names):
    "The chat in a real browser, where there is one (`browser`); the documentation site (`docs`); the package as people install it (`wheel`)."
    import browser
    if "browser" in names and not browser.chromium():
        print("skip  tools/browser.py: no Chromium here, so nobody looked at the chat in a browser (Debian: apt install chromium)", flush=True)
        names = [name for name in names if name != "browser"]
    return [partial(program_result, f"tools/{name}.py", [sys.executable, ROOT/"tools"/f"{name}.py"]) for name in names]

def tests_job():
    "The hostile cases in tests/, as one more program."
    return partial(program_result, "pytest tests", [sys.executable, "-m", "pytest", "-q", "--tb=short", ROOT/"tests"])

def all_jobs():
    "What takes long stands first, so that nothing runs on alone at the end; the browser and what is offline need a cache that earlier ones have filled."
    page = {p.relative_to(NBS).with_suffix("").as_posix(): p for p in paths()}
    long = [page.pop(name) for name in LONG]
    return [*notebook_jobs(long), *tool_jobs("browser"), tests_job(), *tool_jobs("docs", "wheel"), *notebook_jobs(page.values()), *offline_jobs()]

def chosen_jobs(words):
    "The notebooks whose path has one of the words, `tests`, and the tools that are named."
    tools = [name for name in ("browser", "docs", "wheel") if name in words]
    tests = [tests_job()] if "tests" in words else []
    return notebook_jobs([p for p in paths() if any(w in p.as_posix() for w in words)]) + tests + tool_jobs(*tools)

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="run only the notebooks whose path has one of these")
    parser.add_argument("--fast", action="store_true", help="run no notebook")
    args = parser.parse_args()
    count, start = Count(), time.time()
    for check in checks.ALL: count(check.__name__.replace("_", " "), faults_of(check))
    if not args.fast:
        compileall.compile_dir(ROOT/"mmllm", quiet=1) # once for hundreds of processes, also where Python may write no bytecode
        jobs = chosen_jobs(args.words) if args.words else all_jobs()
        if not jobs: count("notebooks to run", ["no notebook has that in its path: see nbs/"])
        run_all(count, jobs)
    print(f"{time.time() - start:.0f} s in all")
    print(f"{count.passed} passed, {count.failed} failed", flush=True)
    return 1 if count.failed else 0

if __name__ == "__main__": sys.exit(main())
