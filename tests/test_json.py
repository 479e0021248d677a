"JSON that is none, or nested a hundred thousand times, in every reader of the project."
import json
import pytest
from helpers import refused
from mmllm.core import MMError
from mmllm.files import FolderKind

DEEP = b"[" * 100_000
NO_JSON = {"deep": DEEP, "deep, closed": DEEP + b"]" * 100_000, "deep objects": b'{"a":' * 100_000, "cut off": b'{"format": 2, "turns": [', "empty": b"", "Latin-1": "{\"ä\": 1}".encode("latin-1"),
           "zeros": bytes(100), "a list": b"[]", "a number": b"5", "nothing": b"null", "text": b'"text"'}

def reader_of_bundles(folder, content):
    from mmllm.model import read_config
    (folder/"config.json").write_bytes(content)
    read_config(folder)

def reader_of_conversations(folder, content):
    from mmllm.chat import Chat
    (folder/"chat.json").write_bytes(content)
    Chat.load(folder, "tiny")

def reader_of_coco(folder, content):
    from mmllm.evaluation.items import read_captions
    (folder/"coco.json").write_bytes(content)
    read_captions(folder/"coco.json")

def reader_of_replies(folder, content):
    from mmllm.evaluation.run import read_replies
    (folder/"replies.jsonl").write_bytes(json.dumps({"items": "key"}).encode() + b"\n" + content + b"\n")
    read_replies(folder/"replies.jsonl", "key")

def reader_of_lines(folder, content):
    from mmllm.data.coco128 import load_annotations
    (folder/"notes.jsonl").write_bytes(content or b"{")
    load_annotations(folder/"notes.jsonl")

def reader_of_models(folder, content):
    from mmllm.weights.fetch import check_model_folder
    (folder/"config.json").write_bytes(content)
    (folder/"model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    check_model_folder(folder)

def reader_of_training(folder, content):
    from mmllm.training.recipes import is_done
    from mmllm.training.trainer import get_stage
    (folder/"training.json").write_bytes(content)
    is_done(folder, get_stage("align"), 0)

def reader_of_checkpoints(folder, content):
    from mmllm.training.trainer import _last_checkpoint
    (folder/"checkpoint-3").mkdir()
    (folder/"run.json").write_bytes(content)
    _last_checkpoint(folder, {"stage": {}, "records": ""})

READERS = {function.__name__.removeprefix("reader_of_"): function for function in (
    reader_of_bundles, reader_of_conversations, reader_of_coco, reader_of_replies, reader_of_lines, reader_of_models, reader_of_training, reader_of_checkpoints)}

def cases():
    for reader in READERS:
        for name in NO_JSON:
            yield pytest.param(reader, name, id=f"{reader}, {name}")

@pytest.mark.parametrize("reader, name", cases())
def test_json_that_cannot_be_used_is_one_sentence(reader, name, tmp_path):
    with refused(MMError): READERS[reader](tmp_path, NO_JSON[name])

@pytest.mark.parametrize("name", NO_JSON)
def test_a_mark_that_cannot_be_read_marks_nothing(name, tmp_path):
    (tmp_path/"mark.json").write_bytes(NO_JSON[name])
    assert not FolderKind(("mark.json",), "mark.json", {"format": None}).is_marked(tmp_path)

@pytest.mark.parametrize("name", NO_JSON)
def test_a_note_of_the_cache_that_cannot_be_read_is_damage(name, tmp_path):
    from mmllm.weights.download import find_damage
    (tmp_path/"conversion.json").write_bytes(NO_JSON[name])
    (tmp_path/"model.bin").write_bytes(b"weights")
    assert "conversion.json" in find_damage(tmp_path)
