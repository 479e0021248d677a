"""Kills mmllm with `kill -9` at random moments, or fills its disk up, then goes on and compares. For the preset tiny, on Linux.

    python tools/kill.py                      every job, 5 times
    python tools/kill.py save train-tune --times 20
    python tools/kill.py save chat --reader   a second process reads meanwhile
    python tools/kill.py --disk               no kill: a disk that is full after a random number of bytes (as root)
    python tools/kill.py --seed 7             other moments

What has to hold after each: nothing that was whole is lost or half replaced, the same call again ends well, what it leaves is the same as
without the kill, to the byte, and nothing else lies about. Jobs run in forks of this process, so that
imports, which take most of the time, are done once.
"""
import argparse, contextlib, hashlib, json, os, random, shutil, signal, subprocess, sys, tempfile, time, traceback
from pathlib import Path
os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "PIP_NO_INDEX": "1"}
from notebooks import ROOT
sys.path[:0] = [str(ROOT), str(ROOT/"tools"/"offline")]
import mmllm.core # before torch # noqa: F401
import numpy as np
import samples
from mmllm.chat import Chat
from mmllm.chat.conversation import new_turn
from mmllm.core import MMError
from mmllm.data.conversations import image_messages, load_scenes, scene_record
from mmllm.evaluation.items import Item
from mmllm.evaluation.run import evaluate
from mmllm.model import MMModel
from mmllm.training.trainer import get_stage, train
from mmllm.weights import fetch
from mmllm.weights.download import find_damage
from transformers.utils import logging

STAGES = {"clip": dict(epochs=3), "align": dict(epochs=3), "tune": dict(epochs=3, text=0), "listen-asr": dict(epochs=2), "listen": dict(epochs=2, scene_sentences=4)}
STEPS = 12 # saves in a row

def digest(folder):
    "{name: SHA-256} of the files in a folder."
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

def records(n=14):
    "Pictures of noise, and sentences about them."
    noise = np.random.default_rng(0)
    return [scene_record(scene, samples.as_file(samples.Image.fromarray(noise.integers(0, 256, (32, 32, 3), dtype=np.uint8)), "PNG")) | {"id": f"{i}.png"}
            for i, scene in enumerate(load_scenes()[:n])]

class Job:
    "Something that is killed: `run` in a folder, `check` what it left, `result` to compare."
    def __init__(self, folder): self.folder = folder
    def prepare(self): "What is there before."
    def read(self): "What a second process does meanwhile; it raises where something is wrong."
    def check(self): "Raise `AssertionError` where something was lost, before the job is run again."

class Fetch(Job):
    "Weights that are made on the spot."
    def run(self):
        for name in ("tiny-phi3", "tiny-clip", "tiny-whisper"): fetch(name)
    def use(self): os.environ["MMLLM_CACHE"] = str(self.folder/"cache")
    def read(self): assert not find_damage(fetch("tiny-phi3"))
    def check(self):
        for path in (self.folder/"cache"/"weights").glob("tiny-*"): assert not find_damage(path), f"{path.name} is half made"
    def result(self): return {name: hash for name, hash in digest(self.folder/"cache").items() if not name.endswith(("conversion.json", ".lock"))}

class Train(Job):
    "A stage."
    stage = ""
    def run(self):
        model = MMModel.from_preset("tiny", device="cpu")
        known = records()
        train(model, get_stage(self.stage, **STAGES[self.stage]), known[:10], self.folder/"run", known[10:], progress=False)
    def check(self):
        bundle = self.folder/"run"/self.stage
        if bundle.exists(): MMModel.from_pretrained(bundle, device="cpu")
    def result(self): return digest(self.folder)

