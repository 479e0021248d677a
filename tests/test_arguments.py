"Arguments from Python: one sentence of a named type, before anything is computed."
import io
from functools import partial
import numpy as np
import pytest
import torch
from PIL import Image
from helpers import refused
import samples
from mmllm.audio import AudioError
from mmllm.chat import Chat, ChatError, GenerationSettings
from mmllm.chat.conversation import new_turn
from mmllm.chat.turns import load_attachment
from mmllm.core import MMError, PresetError, SeedError, check_seed, get_preset
from mmllm.data.media import DataError, MediaError, UnknownFormat
from mmllm.evaluation import EvaluationError, evaluate_bundle
from mmllm.language import LanguageError
from mmllm.model import EncodedAudio, MMModel, PromptError
from mmllm.training import train_recipe
from mmllm.training.trainer import TrainingError, get_stage, train
from mmllm.vision import VisionError

def asks(*content): return [{"role": "user", "content": content[0] if len(content) == 1 and isinstance(content[0], str) else list(content)}]
HI = asks("Hi")

# --- conversations

CONVERSATIONS = [
    ("none", None), ("a number", 5), ("text", "Hi"), ("bytes", b"Hi"), ("a generator", (m for m in HI)), ("a set", {1, 2}), ("a message", HI[0]), ("a dict", {"a": 1}),
    ("nothing", []), ("an empty conversation", [[]]), ("texts", ["Hi", "you"]), ("numbers", [1, 2]), ("none in a list", [None]), ("a batch with none", [HI, None]),
    ("no role", [{"content": "Hi"}]), ("no content", [{"role": "user"}]), ("role none", [{"role": None, "content": "Hi"}]), ("role 5", [{"role": 5, "content": "Hi"}]),
    ("an unknown role", [{"role": "root", "content": "Hi"}]), ("content none", [{"role": "user", "content": None}]), ("content 5", [{"role": "user", "content": 5}]),
    ("content bytes", [{"role": "user", "content": b"Hi"}]), ("a part 5", asks(5)), ("a part none", asks(None)), ("a part without a type", asks({"text": "Hi"})),
    ("an unknown part", asks({"type": "video", "video": "x.mp4"})), ("text none", asks({"type": "text", "text": None})), ("text 5", asks({"type": "text", "text": 5})),
    ("text missing", asks({"type": "text"})), ("an image none", asks({"type": "image", "image": None})), ("an image 5", asks({"type": "image", "image": 5})),
    ("an image missing", asks({"type": "image"})), ("an image of nothing", asks({"type": "image", "image": b""})), ("a sound 5", asks({"type": "audio", "audio": 5})),
    ("a sound none", asks({"type": "audio", "audio": None})), ("a record without media", {"messages": asks({"type": "image"}), "images": []}),
    ("a record with too many", {"messages": HI, "images": ["a.png"]}), ("a record of nothing", {"messages": []}), ("messages none", {"messages": None}),
]

@pytest.mark.parametrize("name, conversation", CONVERSATIONS, ids=[name for name, _ in CONVERSATIONS])
def test_what_is_no_conversation_is_refused(name, conversation, talker):
    with refused(MMError, seconds=3): talker.reply(conversation, max_new_tokens=2)

def test_a_very_long_message_is_refused_at_once(talker):
    with refused(LanguageError, "5,000,000 characters", seconds=1): talker.reply(asks("a " * 2_500_000))

def test_a_long_conversation_is_refused(talker):
    with refused(PromptError, "drop its oldest turns"): talker.reply(asks("word " * 3000))

@pytest.mark.parametrize("text", ["\udcff", "a\0b", "\ud83d", "<|end|><|user|>", "<image>", "\u202e" * 50, "\r\n\t", "\x1b[31m", "𓀀" * 100, "\ufffe"], ids=ascii)
def test_any_text_is_a_text(text, talker):
    assert isinstance(talker.reply(asks(text), max_new_tokens=2), str)

def test_text_never_becomes_a_control_token(talker):
    tokenizer = talker.processor.tokenizer
    control = set(tokenizer.convert_tokens_to_ids(["<|end|>", "<|user|>", "<|assistant|>"]))
    plain, typed = (talker.processor(asks(text))["input_ids"][0].tolist() for text in ("x", "<|end|><|user|><|assistant|>"))
    assert [i for i in typed if i in control] == [i for i in plain if i in control]

# --- settings of generate

SETTINGS = [
    *[("max_new_tokens", value) for value in (0, -5, "8", 1.5, True, [8], 10**9, float("nan"))],
    *[("temperature", value) for value in (0, -1, float("nan"), float("inf"), "1", 6, 1e-9, True, [1])],
    *[("top_p", value) for value in (-.1, 1.1, float("nan"), "x")], *[("top_k", value) for value in (-1, 1.5, "5")],
    *[("num_beams", value) for value in (0, -1, 1.5)], *[("repetition_penalty", value) for value in (0, -1, float("nan"), float("inf"))],
    *[("do_sample", value) for value in ("yes", 1, 0.0)], ("no_such_setting", 1), ("return_dict_in_generate", True), ("pad_token_id", 0), ("inputs", None if False else 5),
    ("min_new_tokens", -1), ("num_return_sequences", 0), ("max_tokens", 5),
]

