"""Runs the whole `full` path in its real size on a CPU, with random weights: what breaks, how long it takes, how much memory it needs.

    python tools/real_size.py FOLDER                     every station, each in a process of its own
    python tools/real_size.py FOLDER load align          these

What `mmllm plan` predicts for as much work stands beside what was measured. A station needs what its process has to itself at most, its libraries, and those of its tensors that are mapped from files.
Resident are more: the shards of Phi stay mapped when nobody needs them any more, until the system takes them back.

FOLDER gets local folders as the Hub has them (CLIP-L/14-336, Whisper small, Phi-3.5-mini in bfloat16 shards; 10.3 GB), ten data sets that
are drawn, the run, and `stations.json`. A station that is in there is not run again. Nothing is downloaded, and nothing is learned.
"""
import argparse, gc, json, math, os, re, resource, shutil, subprocess, sys, threading, time
from pathlib import Path
os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "PIP_NO_INDEX": "1"}
from notebooks import ROOT
sys.path.insert(0, str(ROOT))

SHARD_GB = 5 # as `save_pretrained` cuts
WORK, MAPPED = {}, 0 # what a station had to do at a time; bytes of its tensors that lie in files, and of its libraries
STAGES = ("clip", "align", "tune", "listen-asr", "listen")

class Peak(threading.Thread):
    "The most memory that this process had to itself: what is mapped from files, the system can take back."
    def __init__(self):
        super().__init__(daemon=True)
        self.most, self.pages = 0, os.sysconf("SC_PAGE_SIZE")

    def run(self):
        while True:
            _, all_pages, of_files, *_ = map(int, Path("/proc/self/statm").read_text().split())
            self.most = max(self.most, (all_pages - of_files) * self.pages)
            time.sleep(.01)

def mapped_bytes():
    "Bytes of the tensors that are mapped from files of weights."
    import torch
    spans, found = [], {}
    for line in Path("/proc/self/maps").read_text().splitlines():
        if ".safetensors" in line: spans.append([int(end, 16) for end in line.split()[0].split("-")])
    for each in gc.get_objects():
        if issubclass(type(each), torch.Tensor) and each.device.type == "cpu" and any(start <= each.data_ptr() < end for start, end in spans):
            found[each.data_ptr()] = each.nbytes
    return sum(found.values())

def program_bytes():
    "Bytes of programs and libraries that are resident."
    total, counts = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        key, *values = line.split()
        if not key.endswith(":"): counts = values[-1].startswith("/") and not values[-1].endswith(".safetensors")
        elif counts and key == "Rss:": total += int(values[0]) * 2**10
        elif counts and key == "Anonymous:": total -= int(values[0]) * 2**10
    return total

def weigh(batch):
    "Keep how much is done at a time, and what is mapped meanwhile."
    global MAPPED
    MAPPED = max(MAPPED, mapped_bytes() + program_bytes())
    counts, talk = {}, batch.get("spoken", batch)
    pictures = batch.get("pixel_values", batch.get("image_features"))
    if pictures is not None: counts["pictures"] = len(pictures)
    if "input_ids" in talk: counts |= {"positions": talk["input_ids"].numel(), "learned": int((batch["label_counts"] > 0).sum() if talk is batch else (talk["labels"] != -100).sum())}
    if "mel" in batch: counts |= {"sounds": len(batch["mel"]), "seconds": batch["mel"].shape[2] / 100, "tokens": batch["tokens"].shape[1]}
    for name, count in counts.items(): WORK[name] = max(count, WORK.get(name, 0))

