"""Runs the GGUF exports of a bundle in llama.cpp and compares them with torch; prints the table of nbs/12_export/01_gguf.ipynb.

    mmllm export gguf --model lite --out runs/gguf --quantize F16 Q8_0 Q4_1
    pip install --no-deps --target runs/cpp xllamacpp==2026.10.11549 llama-cpp-py-sync==0.11548
    PYTHONPATH=runs/cpp python tools/llamacpp.py lite runs/gguf

Both stand beside the project, not in it, for only this script needs them: xllamacpp carries llama.cpp ready compiled, the other package
the declarations of its functions (of the build before, b11548), which xllamacpp does not offer.
"""
import argparse
import numpy as np
import torch
from pathlib import Path
from mmllm.core import quiet_stderr
from mmllm.data import coco128, load_annotations, text_questions, validation_photos
from mmllm.evaluation import vqa_normalise
from mmllm.model import MMModel

CONTEXT, NEW_TOKENS = 1024, 16
PICTURE = "Describe this picture in one sentence."

def open_library():
    "(ffi, library): the declarations of one package and the compiled code of the other."
    from llama_cpp_py_sync._cffi_bindings import ffi
    from xllamacpp import xllamacpp
    return ffi, ffi.dlopen(xllamacpp.__file__)

class LlamaCpp:
    "A GGUF file in llama.cpp: tokens or rows in, logits out."
    def __init__(self, file, threads):
        self.threads = threads
        self.ffi, self.lib = open_library()
        with quiet_stderr(): self.open(file)

    def open(self, file):
        "Load the file; llama.cpp tells about every tensor meanwhile."
        self.lib.llama_backend_init()
        self.model = self.lib.llama_model_load_from_file(str(file).encode(), self.lib.llama_model_default_params())
        if self.model == self.ffi.NULL: raise RuntimeError(f"llama.cpp does not open {file}")
        settings = self.lib.llama_context_default_params()
        settings.n_ctx = settings.n_batch = settings.n_ubatch = CONTEXT
        settings.n_threads = settings.n_threads_batch = self.threads
        self.context = self.lib.llama_init_from_model(self.model, settings)
        self.vocabulary = self.lib.llama_model_get_vocab(self.model)
        self.vocab_size = self.lib.llama_vocab_n_tokens(self.vocabulary)

    def tokenize(self, text):
        "Token ids of a text; control tokens in it are control tokens."
        given = text.encode()
        ids = self.ffi.new("llama_token[]", len(given) + 16)
        count = self.lib.llama_tokenize(self.vocabulary, given, len(given), ids, len(ids), True, True)
        return list(ids[0:count])

    def clear(self):
        "Forget what was read."
        self.lib.llama_memory_clear(self.lib.llama_get_memory(self.context), True)
        self.position = 0

    def read(self, given):
        "Logits (T, V) of token ids (T,) or rows (T, D) that follow what was read."
        given = np.asarray(given)
        is_rows, size = given.ndim == 2, len(given)
        batch = self.lib.llama_batch_init(size, given.shape[1] if is_rows else 0, 1)
        if is_rows: self.ffi.memmove(batch.embd, np.ascontiguousarray(given, np.float32), given.size * 4)
        for i in range(size):
            if not is_rows: batch.token[i] = int(given[i])
            batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = self.position + i, 1, 0, 1
        batch.n_tokens = size
        failed = self.lib.llama_decode(self.context, batch)
        self.lib.llama_batch_free(batch)
        if failed: raise RuntimeError(f"llama_decode failed ({failed})")
        self.position += size
        logits = self.lib.llama_get_logits(self.context)
        buffer = self.ffi.buffer(logits, size * self.vocab_size * 4)
        return np.frombuffer(buffer, np.float32).reshape(size, -1).copy()

    def generate(self, given, end, new_tokens=NEW_TOKENS):
        "The greedy continuation of token ids or rows."
        self.clear()
        ids = [int(self.read(given)[-1].argmax())]
        while ids[-1] != end and len(ids) < new_tokens: ids.append(int(self.read(ids[-1:])[-1].argmax()))
        return ids

