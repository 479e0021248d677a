"What holds for any input at all, tried on inputs that Hypothesis thinks of."
import csv, json, math
import numpy as np
from hypothesis import given, settings, strategies as st
from helpers import check_sentence, is_refused
import samples
from mmllm.chat import Chat
from mmllm.chat.conversation import new_turn
from mmllm.chat.turns import Turn
from mmllm.core import MMError
from mmllm.data.coco128 import json_lines
from mmllm.data.conversations import inline_media, make_record
from mmllm.data.datasets import load_captioned_folder
from mmllm.data.media import MediaError, load_audio, load_image, shown_name, sniff
from mmllm.model import read_config

# --- the media gateway

STARTS = [b"\xff\xd8\xff", b"\xff\xd8\xff\xe0\0\x10JFIF\0", b"\x89PNG\r\n\x1a\n", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"RIFF\x40\0\0\0WEBP", b"RIFF\x40\0\0\0WEBPVP8 ", b"RIFF\x40\0\0\0WEBPVP8X", b"GIF87a", b"GIF89a",
          b"RIFF\x40\0\0\0WAVE", b"RIFF\x40\0\0\0WAVEfmt \x10\0\0\0", b"fLaC", b"fLaC\0\0\0\x22", b"OggS", b"OggS\0\x02", b"ID3", b"ID3\x04\0\0", b"\xff\xfb\x90", b"\xff\xf3\x40"]

def check_gateway(load, data, dtype, ndim):
    "An array as promised, or a `MediaError` of one sentence."
    try: found = load(data)
    except MediaError as error: return check_sentence(error)
    assert found.dtype == dtype and found.ndim == ndim and found.size

@given(st.sampled_from(STARTS), st.binary(max_size=400))
@settings(max_examples=150)
def test_random_bytes_behind_a_true_beginning(start, rest):
    check_gateway(load_image, start + rest, np.uint8, 3)
    check_gateway(load_audio, start + rest, np.float32, 1)

@given(st.binary(max_size=200))
def test_random_bytes(data):
    check_gateway(load_image, data, np.uint8, 3)
    check_gateway(load_audio, data, np.float32, 1)
    assert sniff(data[:16]) is None or data

FILES = [(load_image, np.uint8, 3, data) for data in samples.pictures().values()] + [(load_audio, np.float32, 1, data) for data in samples.sounds().values()]

@given(st.sampled_from(range(len(FILES))), st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=12), st.booleans())
@settings(max_examples=150)
def test_real_files_with_other_bytes_somewhere(number, place, other, mend):
    load, dtype, ndim, data = FILES[number]
    at = int(place * min(len(data), 2000))
    changed = data[:at] + other + data[at + len(other):]
    check_gateway(load, samples.mended(changed) if mend else changed, dtype, ndim)

@given(st.sampled_from(range(len(FILES))), st.sampled_from(range(len(FILES))), st.floats(0, 1))
def test_two_files_in_one(first, second, share):
    load, dtype, ndim, data = FILES[first]
    check_gateway(load, data[:int(len(data) * share)] + FILES[second][3], dtype, ndim)

@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from(["L", "RGB", "RGBA", "P", "1", "CMYK"]), st.sampled_from(["PNG", "JPEG", "WEBP", "GIF"]))
@settings(max_examples=30)
def test_a_picture_of_any_size_comes_back(width, height, mode, kind):
    image = samples.landscape(width, height).convert(mode)
    if kind == "JPEG" and mode in ("RGBA", "P"): image = image.convert("RGB")
    if kind in ("WEBP", "GIF") or (kind == "PNG" and mode == "CMYK"): image = image.convert("RGB")
    assert load_image(samples.as_file(image, kind)).shape == (height, width, 3)

@given(st.integers(1, 4000), st.sampled_from([8000, 16_000, 44_100]), st.sampled_from(["WAV", "FLAC"]), st.integers(1, 4))
@settings(max_examples=30)
def test_a_sound_of_any_length_comes_back(n, rate, kind, channels):
    wave = np.repeat(.1 * np.sin(np.arange(n))[:, None], channels, 1).astype(np.float32)
    found = load_audio(samples.as_sound(wave, rate, kind)) if round(n * 16_000 / rate) else None
    if found is not None: assert abs(len(found) - n * 16_000 / rate) <= 2

@given(st.text())
def test_a_name_is_shown_on_one_short_line(name):
    shown = shown_name(name)
    assert "\n" not in shown and "\x1b" not in shown and len(shown) < 700 and shown[0] in "'\""

# --- records

WORD = st.characters(blacklist_categories=["Cs", "Cc"])
CAPTION = st.text(st.one_of(WORD, st.sampled_from(',"\'\n;\t')), min_size=1, max_size=60).filter(lambda text: any(c.isalnum() for c in text) and text == text.strip())

@given(captions=st.lists(st.tuples(st.sampled_from(["a.png", "b.png"]), CAPTION), min_size=1, max_size=8))
@settings(max_examples=40)
def test_a_table_of_captions_comes_back(captions, tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for name in ("a.png", "b.png"): (folder/name).write_bytes(samples.pictures()["png L"])
    with open(folder/"captions.csv", "w", newline="", encoding="utf-8") as file: csv.writer(file).writerows([["image", "caption"], *captions])
    found = {record["id"]: record["captions"] for record in load_captioned_folder(folder, folder/"captions.csv")}
    wanted = {}
    for name, caption in captions: wanted.setdefault(name, []).append(caption)
    assert found == wanted

@given(st.binary(max_size=300))
def test_any_bytes_are_a_table_or_are_refused(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("photos")
    (folder/"a.png").write_bytes(samples.pictures()["png L"])
    (folder/"captions.csv").write_bytes(b"image,caption\n" + data)
    is_refused(load_captioned_folder, folder, folder/"captions.csv")

JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(st.characters(blacklist_categories=["Cs"]), max_size=20),
                    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(blacklist_categories=["Cs"]), max_size=8), inner, max_size=4), max_leaves=12)

