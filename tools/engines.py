"""Engines side by side, interleaved in one run; prints the tables of nbs/12_export/03_llama_cpp.ipynb.

    python tools/engines.py lite speed
    python tools/engines.py lite replies
"""
import argparse, statistics, time
import httpx2 as httpx
import torch
import xllamacpp
from mmllm.chat import Engine, GenerationSettings, Turn
from mmllm.data import coco128, load_annotations, text_questions, validation_photos
from mmllm.evaluation import cider
from mmllm.export.llama_cpp import cached_gguf
from mmllm.model import MMModel
from mmllm.serve import running_server

PICTURE, STORY = "Describe this picture in one sentence.", "Tell me a long story about a dog, a cat and a boat. " * 24
NEW = 48

def ask(text, *images):
    "A conversation of one question."
    parts = [{"type": "image", "image": image} for image in images]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]

def loaded(bundle, engine):
    "A model whose replies an engine writes: `torch, bfloat16`, `torch, float32`, or `llama.cpp, F16`."
    name, numbers = engine.split(", ")
    dtype = getattr(torch, numbers) if name == "torch" else torch.float32
    model = MMModel.from_pretrained(bundle, device="cpu", dtype=dtype)
    return model if name == "torch" else model.use_backend(name, quantize=numbers)

def seconds(model, batch, new):
    "How long a reply of so many tokens takes."
    began = time.perf_counter()
    ids = model.generate(**batch, max_new_tokens=new, min_new_tokens=new)
    assert ids.shape[1] == new
    return time.perf_counter() - began

def rates(model, batch):
    "(rows read, tokens written) a second."
    reading, all_of_it = seconds(model, batch, 1), seconds(model, batch, NEW + 1)
    return batch["input_ids"].shape[1] / reading, NEW / (all_of_it - reading)

def own_server(file, threads):
    "llama.cpp's own server on the same file, in C++ throughout: a function that gives its own rates."
    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.n_parallel, params.n_batch = str(file), 4096, 1, 256
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    server = xllamacpp.Server(params)
    def measure():
        "(tokens read, tokens written) a second, by its own clock."
        asked = dict(prompt=STORY, n_predict=NEW + 1, temperature=0., ignore_eos=True, cache_prompt=False)
        timings = server.handle_completions(asked)["timings"]
        return timings["prompt_per_second"], timings["predicted_per_second"]
    return measure

def in_chat(model):
    "Tokens a second that the chat tells of a reply."
    told = []
    settings = GenerationSettings(max_new_tokens=NEW)
    def note(kind, value):
        "Keep what is told."
        if kind == "stats" and "tokens_per_second" in value: told.append(value)
    Engine(model).stream_reply("one", [Turn(STORY[:520])], settings, note, lambda: False)
    return told[-1]["tokens_per_second"] if told[-1]["reply_tokens"] > 8 else float("nan")

def in_server(model):
    "Tokens a second that a client of the server sees after the first."
    request = dict(model="", messages=[dict(role="user", content=STORY[:520])], max_tokens=NEW, stream=True,
                   stream_options=dict(include_usage=True), temperature=0)
    times = []
    with running_server(Engine(model)) as address:
        with httpx.stream("POST", f"{address}/v1/chat/completions", json=request, timeout=600) as response:
            lines = [(time.perf_counter(), line) for line in response.iter_lines() if '"content"' in line or '"usage":{' in line]
    import json
    usage = json.loads(lines[-1][1].removeprefix("data: "))["usage"]
    times = [at for at, line in lines if '"content"' in line]
    return (usage["completion_tokens"] - 1) / (times[-1] - times[0])

def speed(bundle, rounds):
    "The table of speeds."
    engines = ["torch, bfloat16", "torch, float32", "llama.cpp, F16", "llama.cpp, Q8_0"]
    files = {name: cached_gguf(loaded(bundle, "torch, float32"), name) for name in ("F16", "Q8_0")}
    print("| engine | threads | rows read a second | tokens a second | in the chat | in the server |\n|---|---|---|---|---|---|")
    for threads in (1, 2):
        torch.set_num_threads(threads)
        models = {name: loaded(bundle, name) for name in engines}
        own = {f"llama.cpp's server, {name}": own_server(file, threads) for name, file in files.items()}
        batch = models[engines[0]].processor(ask(STORY))
        found = {name: [] for name in (*models, *own)}
        for _ in range(rounds):
            for name, model in models.items(): found[name].append((*rates(model, batch), in_chat(model), in_server(model)))
            for name, measure in own.items(): found[name].append(measure())
        for name, rows in found.items():
            cells = [f"{statistics.median(column):.0f}" for column in zip(*rows)]
            print(f"| {name} | {threads} |", " | ".join([*cells, "", ""][:4]), "|", flush=True)

def replies(bundle, photos, texts):
    "The table of replies."
    photos, notes = validation_photos(coco128())[:photos], load_annotations()
    asked = [ask(PICTURE, photo.path) for photo in photos] + [ask(question) for question, _ in text_questions()[:texts]]
    print("| engine | same replies about photos | same replies to texts | CIDEr |\n|---|---|---|---|")
    reference = None
    for name in ("torch, float32", "torch, bfloat16", "llama.cpp, F16", "llama.cpp, Q8_0", "llama.cpp, Q4_1"):
        model = loaded(bundle, name)
        said = [model.reply(talk, max_new_tokens=40) for talk in asked]
        reference = reference or said
        same = [a == b for a, b in zip(said, reference)]
        captions = [notes[photo.name]["captions"] for photo in photos]
        score = cider(said[:len(photos)], captions)
        print(f"| {name} | {sum(same[:20])} of 20 | {sum(same[len(photos):])} of {texts} | {score:.1f} |", flush=True)

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("table", choices=("speed", "replies"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--photos", type=int, default=28, help="of COCO128's validation photos")
    parser.add_argument("--texts", type=int, default=20)
    args = parser.parse_args()
    if args.table == "speed": speed(args.bundle, args.rounds)
    else: replies(args.bundle, args.photos, args.texts)

if __name__ == "__main__": main()
