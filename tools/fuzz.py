"""Damages real pictures, sounds and bundles of the tiny preset, and watches what mmllm's readers make of them.

    python tools/fuzz.py                       100,000 inputs: minutes on an idle core; faults are listed at the end
    python tools/fuzz.py --inputs 2000 --start 50000 --only picture,sound
    python tools/fuzz.py --minutes 25          as many as that takes
    python tools/fuzz.py --repeat 50123        that input again, with the whole trace of what it raises
    python tools/fuzz.py --repeat 50123 --keep FOLDER   and the input itself

The number of an input is its seed: the same number is the same input, whatever was tried before. A fault is an exception that is no
MMError, more than 5 seconds of computing, more than 1 GB of memory beyond what the process had, or the end of the process.
Readers run in a process of their own, cut off from the network; it is started again when it ends.
"""
import argparse, copy, json, os, queue, random, resource, shutil, subprocess, sys, tempfile, threading, time, traceback
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
import psutil
from notebooks import ROOT
import samples

HANG, MEMORY, ROOM = 5, 10**9, 6 * 2**30 # seconds of computing; bytes; bytes of address space beyond what is used
KINDS = {"picture": 46, "sound": 46, "bundle": 8} # shares of the inputs
CHUNK = 4_000_000 # longest input, in bytes

# --- damage

SIZES = [0, 1, 2, 3, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1, 7999, 16_000, 2**24]

def flip_bits(data, r):
    for _ in range(r.choice((1, 1, 2, 4, 16))): data[r.randrange(len(data))] ^= 1 << r.randrange(8)

def change_bytes(data, r):
    for _ in range(r.choice((1, 2, 8, 64))): data[r.randrange(len(data))] = r.choice((0, 0x7F, 0x80, 0xFF, r.randrange(256)))

def change_number(data, r):
    "A size of two, four or eight bytes becomes one that makes trouble; most of them stand near the beginning."
    width, order = r.choice((2, 4, 4, 8)), r.choice(("little", "big"))
    at = r.randrange(min(len(data), r.choice((64, 64, 512, len(data)))))
    data[at:at + width] = (r.choice(SIZES) % 256**width).to_bytes(width, order)

def cut_off(data, r): del data[r.randrange(len(data)):]

def take_out(data, r):
    at = r.randrange(len(data))
    del data[at:at + r.choice((1, 4, 64, 1000))]

def put_in(data, r):
    at = r.randrange(len(data) + 1)
    data[at:at] = r.randbytes(r.choice((1, 4, 64, 1000)))

def double(data, r):
    at, size = r.randrange(len(data)), r.choice((4, 64, 1000, len(data)))
    piece = data[at:at + size] * r.choice((1, 1, 1, 100))
    data[at:at] = piece[:CHUNK]

def blank(data, r):
    at = r.randrange(len(data))
    size = min(r.choice((4, 64, 1000)), len(data) - at)
    data[at:at + size] = bytes([r.choice((0, 0xFF))]) * size

DAMAGES = [flip_bits, flip_bits, change_bytes, change_number, change_number, change_number, cut_off, take_out, put_in, double, blank]

def damaged(data, r, others):
    "The bytes after one to four accidents; half of the time their checksums are right again."
    data = bytearray(data)
    if r.random() < .06: # the first half of one file, the second of another
        other = r.choice(others)
        data = data[:r.randrange(len(data))] + other[r.randrange(len(other)):]
    for _ in range(r.choice((1, 1, 2, 4))):
        if not data: break
        r.choice(DAMAGES)(data, r)
    data = bytes(data[:CHUNK])
    return samples.mended(data) if r.random() < .5 else data

VALUES = [None, True, False, 0, 1, -1, -4, 3, 15, 2.5, 1e308, 10**7, 10**12, 2**63, -2**63, 10**40, "", "x", "0", "tiny", "full", "../..", "a/b", "\0", "é" * 300,
          [], {}, [1], [[]], ["x"], {"x": 1}, {"sha256": 5}, {"revision": "main"}]