@given(st.lists(JSON, max_size=6))
def test_lines_of_json_come_back(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("lines")/"rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert [row for _, row in json_lines(path)] == rows

@given(st.binary(max_size=200))
def test_any_bytes_are_lines_or_are_refused(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("lines")/"rows.jsonl"
    path.write_bytes(data)
    is_refused(lambda: list(json_lines(path)))

PART = st.one_of(st.builds(lambda text: {"type": "text", "text": text}, st.text(max_size=10)), st.builds(lambda n: {"type": "image", "image": f"{n}.png"}, st.integers(0, 99)),
                 st.builds(lambda n: {"type": "audio", "audio": f"{n}.wav"}, st.integers(0, 99)))
MESSAGE = st.builds(lambda role, content: {"role": role, "content": content}, st.sampled_from(["user", "assistant", "system"]), st.text(max_size=10) | st.lists(PART, max_size=5))

@given(st.lists(MESSAGE, max_size=5))
def test_a_record_and_its_messages_are_the_same(messages):
    record = make_record(messages, id="x")
    assert inline_media(record) == messages
    assert len(record["images"]) + len(record["audios"]) == sum(part["type"] != "text" for m in messages if not isinstance(m["content"], str) for part in m["content"])

@given(JSON)
def test_anything_is_a_record_or_is_refused(thing):
    is_refused(inline_media, thing)
    is_refused(make_record, [thing])
    is_refused(inline_media, {"messages": thing, "images": thing})

# --- configurations and conversations

KEYS = st.sampled_from(["format", "vision", "audio", "language", "bases", "image_tokens", "concept_tokens", "lora_r", "lora_alpha", "preset", "words", "name_tokens", "grid_hidden", "vision_lora_r", "trained_in_four_bit", "projector", "pad_to_square", "max_tiles", "confidence_gamma"])

@given(changes=st.dictionaries(KEYS, JSON, min_size=1, max_size=4))
@settings(max_examples=100)
def test_any_configuration_is_checked_as_a_whole(saved, tmp_path_factory, changes):
    fields = json.loads((saved/"config.json").read_text()) | changes
    place = tmp_path_factory.mktemp("config")
    (place/"config.json").write_text(json.dumps(fields))
    try: config = read_config(place)
    except MMError as error: return check_sentence(error)
    assert all(isinstance(getattr(config, part), str) for part in ("vision", "audio", "language", "preset")) and isinstance(config.bases, dict)
    assert type(config.image_tokens) is int and math.isqrt(config.image_tokens)**2 == config.image_tokens > 0
    assert type(config.lora_r) is int and 0 < config.lora_r and type(config.concept_tokens) is int and config.concept_tokens >= 0

@given(JSON)
@settings(max_examples=100)
def test_no_json_is_a_bundle_by_accident(tmp_path_factory, thing):
    place = tmp_path_factory.mktemp("config")
    (place/"config.json").write_text(json.dumps(thing))
    assert is_refused(read_config, place)

TEXT = st.text(max_size=30)
TURN = st.builds(lambda text, reply, state, error, seconds: Turn(text, reply=reply, state=state, error=error, stats={"time_to_first_token": seconds}),
                 TEXT, TEXT, st.sampled_from(["done", "failed", "stopped"]), TEXT, st.floats(0, 1e6))

@given(turns=st.lists(TURN, max_size=4), system=TEXT, temperature=st.sampled_from([0, .01, 1, 5]), seed=st.none() | st.integers(0, 2**63 - 1))
@settings(max_examples=30)
def test_a_conversation_comes_back(tmp_path_factory, turns, system, temperature, seed):
    chat = Chat("tiny", system=system, temperature=temperature, seed=seed)
    chat.turns = turns
    found = Chat.load(chat.save(tmp_path_factory.mktemp("chats")/"chat"), "tiny")
    assert found.settings == chat.settings and found.turns == turns

@given(st.text(st.characters(), min_size=1, max_size=40).filter(str.strip))
def test_a_question_of_any_letters_can_be_saved(tmp_path_factory, text):
    chat = Chat("tiny")
    chat.turns = [new_turn(text)]
    found = Chat.load(chat.save(tmp_path_factory.mktemp("chats")/"chat"), "tiny")
    assert found.turns[0].text == new_turn(text).text

@given(about=JSON, turns=st.lists(st.dictionaries(st.sampled_from(["text", "images", "audio", "transcripts", "reply", "state", "error", "stats"]), JSON, max_size=8), max_size=2))
@settings(max_examples=60)
def test_any_chat_json_is_a_conversation_or_is_refused(tmp_path_factory, about, turns):
    place = tmp_path_factory.mktemp("chats")
    for content in (about, {"format": 2, "settings": {}, "turns": turns}, {"format": 2, "settings": about, "turns": []}):
        (place/"chat.json").write_text(json.dumps(content))
        is_refused(Chat.load, place, "tiny")