def write_shards(model_class, config, folder, dtype):
    "Random weights of a model that is never in memory, as safetensors files."
    import torch
    with torch.device("meta"): model = model_class._from_config(config)
    tied = set(model._tied_weights_keys or ()) if getattr(config, "tie_word_embeddings", False) else set()
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items() if name not in tied}
    size, shards, used = torch.finfo(dtype).bits // 8, [[]], 0
    for name, shape in shapes.items():
        count = shape.numel() * size
        if used + count > SHARD_GB * 1e9:
            shards.append([])
            used = 0
        shards[-1].append(name)
        used += count
    files = [f"model-{i:05}-of-{len(shards):05}.safetensors" for i in range(1, len(shards) + 1)] if len(shards) > 1 else ["model.safetensors"]
    for file, names in zip(files, shards): write_shard(folder/file, {name: shapes[name] for name in names}, dtype)
    if len(shards) > 1:
        index = {"metadata": {"total_size": sum(s.numel() for s in shapes.values()) * size}, "weight_map": {name: file for file, names in zip(files, shards) for name in names}}
        (folder/"model.safetensors.index.json").write_text(json.dumps(index))

def write_shard(path, shapes, dtype):
    "One safetensors file of random weights."
    import torch
    def draw(name, shape):
        values = torch.ones(shape) if len(shape) < 2 and "norm" in name and name.endswith("weight") else torch.zeros(shape) if name.endswith("bias") else torch.randn(shape) * .02
        return values.to(dtype)
    write_tensors(path, {name: (dtype, tuple(shape), lambda name=name, shape=shape: draw(name, shape)) for name, shape in shapes.items()})