class Torch:
    "Our own model behind the same three methods."
    def __init__(self, model): self.language = model.language

    def rows(self, given):
        given = torch.as_tensor(np.asarray(given))[None]
        return given if given.ndim == 3 else self.language.get_input_embeddings()(given)

    @torch.inference_mode()
    def generate(self, given, end, new_tokens=NEW_TOKENS):
        rows = self.rows(given)
        mask = torch.ones(rows.shape[:2], dtype=torch.long)
        return self.language.generate(inputs_embeds=rows, attention_mask=mask, max_new_tokens=new_tokens, do_sample=False)[0].tolist()

    @torch.inference_mode()
    def read(self, given): return self.language(inputs_embeds=self.rows(given)).logits[0].float().numpy()

def ask(question): return [{"role": "user", "content": question}]

def picture_rows(model, photo):
    "Rows (T, D) of a question about a photo."
    batch = model.processor(ask([{"type": "image", "image": photo.path}, {"type": "text", "text": PICTURE}]))
    with torch.inference_mode(): return model.embed(batch["input_ids"], batch["media_mask"], batch["pixel_values"])[0].numpy()

def is_right(reply, answers):
    "Whether one of the answers is in a reply, as `text_scores` counts."
    return any(f" {vqa_normalise(answer)} " in f" {vqa_normalise(reply)} " for answer in answers)

def same_tokens(engine, model):
    "How many texts of the data are cut into the tokens that our tokenizer makes, and of how many."
    texts = [text for note in load_annotations().values() for text in note["captions"]]
    texts += [question for question, _ in text_questions()] + ["7 plus 5 = 12", "  two\n\n3  spaces ", "naïve 👋🏽 日本語"]
    same = [engine.tokenize(text) == model.processor.tokenizer(text, add_special_tokens=False).input_ids for text in texts]
    return sum(same), len(same)

def measure(engine, model, prompts, pictures, reference):
    "The row of one engine, as a dict; `reference` holds what torch said, or is empty and filled."
    end, tokenizer = model.processor.tokenizer.eos_token_id, model.processor.tokenizer
    texts = [engine.generate(ids, end) for ids, _ in prompts]
    photos = [engine.generate(rows, end) for rows in pictures]
    if hasattr(engine, "clear"): engine.clear()
    logits = engine.read(prompts[0][0])
    found = dict(texts=texts, photos=photos, logits=logits)
    reference = reference or found
    right = np.mean([is_right(tokenizer.decode(ids, skip_special_tokens=True), answers) for ids, (_, answers) in zip(texts, prompts)])
    def same(kind): return np.mean([a == b for a, b in zip(found[kind], reference[kind])])
    logprobs = [torch.log_softmax(torch.as_tensor(one["logits"]), -1) for one in (found, reference)]
    return found, dict(
        difference=float(np.abs(found["logits"] - reference["logits"]).max()),
        divergence=float((logprobs[1].exp() * (logprobs[1] - logprobs[0])).sum(-1).mean()),
        right=right, texts=same("texts"), photos=same("photos"))

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("folder", type=Path, help="of `mmllm export gguf`")
    parser.add_argument("--photos", type=int, default=8, help="of COCO128's validation photos")
    parser.add_argument("--questions", type=int, default=50, help="of data/text_questions.jsonl")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = MMModel.from_pretrained(args.bundle, device="cpu", dtype=torch.float32)
    prompts = [(model.processor(ask(question))["input_ids"][0].numpy(), answers) for question, answers in text_questions()[:args.questions]]
    pictures = [picture_rows(model, photo) for photo in validation_photos(coco128())[:args.photos]]
    files = sorted(args.folder.glob("*.gguf"), key=lambda file: -file.stat().st_size)
    print("| engine | MB | largest difference of logits | KL divergence, nats | text answers right | same replies to texts | to photos |")
    print("|---|---|---|---|---|---|---|")
    reference, weights = {}, sum(w.numel() for w in model.language.parameters()) * 4 / 1e6
    for name, size, engine in [("torch, float32", weights, Torch(model)), *((file.stem, file.stat().st_size / 1e6, file) for file in files)]:
        if isinstance(engine, Path): engine = LlamaCpp(engine, args.threads)
        found, row = measure(engine, model, prompts, pictures, reference)
        reference = reference or found
        print(f"| {name} | {size:.0f} | {row['difference']:.2f} | {row['divergence']:.5f} | {row['right']:.2f} | {row['texts']:.2f} | {row['photos']:.2f} |", flush=True)
    same, total = same_tokens(engine, model)
    print(f"\n{same} of {total} texts are cut into the same tokens")

if __name__ == "__main__": main()
