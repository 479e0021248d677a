"Saved conversations: what comes back is what was saved, and what somebody else wrote is checked."
import json, os, shutil
from pathlib import Path
import pytest
from helpers import NEEDS_FIFOS, is_refused, refused
import samples
from mmllm.chat import Chat, ChatError, to_html
from mmllm.chat.conversation import new_turn
from mmllm.core import MMError

@pytest.fixture
def chat(tmp_path):
    "A saved conversation with a picture, a sound and a reply."
    chat = Chat("tiny", system="Be brief.", temperature=.5, seed=3)
    turn = new_turn("What is this?", samples.pictures()["png RGB"], samples.as_sound(samples.voice()))
    turn.reply, turn.state, turn.transcripts = "A photo.", "done", ["hello"]
    chat.turns.append(turn)
    chat.save(tmp_path/"chat")
    return tmp_path/"chat"

def change(folder, function):
    about = json.loads((folder/"chat.json").read_text())
    function(about)
    (folder/"chat.json").write_text(json.dumps(about))

def test_what_comes_back_is_what_was_saved(chat):
    found = Chat.load(chat, "tiny")
    assert found.settings == Chat("tiny", system="Be brief.", temperature=.5, seed=3).settings
    turn = found.turns[0]
    assert (turn.text, turn.reply, turn.state, turn.transcripts) == ("What is this?", "A photo.", "done", ["hello"])
    assert turn.images[0].data == samples.pictures()["png RGB"]
    first = (chat/"chat.json").read_text()
    found.save(chat)
    assert (chat/"chat.json").read_text() == first

def put(*path, value):
    "A function that puts a value into the place of another one."
    def change(about):
        *way, last = path
        for key in way: about = about[key]
        about[last] = value
    return pytest.param(change, id=ascii(f"{path[-1]} {value}")[:50])

def without(*path):
    def change(about):
        *way, last = path
        for key in way: about = about[key]
        del about[last]
    return pytest.param(change, id=f"without {path[-1]}")

TURN = ("turns", 0)
WRONG = [
    *[put("format", value=v) for v in (None, 0, 3, "2", [], 2.5)], without("format"), without("turns"), without("settings"),
    *[put("turns", value=v) for v in (None, 5, "x", {"a": 1}, [5], [None], [[]], [{}])], *[put("settings", value=v) for v in (None, 5, [], {"no_such": 1}, {"seed": -1}, {"temperature": "x"}, {"system": 5})],
    *[put(*TURN, "text", value=v) for v in (None, 5, ["x"], {})], *[put(*TURN, "reply", value=v) for v in (None, 5, [])], *[put(*TURN, "error", value=v) for v in (None, 5)],
    *[put(*TURN, "transcripts", value=v) for v in (None, 5, "hello", [5], [None], {"a": 1})], *[put(*TURN, "images", value=v) for v in (None, 5, ["a.png"], [None], [{}], [{"name": "a"}], {"file": "a"})],
    *[put(*TURN, "audio", value=v) for v in (None, 5, ["a.wav"])], *[put(*TURN, "stats", value=v) for v in (None, 5, [], "x")],
    *[put(*TURN, "stats", value=v) for v in ({"dropped_turns": -1}, {"dropped_turns": "1"}, {"max_prompt_tokens": 1.5}, {"prompt_tokens": 5}, {"tokens_per_second": "fast"},
                                             {"image_names": 5}, {"image_names": [[5]]}, {"image_names": [[["cat", "x"]]]}, {"time_to_first_token": "soon"})],
    put(*TURN, "no_such_field", value=1), without(*TURN, "images"), without(*TURN, "state"),
    *[put(*TURN, "images", 0, "file", value=v) for v in (None, 5, "", ".", "..", "../chat.json", "/etc/passwd", "sub/x.png", "missing.png", "chat.json", "a\0b", "x" * 300)],
]

@pytest.mark.parametrize("wrong", WRONG)
def test_a_conversation_that_somebody_wrote_is_checked(wrong, chat):
    change(chat, wrong)
    with refused(MMError): Chat.load(chat, "tiny")