def change_value(found, r):
    "One value somewhere in JSON becomes another, or its key does."
    if not found or not isinstance(found, (dict, list)): return r.choice(VALUES)
    keys = list(found) if isinstance(found, dict) else range(len(found))
    key = r.choice(list(keys))
    if isinstance(found[key], (dict, list)) and r.random() < .6: found[key] = change_value(found[key], r)
    elif r.random() < .15: del found[key]
    elif r.random() < .1 and isinstance(found, dict): found[r.choice(["x", "", "torch_dtype", "quantization_config", "dtype"])] = r.choice(VALUES)
    else: found[key] = r.choice(VALUES)
    return found

def damaged_json(data, r):
    "JSON with other values, or JSON that is none."
    if r.random() < .03: return b"[" * 100_000
    if r.random() < .25: return damaged(data, r, [data])
    found = json.loads(data)
    for _ in range(r.choice((1, 1, 2, 4))): found = change_value(found, r)
    return json.dumps(found).encode()

def damaged_tensors(data, r):
    "A safetensors file with another header, or other bytes."
    if r.random() < .5: return damaged(data, r, [data])
    size = int.from_bytes(data[:8], "little")
    header = json.dumps(change_value(json.loads(data[8:8 + size]), r)).encode()
    return len(header).to_bytes(8, "little") + header + data[8 + size:]

# --- inputs

UNREAD = {"tokenizer.json", "tokenizer_config.json", "chat_template.jinja"} # of a bundle, which takes those of its base

class Inputs:
    "Input number `i`: its kind, what it was made from, and the bytes."
    def __init__(self, only, bundle):
        self.kinds = [kind for kind in KINDS if kind in only]
        files = [p for p in sorted(bundle.rglob("*")) if p.is_file() and p.name not in UNREAD]
        self.bundle = {p.relative_to(bundle).as_posix(): p.read_bytes() for p in files}

    def __getitem__(self, i):
        r = random.Random(f"mmllm {i}")
        kind = r.choices(list(KINDS), KINDS.values())[0]
        if kind not in self.kinds: return kind, None, b""
        known = {"picture": samples.pictures, "sound": samples.sounds, "bundle": lambda: self.bundle}[kind]()
        name = r.choice(sorted(known))
        data = known[name]
        if name.endswith(".json"): return kind, name, damaged_json(data, r)
        if name.endswith(".safetensors"): return kind, name, damaged_tensors(data, r)
        return kind, name, damaged(data, r, list(known.values()))

def read(kind, name, data, bundle, folder):
    "Have mmllm read an input; what it says is the name of what it raises, or `read`."
    from mmllm.core import MMError
    from mmllm.data.media import image_key, load_audio, load_image
    from mmllm.model import MMModel
    try:
        if kind == "picture":
            image = load_image(data)
            assert image.dtype == "uint8" and image.ndim == 3 and image.shape[2] == 3 and image.size, image.shape
            image_key(data)
        elif kind == "sound":
            wave = load_audio(data)
            assert wave.dtype == "float32" and wave.ndim == 1 and len(wave), wave.shape
        else:
            lay_out(bundle, name, data, folder)
            MMModel.from_pretrained(folder, device="cpu")
    except MMError as error: return type(error).__name__
    return "read"

def lay_out(bundle, name, data, folder):
    "A bundle with one file exchanged; the others are links."
    shutil.rmtree(folder, ignore_errors=True)
    for file in (p for p in bundle.rglob("*") if p.is_file()):
        target = folder/file.relative_to(bundle)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target != folder/name: target.symlink_to(file)
    (folder/name).write_bytes(data)

# --- the process that reads

def kept(function, parts=lambda result: []):
    "The same, called once for the same arguments; each caller gets a copy, but the same tokenizers, settings and other `parts`."
    known = {}
    def call(*args, **options):
        key = repr((args, sorted(options.items())))
        if key not in known: known[key] = function(*args, **options)
        return copy.deepcopy(known[key], {id(part): part for part in parts(known[key])})
    return call

def settings_of(model):
    "What a model has and does not change."
    return [value for module in model.modules() for name in ("config", "generation_config", "tokenizer", "image_processor", "names", "concepts")
            if (value := getattr(module, name, None)) is not None]

def kept_by_text(function):
    "The same for a tokenizer and a text."
    known = {}
    def call(tokenizer, text):
        key = tokenizer.name_or_path, text
        if key not in known: known[key] = function(tokenizer, text)
        return known[key]
    return call

def kept_by_fields(function):
    "The same for a configuration."
    known = {}
    def call(config):
        key = json.dumps(config.to_dict(), sort_keys=True)
        if key not in known: known[key] = function(config)
        return dict(known[key])
    return call