class Evaluate(Job):
    "Questions to a model, whose replies are kept."
    def run(self):
        model = MMModel.from_pretrained(SHARED/"a", device="cpu")
        items = [Item(image_messages(record["images"][0], "What is this?"), ["a cat", "a dog"], record["id"], "caption") for record in records(24)]
        report = evaluate(lambda asked: model.reply(asked, max_new_tokens=6), items, batch_size=2, save=self.folder/"replies.jsonl", progress=False, model="tiny")
        report.to_json(self.folder/"report.json")
    def check(self):
        path = self.folder/"replies.jsonl"
        for line in path.read_text().split("\n")[:-1] if path.exists() else []: json.loads(line)
    def result(self): return digest(self.folder)

class Save(Job):
    "Two versions of a bundle, saved in turn over one another."
    def prepare(self): self.save("a")
    def save(self, which): MODELS[which].save_pretrained(self.folder/"bundle")
    def run(self):
        for i in range(STEPS): self.save("ab"[i % 2])
        self.save("a")
    def known(self): return [digest(SHARED/which) for which in "ab"]
    def read(self): MMModel.from_pretrained(self.folder/"bundle", device="cpu")
    def check(self):
        MMModel.from_pretrained(self.folder/"bundle", device="cpu") # which recovers
        assert digest(self.folder/"bundle") in self.known(), "the bundle is neither the old one nor the new one"
    def result(self): return digest(self.folder)

class SaveChat(Job):
    "Two conversations, saved in turn over one another."
    def prepare(self): self.save(0)
    def save(self, i):
        chat = Chat("tiny", system=f"version {i % 2}")
        turn = new_turn(f"version {i % 2}", list(samples.pictures().values())[i % 2:8:2], samples.sounds()["flac"])
        turn.reply, turn.state = f"version {i % 2}", "done"
        chat.turns = [turn]
        chat.save(self.folder/"chat")
    def run(self):
        for i in range(1, STEPS + 1): self.save(i)
    def read(self):
        chat = Chat.load(self.folder/"chat", "tiny")
        assert chat.settings.system == chat.turns[0].text == chat.turns[0].reply, "half of one version, half of another"
    check = read
    def result(self): return digest(self.folder)

JOBS = {"fetch": Fetch, **{f"train-{stage}": type(stage, (Train,), {"stage": stage, "__doc__": f"The stage {stage}."}) for stage in STAGES}, "evaluate": Evaluate, "save": Save, "chat": SaveChat}

# --- processes

def use(job):
    "Let a job work in its own folder."
    os.environ["MMLLM_CACHE"] = str(SHARED/"cache")
    if hasattr(job, "use"): job.use()

def start(action, log):
    "A fork that does it; its exit code is 0, 3 for an `MMError`, or 4."
    pid = os.fork()
    if pid: return pid
    code = 4
    try:
        with open(log, "w") as out:
            for number in (1, 2): os.dup2(out.fileno(), number)
            try:
                action()
                code = 0
            except MMError as error:
                print(f"{type(error).__name__}: {error}", flush=True)
                code = 3
            except BaseException: traceback.print_exc(file=out)
    finally: os._exit(code)

def wait(pid): return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def finish(action, log):
    "Do it in a fork, to the end; raises `AssertionError` if it does not end well."
    code = wait(start(action, log))
    assert code == 0, f"exit code {code}: {log.read_text().strip()[-600:]}"

def read_often(job):
    "Read until a file says that it is enough."
    while not (job.folder.parent/"enough").exists(): job.read()

def is_half(name): return any(part.startswith(".") and part.endswith((".new", ".old", ".part", ".source")) for part in Path(name).parts)

# --- one trial

def killed(job, seconds, log, reader):
    "Run and kill after so many seconds; whether it was still running."
    readers = [start(lambda: read_often(job), log.with_name("reader.txt"))] if reader else []
    pid = start(job.run, log)
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)
    code = wait(pid)
    (job.folder.parent/"enough").touch()
    for one in readers: assert wait(one) == 0, "the reader: " + log.with_name("reader.txt").read_text().strip()[-400:]
    assert code in (0, -signal.SIGKILL), log.read_text()[-600:]
    return code != 0

