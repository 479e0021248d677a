"""Compares the rows that llama.cpp makes of photos, from an `mmproj` file, with ours; nbs/12_export/01_gguf.ipynb tells what came out.

    mmllm export gguf --model BUNDLE --out runs/gguf --quantize F16     (a bundle with the projector llava)
    pip install --no-deps --target runs/cpp xllamacpp==2026.10.11549 llama-cpp-py-sync==0.11548
    PYTHONPATH=runs/cpp python tools/llamacpp_eyes.py BUNDLE runs/gguf

Each photo is tried twice: squared by us to the size of the encoder, so that only the network is compared, and as it is. llama.cpp b11549 puts
CLIP's class token behind the patches and still leaves out the first row (its issue 25814), so our network is tried in that order too.
"""
import argparse
import cffi
import numpy as np
import torch
from pathlib import Path
from PIL import Image
from mmllm.core import quiet_stderr
from mmllm.data import load_image
from mmllm.model import MMModel
from mmllm.vision import pad_to_square
from mmllm.weights import fetch
from llamacpp import open_library

MTMD = """
typedef struct {
    bool use_gpu; void *device; bool print_timings; int n_threads; const char *image_marker; const char *media_marker;
    int flash_attn_type; bool warmup; int image_min_tokens; int image_max_tokens; void *cb_eval; void *cb_eval_user_data;
    int32_t batch_max_tokens; void *progress_callback; void *progress_callback_user_data; char later[64];
} mtmd_context_params;
typedef struct { const char *text; size_t text_len; bool add_special; bool parse_special; } mtmd_input_text;
mtmd_context_params mtmd_context_params_default(void);
const char *mtmd_default_marker(void);
void *mtmd_init_from_file(const char *, void *, mtmd_context_params);
void *mtmd_bitmap_init(uint32_t, uint32_t, const unsigned char *);
void *mtmd_input_chunks_init(void);
int32_t mtmd_tokenize(void *, void *, const mtmd_input_text *, void **, size_t);
size_t mtmd_input_chunks_size(void *);
void *mtmd_input_chunks_get(void *, size_t);
int mtmd_input_chunk_get_type(void *);
size_t mtmd_input_chunk_get_n_tokens(void *);
int32_t mtmd_encode_chunk(void *, void *);
float *mtmd_get_output_embd(void *);
"""

class Eyes:
    "An `mmproj` file in llama.cpp: pictures in, rows out."
    def __init__(self, folder, width):
        ffi, lib = open_library()
        self.ffi, self.width = cffi.FFI(), width
        self.ffi.cdef(MTMD)
        from xllamacpp import xllamacpp
        self.lib = self.ffi.dlopen(xllamacpp.__file__)
        text = next(file for file in folder.glob("*.gguf") if not file.name.startswith("mmproj-"))
        lib.llama_backend_init()
        with quiet_stderr():
            self.model = lib.llama_model_load_from_file(str(text).encode(), lib.llama_model_default_params())
            settings = self.lib.mtmd_context_params_default()
            settings.n_threads, settings.use_gpu = 1, False
            model = self.ffi.cast("void *", int(ffi.cast("intptr_t", self.model)))
            file = next(folder.glob("mmproj-*.gguf"))
            self.context = self.lib.mtmd_init_from_file(str(file).encode(), model, settings)
        if self.context == self.ffi.NULL: raise RuntimeError(f"llama.cpp does not open {file}")

    def chunks(self, array):
        "The parts of a prompt that is nothing but a picture."
        ffi, lib = self.ffi, self.lib
        bitmap = lib.mtmd_bitmap_init(array.shape[1], array.shape[0], np.ascontiguousarray(array).tobytes())
        marker, chunks = lib.mtmd_default_marker(), lib.mtmd_input_chunks_init()
        text = ffi.new("mtmd_input_text *", dict(text=marker, text_len=len(ffi.string(marker)), parse_special=True))
        if lib.mtmd_tokenize(self.context, chunks, text, ffi.new("void *[]", [bitmap]), 1): raise RuntimeError("no tokens")
        return [lib.mtmd_input_chunks_get(chunks, i) for i in range(lib.mtmd_input_chunks_size(chunks))]

    def __call__(self, array):
        "(N, D) rows of an (H, W, 3) array."
        lib = self.lib
        with quiet_stderr():
            chunk = next(one for one in self.chunks(array) if lib.mtmd_input_chunk_get_type(one) == 1)
            if lib.mtmd_encode_chunk(self.context, chunk): raise RuntimeError("not encoded")
        n = lib.mtmd_input_chunk_get_n_tokens(chunk)
        data = self.ffi.buffer(lib.mtmd_get_output_embd(self.context), n * self.width * 4)
        return torch.from_numpy(np.frombuffer(data, np.float32).reshape(n, self.width).copy())

@torch.inference_mode()
def class_token_last(model, pixels):
    "Our rows of a picture, if the class token stood behind the patches and the first row were left out."
    tower = model.vision.clip.vision_model
    embeddings = tower.embeddings
    patches = embeddings.patch_embedding(pixels).flatten(2).transpose(1, 2)
    rows = torch.cat([patches, embeddings.class_embedding.expand(1, 1, -1)], 1) + embeddings.position_embedding.weight
    rows = tower.pre_layrnorm(rows)
    for layer in tower.encoder.layers[:-1]: rows = layer(rows, attention_mask=None)
    return model.projectors["grid"](rows[0, 1:])

def distance(a, b):
    "Root of the mean square of the difference, as a share of the rows' own."
    return ((a - b).square().mean() / a.square().mean()).sqrt().item()

@torch.inference_mode()
def main():
    "Print the table."
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle")
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    model = MMModel.from_pretrained(options.bundle, device="cpu", dtype=torch.float32)
    eyes, side = Eyes(options.folder, model.language.config.hidden_size), model.vision.clip.config.vision_config.image_size
    print("| photo | squared by us: to our rows | to ours with the class token last | as it is: to our rows |\n|---|---|---|---|")
    for file in sorted(fetch("photos").glob("*.*")):
        if file.suffix not in (".png", ".jpg"): continue
        photo = load_image(file)
        square = np.asarray(Image.fromarray(pad_to_square(photo, model.vision.pad_colour)).resize((side, side), Image.BICUBIC))
        theirs, pixels = eyes(square), model.vision.preprocess([square])
        ours = model.image_embeddings(pixels)[0]
        found = [distance(ours, theirs), distance(class_token_last(model, pixels), theirs),
                 distance(model.image_embeddings(model.vision.preprocess([photo]))[0], eyes(photo))]
        print("|", file.name, "|", " | ".join(f"{one:.2g}" for one in found), "|")

if __name__ == "__main__": main()