def keep_bases():
    "Nobody damages the bases below a bundle, so each is read once; their hashes are compared each time."
    import mmllm.model.bundle as bundle
    import mmllm.model.model as model
    import mmllm.projection as projection
    model.load_vision = kept(model.load_vision, settings_of)
    model.load_language = kept(model.load_language, lambda found: [*settings_of(found[0]), found[1]])
    model.AutoConfig = SimpleNamespace(from_pretrained=kept(model.AutoConfig.from_pretrained))
    projection.encode_text = kept_by_text(projection.encode_text)
    bundle.expected_states = kept_by_fields(bundle.expected_states)

def peak_memory():
    "Bytes, since the last call of `forget_peak`."
    text = Path("/proc/self/status").read_text()
    return 1024 * int(text.split("VmHWM:")[1].split()[0])

def forget_peak(): Path("/proc/self/clear_refs").write_text("5")

def work(start, stop, only, place):
    "Read inputs, a line before each and one after it."
    from mmllm.model import MMModel
    from transformers.utils import logging
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    bundle = place/"bundle"
    if not bundle.is_dir(): MMModel.from_preset("tiny", device="cpu").save_pretrained(bundle)
    keep_bases()
    MMModel.from_pretrained(bundle, device="cpu") # so that what is loaded once is there
    inputs = Inputs(only, bundle)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + ROOM, -1))
    for i in range(start, stop):
        kind, name, data = inputs[i]
        if name is None: continue
        print(json.dumps(dict(case=i, kind=kind, name=name)), flush=True)
        forget_peak()
        before, began, fault = peak_memory(), time.process_time(), None
        try: said = read(kind, name, data, bundle, place/"changed")
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)
            ours = [f for f in frame if f"{os.sep}mmllm{os.sep}" in f.filename][-1:] or frame[-1:]
            said, fault = "fault", f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
            where = f"{Path(ours[0].filename).name}, {ours[0].name}"
        used, seconds = peak_memory() - before, time.process_time() - began
        if fault is None and used > MEMORY: fault, where = f"memory: {used/1e9:.1f} GB", said
        if fault is None and seconds > HANG: fault, where = f"time: {seconds:.0f} s", said
        print(json.dumps(dict(said=said, seconds=seconds, used=used, **({"fault": fault, "where": where} if fault else {}))), flush=True)