@pytest.mark.parametrize("name", [None, 5, ["x"], "../../x.png", "<script>alert(1)</script>", "x" * 5000, "\x1b[31m"], ids=lambda x: str(x)[:20])
def test_names_of_media_are_texts_and_no_paths(name, chat):
    change(chat, lambda about: about["turns"][0]["images"][0].update(name=name))
    shown = Chat.load(chat, "tiny").turns[0].images[0].name
    assert isinstance(shown, str)

@pytest.mark.parametrize("state", ["writing", "waiting", "stopped", "eternal", None, 5, [], {"a": 1}], ids=str)
def test_a_turn_that_was_being_written_is_stopped(state, chat):
    change(chat, lambda about: about["turns"][0].update(state=state))
    assert Chat.load(chat, "tiny").turns[0].state == "stopped"

@NEEDS_FIFOS
@pytest.mark.parametrize("make", ["pipe", "folder", "nothing", "link to nothing", "empty", "junk", "endless device"])
def test_a_chat_json_that_is_none(make, chat):
    path = chat/"chat.json"
    path.unlink()
    if make == "pipe": os.mkfifo(path)
    if make == "folder": path.mkdir()
    if make == "link to nothing": path.symlink_to("nothing")
    if make == "empty": path.touch()
    if make == "junk": path.write_bytes(b"\xff\xfe junk")
    if make == "endless device": path.symlink_to("/dev/zero")
    with refused(ChatError, seconds=3): Chat.load(chat, "tiny")

def media(folder): return sorted(p for p in folder.iterdir() if p.name != "chat.json")

@NEEDS_FIFOS
@pytest.mark.parametrize("make", ["nothing", "empty", "cut", "junk", "folder", "pipe", "link elsewhere", "link to nothing"])
@pytest.mark.parametrize("number", [0, 1])
def test_media_that_were_lost_or_exchanged_are_named(number, make, chat, tmp_path):
    path = media(chat)[number]
    content = path.read_bytes()
    path.unlink()
    if make == "empty": path.touch()
    if make == "cut": path.write_bytes(content[:len(content)//2])
    if make == "junk": path.write_bytes(b"junk" * 100)
    if make == "folder": path.mkdir()
    if make == "pipe": os.mkfifo(path)
    if make == "link elsewhere":
        (tmp_path/"secret").write_bytes(content)
        path.symlink_to(tmp_path/"secret")
    if make == "link to nothing": path.symlink_to("nothing")
    with refused(MMError, seconds=3): Chat.load(chat, "tiny")

@pytest.mark.parametrize("place", [None, 5, b"x", "", "x" * 5000, "x\0y", "/dev/null", "nowhere", "\udcff"], ids=lambda x: repr(x)[:20])
def test_what_names_no_conversation(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with refused(ChatError): Chat.load(place, "tiny")

def test_a_copied_conversation_is_opened(chat, tmp_path):
    copy = Path(shutil.copytree(chat, tmp_path/"copy"))
    assert len(Chat.load(copy, "tiny").turns) == 1

def test_saving_does_not_follow_what_is_loaded(chat):
    found = Chat.load(chat, "tiny")
    found.turns.clear()
    found.save(chat)
    assert media(chat) == []

HOSTILE = ["<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "[x](javascript:alert(1))", "[x](data:text/html,<script>alert(1)</script>)", "![x](http://evil/x.png)",
           "<a href='javascript:alert(1)'>x</a>", "<svg onload=alert(1)>", "```html\n<script>alert(1)</script>\n```", "<style>*{display:none}</style>", "[x](vbscript:x)"]

@pytest.mark.parametrize("text", HOSTILE)
def test_what_is_shown_cannot_act(text):
    shown = to_html(text).lower()
    for word in ("<script", "<img", "<svg", "<style", "href=\"javascript", "href=\"data", "href=\"vbscript", "onerror=alert(1)>"): assert word not in shown

def test_a_conversation_is_never_half_loaded(chat):
    assert not is_refused(Chat.load, chat, "tiny")
    (chat/"chat.json").write_bytes((chat/"chat.json").read_bytes()[:-3])
    assert is_refused(Chat.load, chat, "tiny")
