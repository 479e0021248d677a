"""Runs the whole `full` path in its real size on a CPU, with random weights: what breaks, how long it takes, how much memory it needs.

    python tools/real_size.py FOLDER                     every station, each in a process of its own
    python tools/real_size.py FOLDER load align          these

What `mmllm plan` predicts for as much work stands beside what was measured. A station's peak is its resident memory, weights that are mapped from files among it. Only of `load` is it
what the process has to itself and CLIP's weights: the shards of Phi are mapped there too, and the system takes them back when it likes.

FOLDER gets local folders as the Hub has them (CLIP-L/14-336, Whisper small, Phi-3.5-mini in bfloat16 shards; 10.3 GB), ten data sets that
are drawn, the run, and `stations.json`. A station that is in there is not run again. Nothing is downloaded, and nothing is learned.
"""
import argparse, json, os, resource, shutil, subprocess, sys, threading, time
from pathlib import Path
os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "PIP_NO_INDEX": "1"}
from notebooks import ROOT
sys.path.insert(0, str(ROOT))

SHARD_GB = 5 # as `save_pretrained` cuts
WORK = dict(pictures=2, positions=418, learned=60, sounds=5, seconds=3., tokens=20) # what the stations have to do at a time
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
    "One safetensors file, a tensor at a time."
    import torch
    size, kind, header, at = torch.finfo(dtype).bits // 8, {torch.bfloat16: "BF16", torch.float32: "F32"}[dtype], {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shapes.items():
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [at, at + shape.numel() * size]}
        at += shape.numel() * size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shapes.items():
            values = torch.ones(shape) if len(shape) < 2 and "norm" in name and name.endswith("weight") else torch.zeros(shape) if name.endswith("bias") else torch.randn(shape) * .02
            file.write(values.to(dtype).contiguous().view(-1).view(torch.uint8).numpy().tobytes())

def make(folder):
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
    (folder/"phi"/"config.json").write_text(json.dumps(phi_config(tokenizer), indent=1))
    ends = tokenizer.convert_tokens_to_ids(["<|end|>", "<|assistant|>", "<|endoftext|>"])
    GenerationConfig(bos_token_id=tokenizer.bos_token_id, pad_token_id=tokenizer.pad_token_id, eos_token_id=ends).save_pretrained(folder/"phi")
    write_shards(Phi3ForCausalLM, AutoConfig.from_pretrained(folder/"phi"), folder/"phi", torch.bfloat16)
    write_example_sets(folder/"data", 20)

def phi_config(tokenizer):
    "The fields of Phi-3.5-mini's config.json; its factors of longrope are a line of the same length and ends."
    short, long = ([round(first * (last / first) ** (i / 47), 4) for i in range(48)] for first, last in ((1., 2.8), (1.08, 64.)))
    ids = dict(bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    return dict(
        architectures=["Phi3ForCausalLM"], model_type="phi3", attention_bias=False, attention_dropout=0., embd_pdrop=0., resid_pdrop=0., hidden_act="silu",
        auto_map={"AutoConfig": "configuration_phi3.Phi3Config", "AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM"},
        hidden_size=3072, intermediate_size=8192, num_attention_heads=32, num_hidden_layers=32, num_key_value_heads=32, vocab_size=32064,
        initializer_range=.02, max_position_embeddings=131072, original_max_position_embeddings=4096, rms_norm_eps=1e-5, sliding_window=262144,
        rope_scaling={"long_factor": long, "short_factor": short, "type": "longrope"}, rope_theta=10000., tie_word_embeddings=False,
        torch_dtype="bfloat16", transformers_version="4.43.3", use_cache=True, **ids)

def preset(folder, language="phi-nf4"):
    "`full`, with the local folders."
    from mmllm.core import get_preset
    return get_preset("full", vision=str(folder/"clip"), audio=str(folder/"whisper"), language=str(folder/language))

def load(folder):
    "As `mmllm train` loads it. Its NF4 weights are kept for the stations after it: to quantise takes a CPU minutes each time."
    from mmllm.model import MMModel
    model = MMModel.from_preset(preset(folder, "phi"), device="cpu")
    note(folder, "load")
    model.language.unload().save_pretrained(folder/"phi-nf4")
    model.processor.tokenizer.save_pretrained(folder/"phi-nf4")

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
                print("a batch:", {key: tuple(value.shape) for key, value in batch.items() if hasattr(value, "shape")}, flush=True)
                return batch
            made.collate = shown
            return made
    if stage.startswith("listen"): return Quick(str(folder/"data"/"common_voice"), validation=.2, max_rows=6)
    rows, share = (3, .34) if stage == "clip" else (2, .5)
    return Quick(str(folder/"data"/"captions"), validation=share, max_rows=rows)

def train(folder, stage, epochs=1):
    "One step, with its validation and its checkpoint; then the bundle."
    from mmllm.training import train_recipe
    train_recipe(stage, preset(folder), folder/"run", epochs=epochs, data=recipe(folder, stage))

def interrupted(folder):
    "The first of two steps of `align`; then the process ends as if it were killed."
    def watch():
        while not list((folder/"run"/"checkpoints"/"align").glob("checkpoint-1")): time.sleep(.1)
        note(folder, "align, interrupted")
        os._exit(0)
    threading.Thread(target=watch, daemon=True).start()
    train(folder, "align", 2)

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

STATIONS = {
    "make": make, "load": load, "save": save, "clip": lambda folder: train(folder, "clip"),
    "align, interrupted": interrupted, "align": lambda folder: train(folder, "align", 2),
    **{stage: lambda folder, stage=stage: train(folder, stage) for stage in STAGES[2:]},
    "talk, 4 bits": lambda folder: talk(folder, four_bit=True), "talk": talk,
}

def measured(folder):
    file = folder/"stations.json"
    return json.loads(file.read_text()) if file.is_file() else {}

def note(folder, name):
    "Write down what a station took."
    mapped = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    about = {"seconds": round(time.time() - BEGAN), "own_gib": round(PEAK.most / 2**30, 2), "resident_gib": round(mapped, 2)}
    (folder/"stations.json").write_text(json.dumps(measured(folder) | {name: about}, indent=1))
    print(name, about, flush=True)

def show(folder):
    "Every station: seconds, GiB that it had to itself, GiB of resident memory, GiB that were predicted."
    from mmllm.core import plan
    from mmllm.training.memory import Work, plan_memory
    planned = plan_memory(plan("full", "cpu"), Work(**WORK))
    print(f"{'':20}{'seconds':>8}{'own':>8}{'resident':>10}{'planned':>9}")
    for name, about in measured(folder).items():
        predicted = planned.get(name.split(", i")[0], float("nan"))
        print(f"{name:20}{about['seconds']:8}{about['own_gib']:8.2f}{about['resident_gib']:10.2f}{predicted:9.2f}")

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("stations", nargs="*", help=", ".join(STATIONS))
    parser.add_argument("--here", action="store_true", help="in this process: one station only")
    parser.add_argument("--again", action="store_true", help="those too that were measured")
    args = parser.parse_args()
    folder = args.folder.resolve()
    os.environ["MMLLM_CACHE"] = str(folder/"cache")
    if args.here:
        BEGAN, PEAK = time.time(), Peak()
        PEAK.start()
        STATIONS[args.stations[0]](folder)
        if args.stations[0] != "load": note(folder, args.stations[0])
        sys.exit()
    for name in args.stations or STATIONS:
        if name in measured(folder) and not args.again: continue
        subprocess.run([sys.executable, __file__, str(folder), name, "--here"], check=True)
    show(folder)
