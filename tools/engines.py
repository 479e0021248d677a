"""Engines side by side, interleaved in one run; prints the tables of nbs/12_export/04_llama_engine.ipynb.

    python tools/engines.py lite speed --threads 1
    python tools/engines.py lite replies
    python tools/engines.py lite together
"""
import argparse, statistics, time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import repeat
import httpx2 as httpx
import torch
import xllamacpp
from mmllm.chat import Engine, GenerationSettings, Turn
from mmllm.data import coco128, load_annotations, text_questions, validation_photos
from mmllm.evaluation import cider
from mmllm.export.llama_cpp import cached_gguf
from mmllm.model import MMModel
from mmllm.serve import running_server

PICTURE, STORY = "Describe this picture in one sentence.", "Tell me a long story about a dog, a cat and a boat. " * 8
NEW = 32

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

def never_ending(model):
    "A model whose replies have no end but `max_new_tokens`, so that all are of one length."
    model.language.generation_config.eos_token_id = [model.language.config.vocab_size - 1]
    return model

def by_generate(model):
    "Replies as `ask` makes them: function of (text, tokens of the reply)."
    def write(text, new): assert model.generate(**model.processor(ask(text)), max_new_tokens=new).shape[1] == new
    return write

def by_chat(model):
    "Replies as the chat makes them."
    engine = Engine(model)
    def write(text, new):
        told = {}
        engine.stream_reply(text, [Turn(text)], GenerationSettings(max_new_tokens=new),
                            lambda kind, value: told.update(value) if kind == "stats" else None, lambda: False)
        assert told["reply_tokens"] == new
    return write

def by_server(model, address):
    "Replies as a client of the server gets them, streamed."
    def write(text, new):
        asked = dict(messages=[dict(role="user", content=text)], max_tokens=new, stream=True, temperature=0)
        with httpx.stream("POST", f"{address}/v1/chat/completions", json=asked, timeout=600) as response:
            assert any('"length"' in line for line in list(response.iter_lines()))
    return write

def by_own_server(file, threads):
    "Replies by llama.cpp's own server, C++ throughout, on the same file."
    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.n_parallel, params.n_batch = str(file), 4096, 1, 256
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    server = xllamacpp.Server(params)
    def write(text, new): server.handle_completions(dict(prompt=text, n_predict=new, temperature=0., ignore_eos=True, cache_prompt=False))
    return write

def rates(write, clock, tokens):
    "(tokens read, tokens written) a second; the text is another one each time, so that nothing is known."
    def seconds(new):
        began = clock()
        write(f"{time.time_ns()} {STORY}", new)
        return clock() - began
    reading, all_of_it = seconds(1), seconds(NEW + 1)
    return tokens / reading, NEW / (all_of_it - reading)

def speed(bundle, rounds, threads):
    "The table of speeds. One thread is timed in seconds of the processor, which other programs disturb less; two by the clock."
    clock = time.process_time if threads == 1 else time.perf_counter
    torch.set_num_threads(threads)
    models = {name: never_ending(loaded(bundle, name)) for name in ("torch, bfloat16", "torch, float32", "llama.cpp, F16", "llama.cpp, Q8_0")}
    for model in models.values(): model.generate(**model.processor(ask("Hi")), max_new_tokens=4) # to warm up
    plain = models["torch, float32"]
    tokens = plain.processor(ask(f"{time.time_ns()} {STORY}"))["input_ids"].shape[1]
    writers = {f"{name}, generate": by_generate(model) for name, model in models.items()}
    with ExitStack() as stack:
        for name in ("torch, bfloat16", "llama.cpp, F16"):
            writers[f"{name}, chat"] = by_chat(models[name])
            writers[f"{name}, server"] = by_server(models[name], stack.enter_context(running_server(Engine(models[name]))))
        for kind in ("F16", "Q8_0"): writers[f"llama.cpp's own server, {kind}"] = by_own_server(cached_gguf(plain, kind), threads)
        found = {name: [] for name in writers}
        for _ in range(rounds):
            for name, write in writers.items():
                one = rates(write, clock, tokens)
                found[name].append(one)
    print(f"| engine, by which way, {threads} threads, {tokens} tokens read, {NEW} written | read a second | written a second |\n|---|---|---|")
    for name, rows in found.items(): print(f"| {name} |", " | ".join(f"{statistics.median(column):.0f}" for column in zip(*rows)), "|", flush=True)

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
        print(f"| {name} | {sum(same[:len(photos)])} of {len(photos)} | {sum(same[len(photos):])} of {texts} | {score:.1f} |", flush=True)

def together(bundle, texts):
    "How many replies of llama.cpp are the same alone and among others, greedy and drawn by a seed."
    model, asked = loaded(bundle, "llama.cpp, F16"), [ask(question) for question, _ in text_questions()[:texts]]
    def reply(n, options):
        with model.seeded(n): return model.reply(asked[n], max_new_tokens=40, **options)
    for name, options in {"greedy": {}, "temperature 1": dict(do_sample=True, temperature=1., top_k=0)}.items():
        alone = [reply(n, options) for n in range(len(asked))]
        with ThreadPoolExecutor(16) as pool: beside = list(pool.map(reply, range(len(asked)), repeat(options)))
        print(f"{name}: {sum(a == b for a, b in zip(alone, beside))} of {len(asked)} replies are the same among 15 others", flush=True)

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("table", choices=("speed", "replies", "together"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--photos", type=int, default=28, help="of COCO128's validation photos")
    parser.add_argument("--texts", type=int, default=20)
    args = parser.parse_args()
    if args.table == "speed": speed(args.bundle, args.rounds, args.threads)
    elif args.table == "together": together(args.bundle, args.texts)
    else: replies(args.bundle, args.photos, args.texts)

if __name__ == "__main__": main()