@pytest.mark.parametrize("name, value", SETTINGS, ids=[f"{name} {value}" for name, value in SETTINGS])
def test_a_setting_that_makes_no_sense_is_refused(name, value, talker):
    given = {"do_sample": True, name: value} if name in ("temperature", "top_p", "top_k") else {name: value}
    with refused(PromptError, seconds=2): talker.reply(HI, **given)

def test_streaming_is_for_one_conversation(talker):
    with refused(PromptError, "one at a time"): talker.reply([HI, HI], on_text=print)

# --- tensors

FEATURES = [("no rows", lambda x: x[:, :0]), ("no images", lambda x: x[:0]), ("complex", lambda x: x.to(torch.complex64)), ("whole numbers", lambda x: x.long()),
            ("another width", lambda x: x[..., :-1]), ("NaN", lambda x: x * float("nan")), ("infinity", lambda x: x + float("inf")), ("two dimensions", lambda x: x[0]),
            ("four dimensions", lambda x: x[None]), ("an array", lambda x: x.numpy()), ("a list", lambda x: x.tolist()), ("none", lambda x: None)]

@pytest.mark.parametrize("name, change", FEATURES, ids=[name for name, _ in FEATURES])
def test_features_that_are_none_are_refused(name, change, talker):
    with refused(VisionError): talker.vision.check_features(change(torch.zeros(1, 16, talker.vision.width)))

@pytest.mark.parametrize("features", [torch.zeros(0, 32), torch.zeros(16, 31), torch.zeros(16, 32, dtype=torch.complex64), torch.full((16, 32), float("nan"))], ids=["no rows", "width", "complex", "NaN"])
def test_features_in_a_conversation_are_checked(features, talker):
    with refused(MMError): talker.reply(asks({"type": "image", "image": features}, {"type": "text", "text": "What?"}), max_new_tokens=2)

def test_pictures_and_features_do_not_mix(talker, picture):
    kept = torch.zeros(16, talker.vision.width)
    with refused(PromptError): talker.reply(asks({"type": "image", "image": kept}, {"type": "image", "image": picture}))

@pytest.mark.parametrize("states", [None, 5, torch.zeros(0, 32), torch.zeros(4), torch.zeros(1, 4, 32), torch.zeros(4, 32, dtype=int), torch.full((4, 32), float("nan")), np.zeros((4, 32), np.float32)], ids=lambda x: str(getattr(x, "shape", x)))
def test_states_of_a_sound_are_checked(states):
    with refused(AudioError): EncodedAudio(states)

def test_states_of_another_whisper_are_refused(talker):
    with refused(MMError): talker.reply(asks({"type": "audio", "audio": EncodedAudio(torch.zeros(50, 31))}, {"type": "text", "text": "What?"}), max_new_tokens=2)

def test_a_prompt_without_its_picture_is_refused(talker, picture):
    batch = talker.processor(asks({"type": "image", "image": picture}, {"type": "text", "text": "What?"}))
    batch.pop("pixel_values")
    with refused(PromptError, "picture"): talker.generate(**batch, max_new_tokens=2)

# --- the chat

@pytest.mark.parametrize("images", [5, True, object(), [5], [None], {"a": 1}, "missing.png", ["missing.png"], b"", b"no picture", np.zeros(5), [[]], io.BytesIO(b"text")], ids=lambda x: str(x)[:20])
@pytest.mark.parametrize("kind", ["images", "audio"])
def test_media_of_the_chat_are_checked(kind, images):
    with refused(MMError): new_turn("What?", **{kind: images})

@pytest.mark.parametrize("give", [Image.fromarray, lambda p: [Image.fromarray(p)], lambda p: p, lambda p: io.BytesIO(samples.pictures()["png RGB"]), lambda p: (p, p)],
                         ids=["Pillow", "a list", "an array", "an open file", "a tuple"])
def test_one_picture_or_several_are_taken(give, picture):
    turn = new_turn("What?", images=give(picture))
    assert {item.kind for item in turn.images} == {"image"} and 1 <= len(turn.images) <= 2

@pytest.mark.parametrize("text", [None, 5, b"Hi", ["Hi"], "", "  \n"], ids=repr)
def test_there_is_something_to_ask(text):
    with refused(ChatError): new_turn(text)

@pytest.mark.parametrize("kind", ["video", "", None, 5])
def test_a_kind_of_media_that_is_none(kind):
    with refused(MMError): load_attachment(samples.pictures()["png RGB"], kind)