def filled(job, size, log):
    "Run on a disk of so many bytes; whether it was full. Afterwards the disk is large."
    code = wait(start(job.run, log))
    said = log.read_text().strip()
    assert code in (0, 3), f"no sentence: {said[-600:]}"
    assert code == 0 or "full" in said, f"another reason: {said}"
    subprocess.run(["mount", "-o", "remount,size=1g", job.folder], check=True)
    return code != 0

@contextlib.contextmanager
def small_disk(folder, size):
    "A disk of so many bytes in place of the folder."
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try: yield
    finally: subprocess.run(["umount", "-l", folder], check=True)

def space(folder): return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())

def trial(kind, wanted, at, place, disk, reader):
    "One kill, or one full disk, and the same call again; -> whether it came in time. Raises `AssertionError`."
    shutil.rmtree(place, ignore_errors=True)
    (place/"job").mkdir(parents=True)
    job, log = kind(place/"job"), place/"log.txt"
    with small_disk(job.folder, "1g") if disk else contextlib.nullcontext():
        use(job)
        finish(job.prepare, log)
        if disk: subprocess.run(["mount", "-o", f"remount,size={shutil.disk_usage(job.folder).used + int(at)}", job.folder], check=True)
        in_time = filled(job, at, log) if disk else killed(job, at, log, reader)
        finish(job.check, log)
        finish(job.run, log)
        found = job.result()
        assert found == wanted, f"another result: {sorted(k for k in found.keys() | wanted.keys() if found.get(k) != wanted.get(k))[:6]}"
        assert not (left := [name for name in found if is_half(name)]), f"left behind: {left[:4]}"
    return in_time

def measure(kind, place):
    "(what an undisturbed run leaves, its seconds, the most bytes that it had on the disk)"
    shutil.rmtree(place, ignore_errors=True)
    (place/"job").mkdir(parents=True)
    job, most = kind(place/"job"), 0
    use(job)
    finish(job.prepare, place/"log.txt")
    before, began = space(job.folder), time.time()
    pid = start(job.run, place/"log.txt")
    while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
        with contextlib.suppress(OSError): most = max(most, space(job.folder) - before)
        time.sleep(.005)
    assert ended[1] == 0, (place/"log.txt").read_text()[-2000:]
    return job.result(), time.time() - began, most

def main():
    global SHARED, MODELS
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", nargs="*", metavar="job", help=", ".join(JOBS))
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--disk", action="store_true", help="fill the disk in place of killing")
    parser.add_argument("--reader", action="store_true", help="read from a second process meanwhile")
    args = parser.parse_args()
    if unknown := set(args.jobs) - JOBS.keys(): parser.error(f"no job is called {unknown.pop()}: choose {', '.join(JOBS)}")
    faults = trials = 0
    with tempfile.TemporaryDirectory(prefix="mmllm-kill-") as folder:
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        SHARED, dice = Path(folder)/"shared", random.Random(args.seed)
        os.environ["MMLLM_CACHE"] = str(SHARED/"cache")
        MODELS = {which: MMModel.from_preset("tiny", device="cpu", seed=seed) for seed, which in enumerate("ab")}
        for which, model in MODELS.items(): model.save_pretrained(SHARED/which)
        for name in args.jobs or JOBS:
            wanted, seconds, most = measure(JOBS[name], Path(folder)/"measured")
            print(f"{name}: {seconds:.1f} s and {most/1e6:.1f} MB undisturbed", flush=True)
            in_time = 0
            for _ in range(args.times):
                at, trials = dice.random() * (most * 1.1 if args.disk else seconds * 1.05), trials + 1
                try: in_time += trial(JOBS[name], wanted, at, Path(folder)/"trial", args.disk, args.reader)
                except AssertionError as error:
                    faults += 1
                    print(f"FAULT  {name}, {f'{at/1e6:.2f} MB' if args.disk else f'{at:.2f} s'}: {error}", flush=True)
            print(f"{name}: {args.times} times, {in_time} of them {'full' if args.disk else 'killed'} before the end", flush=True)
    print(f"{trials - faults} held, {faults} did not")
    return 1 if faults else 0

if __name__ == "__main__": sys.exit(main())
