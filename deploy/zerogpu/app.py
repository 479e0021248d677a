"""A chat with pictures and sound on ZeroGPU: a GPU is lent for the time of each reply."""
import mimetypes, os
from queue import Queue
from threading import Thread
try: import spaces  # before torch; there on Hugging Face only
except ImportError: spaces = None
import gradio as gr
from mmllm import MMModel
from mmllm.core import MMError

NAME = os.environ.get("MMLLM_MODEL", "lite")  # ORG/NAME of a bundle on the Hub, or a folder
model = MMModel.from_pretrained(NAME, device="cuda" if spaces else None)

def part_of(path):
    kind = (mimetypes.guess_type(path)[0] or "").split("/")[0]
    if kind not in ("image", "audio"): raise gr.Error("This is neither a picture nor a sound.")
    return {"type": kind, kind: path}

def message_of(turn):
    parts = turn["content"] if isinstance(turn["content"], list) else [{"type": "text", "text": turn["content"]}]
    content = [part_of(part["file"]["path"]) if part["type"] == "file" else part for part in parts]
    return {"role": turn["role"], "content": content}

def write(messages, said):
    try: model.generate(**model.processor(messages), max_new_tokens=256, on_text=said.put)
    except MMError as error: said.put(error)
    finally: said.put(None)

def answer(message, history):
    files = [{"type": "file", "file": {"path": path}} for path in message["files"]]
    asked = {"role": "user", "content": [*files, {"type": "text", "text": message["text"]}]}
    said = Queue()
    Thread(target=write, args=([message_of(turn) for turn in (*history, asked)], said)).start()
    for text in iter(said.get, None):
        if isinstance(text, MMError): raise gr.Error(str(text))
        yield text

box = gr.MultimodalTextbox(file_types=["image", "audio"], file_count="multiple", sources=["upload", "microphone"])
page = gr.ChatInterface(spaces.GPU(answer) if spaces else answer, multimodal=True, textbox=box, title=f"mmllm: {os.path.basename(NAME)}")
if __name__ == "__main__": page.queue(max_size=32).launch()