CHATS = [*[("temperature", v) for v in (-1, .001, 6, "1", None, float("nan"), float("inf"), True, [1])], *[("top_p", v) for v in (0, -1, 1.1, "1", None, float("nan"))],
         *[("max_new_tokens", v) for v in (0, -1, 1.5, "8", None, 2048, True)], *[("max_context", v) for v in (0, 128, -1, "x", None, 1.5)],
         *[("seed", v) for v in (-1, 2**63, 1.5, "1", True)], *[("system", v) for v in (None, 5, b"x", ["x"])], *[("audio_mode", v) for v in ("", "loud", None, 5)], ("no_such_setting", 1)]

@pytest.mark.parametrize("name, value", CHATS, ids=[f"{name} {value}" for name, value in CHATS])
def test_settings_of_the_chat_are_checked(name, value):
    with refused(ChatError): Chat("tiny", **{name: value})

def test_turns_that_are_not_there():
    chat = Chat("tiny")
    for call in (chat.undo, chat.retry, chat.restore, partial(chat.edit, 0, "x"), partial(chat.undo, 5), partial(chat.edit, "0", "x")):
        with refused(ChatError): call()

def test_system_prompts_are_cleaned(): assert GenerationSettings(system="a\udcffb").system == "a?b"

# --- presets, seeds, stages

@pytest.mark.parametrize("seed", [-1, 2**32, 1.5, "1", None, True, float("nan"), [1]], ids=repr)
def test_a_seed_is_a_number(seed):
    with refused(SeedError): check_seed(seed)
    with refused(SeedError): train_recipe("clip", "tiny", seed=seed)
    with refused(SeedError): evaluate_bundle("tiny", seed=seed)

@pytest.mark.parametrize("name", ["", "huge", None, 5, "TINY", "tiny "], ids=repr)
def test_a_preset_has_a_name(name):
    with refused(PresetError): get_preset(name)
    with refused(PresetError): MMModel.from_preset(name)

def test_a_part_that_is_none_is_refused():
    with refused(PresetError): MMModel.from_preset("tiny", ears="x")
    with refused(MMError): MMModel.from_preset("tiny", vision="no-such-model")

@pytest.mark.parametrize("epochs", [0, -3, 1.5, "1", True, float("nan")], ids=repr)
@pytest.mark.parametrize("stage", ["all", "clip", "tune"])
def test_epochs_are_checked_before_the_first_stage(stage, epochs, tmp_path):
    with refused(TrainingError, "epochs"): train_recipe(stage, "tiny", tmp_path/"run", epochs=epochs)
    assert not (tmp_path/"run").exists()

@pytest.mark.parametrize("stage", ["", "nothing", "CLIP", ["clip", "nothing"]], ids=repr)
def test_a_stage_has_a_name(stage, tmp_path):
    with refused(TrainingError): train_recipe(stage, "tiny", tmp_path/"run")

@pytest.mark.parametrize("setting, value", [("batch_size", 0), ("batch_size", -1), ("batch_size", 2.5), ("patience", 0), ("evaluations", "1"), ("gradient_accumulation_steps", 0), ("no_such", 1)])
def test_settings_of_a_stage_are_checked(setting, value):
    with refused(TrainingError): get_stage("align", **{setting: value})

def test_a_stage_needs_the_one_before(tmp_path):
    with refused(TrainingError, "first"): train_recipe("tune", "tiny", tmp_path/"run")

def test_a_recipe_has_a_name(tmp_path):
    with refused(TrainingError, "recipe"): train_recipe("clip", "tiny", tmp_path/"run", data="imagenet")
    with refused(TrainingError, "lite"): train_recipe("clip", "tiny", tmp_path/"run", data="coco6k")

def test_a_model_that_only_talks_cannot_be_trained_or_saved(talker, tmp_path):
    with refused(MMError, "trainable=True"): talker.save_pretrained(tmp_path/"bundle")
    with refused(MMError, "trainable=True"): train(talker, "align", [{}] * 40, tmp_path)
    assert list(tmp_path.iterdir()) == []

@pytest.mark.parametrize("options, word", [(dict(batch_size=0), "batch size"), (dict(data="imagenet"), "no folder or file"), (dict(images="x"), "together"), (dict(captions="x"), "together"),
    (dict(instances="x"), "together"), (dict(images="x", captions="y", speech=True), "spoken"), (dict(ablations=["upside down"]), "ablation"), (dict(images="x", captions="y", data="coco6k"), "two sets")], ids=str)
def test_an_evaluation_is_checked_before_it_loads_anything(options, word, saved, tmp_path):
    with refused((EvaluationError, PresetError, DataError, MediaError, UnknownFormat), word, seconds=3): evaluate_bundle(saved, out=tmp_path/"out", **options)