class Worker:
    "A process that reads inputs; `lines` yields what it prints, None when it has ended, and kills it when it hangs."
    def __init__(self, start, stop, only, place):
        env = {**os.environ, "HF_HUB_OFFLINE": "1", "PIP_NO_INDEX": "1", "OMP_NUM_THREADS": "1",
               "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT/"tools"/"offline"), str(ROOT), os.environ.get("PYTHONPATH")]))}
        command = [sys.executable, __file__, "--worker", "--start", start, "--inputs", stop - start, "--only", ",".join(only), "--place", place]
        self.process = subprocess.Popen([str(o) for o in command], env=env, stdout=subprocess.PIPE, stderr=open(place/"stderr.txt", "w"), text=True)
        self.queue = queue.Queue()
        threading.Thread(target=self.follow, daemon=True).start()

    def follow(self):
        for line in self.process.stdout: self.queue.put(line)
        self.queue.put(None)

    def computed(self):
        try: return sum(psutil.Process(self.process.pid).cpu_times()[:2])
        except psutil.Error: return 0

    def next(self, is_reading):
        "The next line; a hang while reading ends the process."
        began, waited = self.computed(), time.time()
        while True:
            try: return self.queue.get(timeout=1)
            except queue.Empty: pass
            if is_reading and (self.computed() - began > HANG + 1 or time.time() - waited > 30 * HANG):
                self.process.kill()
                return "hang"

# --- the process that watches

class Tally:
    "What came of the inputs."
    def __init__(self): self.said, self.faults, self.slowest, self.largest, self.began = Counter(), {}, (0, None), (0, None), time.time()

    def add(self, about, result):
        self.said[about["kind"], result["said"]] += 1
        self.slowest = max(self.slowest, (result.get("seconds", 0), about["case"]))
        self.largest = max(self.largest, (result.get("used", 0), about["case"]))
        if "fault" in result:
            key = about["kind"], result["fault"].split(":")[0], result["where"]
            if key not in self.faults: print(f"... input {about['case']}, a {about['kind']}: {result['fault']}", flush=True)
            self.faults.setdefault(key, []).append((about, result["fault"]))

    def summary(self):
        count = self.said.total()
        yield f"{count} inputs in {time.time() - self.began:.0f} s"
        for kind in KINDS:
            of_kind = Counter({said: n for (k, said), n in self.said.items() if k == kind})
            if of_kind: yield f"  {kind}: {of_kind.total()}, " + ", ".join(f"{n} {said}" for said, n in of_kind.most_common())
        yield f"slowest: {self.slowest[0]:.1f} s (input {self.slowest[1]}); most memory: {self.largest[0]/1e9:.2f} GB (input {self.largest[1]})"
        for (kind, _, where), found in sorted(self.faults.items(), key=lambda pair: -len(pair[1])):
            about, fault = found[0]
            numbers = ", ".join(str(a["case"]) for a, _ in found[:4])
            yield f"FAULT  {len(found)} x {kind}, in {where}: {fault} (inputs {numbers})"
        yield f"{count - sum(map(len, self.faults.values()))} held, {sum(map(len, self.faults.values()))} did not"
        if self.faults: yield f"again: python tools/fuzz.py --repeat {next(iter(self.faults.values()))[0][0]['case']}"

def watch(args, place):
    "Read all inputs in worker processes; -> Tally"
    tally, at, stop, shown = Tally(), args.start, args.start + args.inputs, time.time()
    until = tally.began + args.minutes * 60 if args.minutes else float("inf")
    while at < stop and time.time() < until:
        worker, about = Worker(at, stop, args.only, place), None
        while (line := worker.next(about is not None)) is not None and time.time() < until:
            if line == "hang":
                tally.add(about, dict(said="fault", fault=f"hang: over {HANG} s", where=about["name"]))
                break
            row = json.loads(line)
            if "case" in row: about = row
            else:
                tally.add(about, row)
                at, about = about["case"] + 1, None
            if time.time() - shown > 60:
                shown = time.time()
                print(f"... {tally.said.total()} inputs, {sum(map(len, tally.faults.values()))} faults", flush=True)
        worker.process.kill()
        code = worker.process.wait()
        if about is None and line is None and at < stop: # it ended by itself, between two inputs
            if code: sys.exit(f"the reading process ended ({code}):\n" + (place/"stderr.txt").read_text()[-3000:])
            break
        if about is not None:
            if line is None: tally.add(about, dict(said="fault", fault=f"end of the process: {code}", where=about["name"]))
            at = about["case"] + 1
    return tally

def repeat(args, place):
    "One input again, in this process."
    sys.path[:0] = [str(ROOT)]
    from mmllm.model import MMModel
    MMModel.from_preset("tiny", device="cpu").save_pretrained(place/"bundle")
    kind, name, data = Inputs(KINDS, place/"bundle")[args.repeat]
    print(f"input {args.repeat}: {len(data)} bytes, a {kind} made from {name}: {data[:40]!r}", flush=True)
    if args.keep:
        args.keep.mkdir(parents=True, exist_ok=True)
        (args.keep/f"{args.repeat}-{Path(name).name.replace(' ', '-')}").write_bytes(data)
    print(read(kind, name, data, place/"bundle", place/"changed"))

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000, help="how many")
    parser.add_argument("--start", type=int, default=0, help="number of the first")
    parser.add_argument("--minutes", type=float, help="stop after so many")
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(KINDS), help="picture, sound, bundle")
    parser.add_argument("--repeat", type=int, help="number of an input")
    parser.add_argument("--keep", type=Path, help="folder for that input")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--place", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if unknown := set(args.only) - set(KINDS): parser.error(f"no kind is called {unknown.pop()}: choose {', '.join(KINDS)}")
    if args.worker: return work(args.start, args.start + args.inputs, args.only, args.place)
    with tempfile.TemporaryDirectory(prefix="mmllm-fuzz-") as place:
        if args.repeat is not None: return repeat(args, Path(place))
        tally = watch(args, Path(place))
    print(*tally.summary(), sep="\n", flush=True)
    return 1 if tally.faults else 0

if __name__ == "__main__": sys.exit(main())