def write_tensors(path, tensors):
    "A safetensors file of {name: (dtype, shape, a function that makes the tensor)}, a tensor at a time."
    import torch
    header, at, kinds = {"__metadata__": {"format": "pt"}}, 0, {torch.bfloat16: "BF16", torch.float32: "F32", torch.uint8: "U8"}
    for name, (dtype, shape, _) in tensors.items():
        end = at + dtype.itemsize * math.prod(shape)
        header[name] = {"dtype": kinds[dtype], "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, _, make_tensor in tensors.values(): file.write(make_tensor().contiguous().view(-1).view(torch.uint8).numpy().tobytes())

def nf4_tensors(name, shape, sample):
    "A matrix in NF4 as transformers saves it: a small random one over and over."
    import torch
    rows, columns = shape
    def over_and_over(part, count): return lambda: part.repeat(-(-count // len(part)))[:count]
    about = json.loads(bytes(sample["weight.quant_state.bitsandbytes__nf4"].tolist())) | {"shape": [rows, columns]}
    about = torch.tensor(list(json.dumps(about).encode()), dtype=torch.uint8)
    sizes = {"weight": rows * columns // 2, "weight.absmax": rows * columns // 64, "weight.nested_absmax": -(-rows * columns // (64 * 256))}
    made = {f"{name}.{key}": (sample[key].dtype, (size, 1) if key == "weight" else (size,), over_and_over(sample[key].view(-1), size)) for key, size in sizes.items()}
    for key in ("weight.quant_map", "weight.nested_quant_map"): made[f"{name}.{key}"] = torch.float32, tuple(sample[key].shape), lambda key=key: sample[key]
    return made | {f"{name}.weight.quant_state.bitsandbytes__nf4": (torch.uint8, tuple(about.shape), lambda: about)}

def write_nf4(folder):
    "`phi-nf4`, random as well, as `Phi3ForCausalLM` in NF4 is saved: to quantise the real size takes a CPU minutes each time."
    import torch
    from bitsandbytes.nn import Linear4bit
    from transformers import AutoConfig, Phi3ForCausalLM
    from mmllm.language import LORA_TARGETS, _nf4
    shutil.copytree(folder/"phi", folder/"phi-nf4", ignore=shutil.ignore_patterns("*.safetensors*"), dirs_exist_ok=True)
    config = json.loads((folder/"phi"/"config.json").read_text()) | {"torch_dtype": "float32", "quantization_config": _nf4(torch.float32).to_dict()}
    (folder/"phi-nf4"/"config.json").write_text(json.dumps(config, indent=1))
    small = Linear4bit(1024, 1024, bias=False, compress_statistics=True, quant_type="nf4").to("cpu")
    sample, tensors = small.state_dict(), {}
    with torch.device("meta"): model = Phi3ForCausalLM._from_config(AutoConfig.from_pretrained(folder/"phi"))
    for name, weight in model.state_dict().items():
        layer = name.removesuffix(".weight")
        if re.fullmatch(LORA_TARGETS, layer): tensors |= nf4_tensors(layer, tuple(weight.shape), sample)
        else: tensors[name] = torch.float32, tuple(weight.shape), lambda shape=weight.shape: torch.ones(shape) if len(shape) < 2 else torch.randn(shape) * .02
    write_tensors(folder/"phi-nf4"/"model.safetensors", tensors)

def make(folder, layers=32):
    "Three folders of weights in the shapes of the Hub's, and ten data sets."
    import torch
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, GenerationConfig, Phi3ForCausalLM, WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration
    from transformers import AutoConfig
    from mmllm.data.examples import write_example_sets
    from mmllm.weights import tiny
    from mmllm.weights.whisper import whisper_generation_config, whisper_special_ids
    torch.manual_seed(0)
    for name in ("clip", "whisper", "phi"): (folder/name).mkdir(parents=True, exist_ok=True)

    tokenizer = tiny._tiny_clip_tokenizer()
    ids = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("bos", "eos", "pad")}
    text = dict(vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, max_position_embeddings=77, projection_dim=768, **ids)
    vision = dict(image_size=336, patch_size=14, hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, projection_dim=768)
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=768)
    for piece in (tokenizer, CLIPImageProcessorPil(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336}), config): piece.save_pretrained(folder/"clip")
    write_shards(CLIPModel, config, folder/"clip", torch.float32)

    tokenizer = tiny._tiny_whisper_tokenizer()
    sides = {f"{side}_{key}": value for side in ("encoder", "decoder") for key, value in dict(layers=12, attention_heads=12, ffn_dim=3072).items()}
    config = WhisperConfig(vocab_size=51865, d_model=768, **sides, **whisper_special_ids(tokenizer))
    suppress = tokenizer.convert_tokens_to_ids(["<|startoflm|>", "<|startofprev|>", "<|nospeech|>"])
    generation = whisper_generation_config(tokenizer, suppress, [(1, 0)], multilingual=True)
    for piece in (tokenizer, WhisperFeatureExtractor(80), config, generation): piece.save_pretrained(folder/"whisper")
    write_shards(WhisperForConditionalGeneration, config, folder/"whisper", torch.float32)

    tokenizer = tiny._tiny_phi3_tokenizer()
    tokenizer.save_pretrained(folder/"phi")
    (folder/"phi"/"config.json").write_text(json.dumps(phi_config(tokenizer, layers), indent=1))
    ends = tokenizer.convert_tokens_to_ids(["<|end|>", "<|assistant|>", "<|endoftext|>"])
    GenerationConfig(bos_token_id=tokenizer.bos_token_id, pad_token_id=tokenizer.pad_token_id, eos_token_id=ends).save_pretrained(folder/"phi")
    write_shards(Phi3ForCausalLM, AutoConfig.from_pretrained(folder/"phi"), folder/"phi", torch.bfloat16)
    write_nf4(folder)
    write_example_sets(folder/"data", 20)

def phi_config(tokenizer, layers):
    "The fields of Phi-3.5-mini's config.json; its factors of longrope are a line of the same length and ends."
    short, long = ([round(first * (last / first) ** (i / 47), 4) for i in range(48)] for first, last in ((1., 2.8), (1.08, 64.)))
    ids = dict(bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    return dict(
        architectures=["Phi3ForCausalLM"], model_type="phi3", attention_bias=False, attention_dropout=0., embd_pdrop=0., resid_pdrop=0., hidden_act="silu",
        auto_map={"AutoConfig": "configuration_phi3.Phi3Config", "AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM"},
        hidden_size=3072, intermediate_size=8192, num_attention_heads=32, num_hidden_layers=layers, num_key_value_heads=32, vocab_size=32064,
        initializer_range=.02, max_position_embeddings=131072, original_max_position_embeddings=4096, rms_norm_eps=1e-5, sliding_window=262144,
        rope_scaling={"long_factor": long, "short_factor": short, "type": "longrope"}, rope_theta=10000., tie_word_embeddings=False,
        torch_dtype="bfloat16", transformers_version="4.43.3", use_cache=True, **ids)

def preset(folder, language="phi-nf4", **eyes):
    "`full`, with the local folders."
    from mmllm.core import get_preset
    return get_preset("full", vision=str(folder/"clip"), audio=str(folder/"whisper"), language=str(folder/language), **eyes)

def load(folder):
    "As `mmllm train` loads it from the Hub's shards, to NF4. The stations after it load what is in NF4 already."
    from mmllm.model import MMModel
    model = MMModel.from_preset(preset(folder, "phi"), device="cpu")
    weigh({})
    del model

def save(folder):
    "A bundle of a model that has learned nothing."
    from mmllm.model import MMModel
    MMModel.from_preset(preset(folder), device="cpu").save_pretrained(folder/"run"/"fresh")

def recipe(folder, stage):
    "Enough records for one step of a stage, and one or two to say when to stop."
    from mmllm.training import DatasetRecipe
    class Quick(DatasetRecipe):
        "`tune` without the turns that the model has to say by itself first: 64 replies."
        def stage(self, name, preset, **changes):
            made = super().stage(name, preset, **changes | ({"text": 0} if name == "tune" else {}))
            collate = made.collate
            def shown(model, examples):
                batch = collate(model, examples)
                weigh(batch)
                return batch
            made.collate = shown
            return made
    if stage.startswith("listen"): return Quick(str(folder/"data"/"common_voice"), validation=.2, max_rows=6)
    rows, share = (3, .34) if stage == "clip" else (2, .5)
    return Quick(str(folder/"data"/("large" if stage == "tiles" else "captions")), validation=share, max_rows=rows)

def train(folder, stage, **options):
    "One step, with its validation and its checkpoint; then the bundle."
    from mmllm.training import train_recipe
    train_recipe(stage, preset(folder), folder/"run", data=recipe(folder, stage), **{"epochs": 1} | options)

TWO_STEPS = dict(epochs=2, batch_size=1)
TILES = {"align, four tiles": dict(max_tiles=4), "align, LLaVA's projector": dict(projector="llava"), "align, LLaVA's projector, four tiles": dict(projector="llava", max_tiles=4)}

def tiled(folder, name):
    "`align` from the start in a folder of its own, with pictures so large that they are cut."
    from PIL import Image
    from mmllm.training import train_recipe
    shutil.copytree(folder/"data"/"captions", folder/"data"/"large", dirs_exist_ok=True)
    for path in (folder/"data"/"large").rglob("*.png"):
        with Image.open(path) as picture: picture.convert("RGB").resize((1000, 1000)).save(path)
    out = folder/"run"/name.replace(" ", "-").replace(",", "").replace("'", "")
    eyes = preset(folder, **TILES[name])
    train_recipe("align", eyes, out, data=recipe(folder, "tiles"), **TWO_STEPS)

def interrupted(folder):
    "The first of two steps of `align`; then the process ends as if it were killed."
    def watch():
        while not list((folder/"run"/"checkpoints"/"align").glob("checkpoint-*")): time.sleep(.1)
        note(folder, "align, interrupted")
        os._exit(0)
    threading.Thread(target=watch, daemon=True).start()
    train(folder, "align", **TWO_STEPS)

def talk(folder, **options):
    "The last bundle replies to a photo and to a sound; with plain weights, those that the NF4 was made of."
    from mmllm.data.examples import draw_shape, make_tone
    from mmllm.model import MMModel
    began, bundle = time.time(), [folder/"run"/stage for stage in ("fresh", *STAGES) if (folder/"run"/stage/"config.json").is_file()][-1]
    if not options:
        bundle = shutil.copytree(bundle, folder/"run"/"plain", dirs_exist_ok=True)
        config = json.loads((bundle/"config.json").read_text())
        config["bases"].pop("language")
        (bundle/"config.json").write_text(json.dumps(config | {"language": str(folder/"phi")}))
    model = MMModel.from_pretrained(bundle, device="cpu", **options)
    model.processor.audio_mode = "tokens" # a random Whisper would transcribe for ever
    print(f"loaded in {time.time() - began:.0f} s")
    for kind, (content, _) in (("image", draw_shape(0)), ("audio", make_tone(0))):
        began = time.time()
        reply = model.reply([{"role": "user", "content": [{"type": kind, kind: content}, {"type": "text", "text": "What is this?"}]}], max_new_tokens=4)
        print(f"{kind}: {reply!r} in {time.time() - began:.0f} s")
    weigh({})

STATIONS = {
    "make": lambda folder: make(folder, args.layers), "load": load, "save": save, "clip": lambda folder: train(folder, "clip"),
    "align, interrupted": interrupted, "align": lambda folder: train(folder, "align", **TWO_STEPS),
    **{name: lambda folder, name=name: tiled(folder, name) for name in TILES},
    **{stage: lambda folder, stage=stage: train(folder, stage) for stage in STAGES[2:]},
    "talk, 4 bits": lambda folder: talk(folder, four_bit=True), "talk": talk,
}

def measured(folder):
    file = folder/"stations.json"
    return json.loads(file.read_text()) if file.is_file() else {}

def note(folder, name):
    "Write down what a station took."
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 2**10
    about = {"seconds": round(time.time() - BEGAN), "processor": round(time.process_time()), "work": WORK}
    for key, size in (("own", PEAK.most), ("need", PEAK.most + MAPPED), ("resident", resident)): about[f"{key}_gib"] = round(size / 2**30, 2)
    (folder/"stations.json").write_text(json.dumps(measured(folder) | {name: about}, indent=1))
    print(name, about, flush=True)

def show(folder):
    "Every station: seconds, seconds of the processor, GiB that it had to itself, that it needed, that were resident, that were predicted."
    from mmllm.core import plan
    from mmllm.training.memory import Work, plan_memory
    heads = ("seconds", "processor", "own", "need", "resident", "planned", "error")
    print(f"{'':20}" + "".join(f"{head:>10}" for head in heads))
    for name, about in measured(folder).items():
        shape = plan(preset(folder, "phi", **TILES.get(name, {})), "cpu")
        station = name if name.startswith("talk") else name.split(",")[0]
        planned = plan_memory(shape, Work(**about["work"] | {"words": 0})).get(station, float("nan"))
        sizes = [about[f"{key}_gib"] for key in ("own", "need", "resident")] + [planned]
        print(f"{name:20}{about['seconds']:10}{about['processor']:10}" + "".join(f"{size:10.2f}" for size in sizes) + f"{planned / about['need_gib'] - 1:10.0%}")

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("stations", nargs="*", help=", ".join(STATIONS))
    parser.add_argument("--layers", type=int, default=32, help="of Phi: with 2 every station but `talk` takes two minutes, and what it adds to the weights is nearly the same")
    parser.add_argument("--here", action="store_true", help="in this process: one station only")
    parser.add_argument("--again", action="store_true", help="those too that were measured")
    args = parser.parse_args()
    folder = args.folder.resolve()
    os.environ["MMLLM_CACHE"] = str(folder/"cache")
    if args.here:
        BEGAN, PEAK = time.time(), Peak()
        PEAK.start()
        STATIONS[args.stations[0]](folder)
        note(folder, args.stations[0])
        sys.exit()
    for name in args.stations or STATIONS:
        if name in measured(folder) and not args.again: continue
        subprocess.run([sys.executable, __file__, str(folder), name, "--here", "--layers", str(args.layers)], check=True)
    show(folder)
