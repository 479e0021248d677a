"Places where nothing can be written: found out before the work, by everything that writes."
import contextlib, os, shutil, subprocess
import numpy as np
import pytest
from helpers import IS_ROOT, NEEDS_FIFOS, NOT_ROOT, refused
from mmllm.chat import Chat
from mmllm.core import MMError
from mmllm.files import PathError, atomic_file, check_writable

def under_a_file(tmp_path):
    (tmp_path/"file").write_text("mine")
    return tmp_path/"file"/"out"
def in_proc(tmp_path): return "/proc/mmllm"
def long_name(tmp_path): return tmp_path/("x" * 300)
def long_below(tmp_path): return tmp_path/("x" * 300)/"out"
def with_nul(tmp_path): return f"{tmp_path}/a\0b"
def circular(tmp_path):
    (tmp_path/"circle").symlink_to("circle")
    return tmp_path/"circle"/"out"
def under_a_device(tmp_path): return "/dev/null/out"
def endless(tmp_path): return "/".join([str(tmp_path), *["x" * 100] * 60])

PLACES = [under_a_file, in_proc, long_name, long_below, with_nul, circular, under_a_device, endless]

def save_a_bundle(place, learner): learner.save_pretrained(place)
def save_a_conversation(place, learner): Chat("tiny").save(place)
def train(place, learner):
    from mmllm.training import train_recipe
    train_recipe("all", "tiny", place)
def train_one_stage(place, learner):
    from mmllm.training.trainer import train
    train(learner, "align", [{}] * 40, place)
def evaluate(place, learner):
    from mmllm.evaluation import evaluate_bundle
    evaluate_bundle("no-such-bundle", out=place)
def keep_replies(place, learner):
    from mmllm.evaluation.run import read_replies
    read_replies(place, "key")
def write_a_file(place, learner):
    with atomic_file(place) as part: part.write_text("x")
def ask_for_features(place, learner):
    from mmllm.cli import features
    features(str(place))
def show(place, learner):
    from mmllm.cli import demo
    demo(str(place))

WRITERS = [save_a_bundle, save_a_conversation, train, train_one_stage, evaluate, keep_replies, write_a_file, ask_for_features, show]

@pytest.mark.parametrize("place", PLACES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("writer", WRITERS, ids=lambda f: f.__name__)
def test_what_cannot_be_written_is_refused_before_the_work(writer, place, tmp_path, learner):
    where = place(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with refused(MMError, seconds=2): writer(where, learner)
    assert sorted(tmp_path.rglob("*")) == before, "something was left there"

@NOT_ROOT
@pytest.mark.parametrize("writer", WRITERS, ids=lambda f: f.__name__)
def test_a_folder_that_may_not_be_written(writer, tmp_path, learner):
    (tmp_path/"theirs").mkdir(mode=0o500)
    with refused(MMError, seconds=2): writer(tmp_path/"theirs"/"out", learner)

@pytest.mark.parametrize("name", [None, 5, b"bytes", 1.5, [], {}], ids=repr)
def test_what_names_no_place(name):
    with refused(PathError): check_writable(name)

@NEEDS_FIFOS
@pytest.mark.parametrize("is_file", [True, False])
@pytest.mark.parametrize("make", ["pipe", "folder", "file", "link to nothing", "device"])
def test_what_stands_there_already(make, is_file, tmp_path):
    place = tmp_path/"place"
    if make == "pipe": os.mkfifo(place)
    if make == "folder": place.mkdir()
    if make == "file": place.touch()
    if make == "link to nothing": place.symlink_to(tmp_path/"there")
    if make == "device": place = "/dev/null"
    if make == ("file" if is_file else "folder"): assert check_writable(place, is_file) == place
    elif make == "link to nothing": assert check_writable(place, is_file) == tmp_path/"there"
    else:
        with refused(PathError): check_writable(place, is_file)

def test_looking_leaves_nothing(tmp_path):
    check_writable(tmp_path/"a"/"b"/"c", room_mb=1)
    check_writable(tmp_path/"été \udcff"/"x.json", is_file=True)
    assert list(tmp_path.iterdir()) == []

def test_more_room_than_there_is(tmp_path):
    with refused(PathError, "make room"): check_writable(tmp_path/"out", room_mb=1e12)

# --- a disk that is full

@pytest.fixture
def small_disk(tmp_path):
    "A disk of 2 MiB."
    if not IS_ROOT or shutil.which("mount") is None: pytest.skip("only the administrator mounts disks")
    place = tmp_path/"disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")
    yield place
    subprocess.run(["umount", "-l", place], check=True)

def fill(disk, leave):
    "Fill a disk but for so many bytes."
    with contextlib.suppress(OSError), open(disk/"ballast", "wb", buffering=0) as file:
        while shutil.disk_usage(disk).free > leave: file.write(bytes(min(65_536, shutil.disk_usage(disk).free - leave)))

@pytest.mark.parametrize("leave", [0, 8192, 200_000])
def test_a_full_disk_loses_no_bundle(leave, small_disk, learner):
    learner.save_pretrained(small_disk/"tiny") # 1.7 MB
    before = {p.name: p.read_bytes() for p in (small_disk/"tiny").rglob("*") if p.is_file()}
    fill(small_disk, leave)
    with refused(PathError, "full"): learner.save_pretrained(small_disk/"tiny")
    assert {p.name: p.read_bytes() for p in (small_disk/"tiny").rglob("*") if p.is_file()} == before
    assert sorted(p.name for p in small_disk.iterdir()) == ["ballast", "tiny"]

def test_a_disk_that_fills_up_while_it_is_written(small_disk, learner):
    fill(small_disk, 1_200_000)
    with refused(PathError, "full"): learner.save_pretrained(small_disk/"tiny")
    assert sorted(p.name for p in small_disk.iterdir()) == ["ballast"]

def test_a_full_disk_loses_no_conversation(small_disk):
    Chat("tiny", system="old").save(small_disk/"chat")
    fill(small_disk, 0)
    with refused(MMError, "full"): Chat("tiny", system="new").save(small_disk/"chat")
    assert Chat.load(small_disk/"chat", "tiny").settings.system == "old"

def test_a_full_cache_is_not_blamed_on_the_network(small_disk, monkeypatch):
    from mmllm.weights import fetch
    monkeypatch.setenv("MMLLM_CACHE", str(small_disk/"cache"))
    fill(small_disk, 100_000)
    with refused(PathError, "full", "MMLLM_CACHE"): fetch("tiny-phi3")

def test_training_needs_room(small_disk, learner):
    from mmllm.training import train_recipe
    with refused(PathError, "full"): train_recipe("all", "tiny", small_disk/"run")

def test_replies_that_do_not_fit_say_so(small_disk, picture):
    from mmllm.evaluation.items import Item
    from mmllm.evaluation.run import evaluate as run
    messages = [{"role": "user", "content": [{"type": "image", "image": np.array(picture)}, {"type": "text", "text": "What?"}]}]
    items = [Item(messages, ["a cat"], f"{i}.jpg", "question") for i in range(2)]
    fill(small_disk, 16_384)
    with refused(PathError, "full"): run(lambda asked: ["x" * 100_000] * len(asked), items, ablations=(), save=small_disk/"replies.jsonl", progress=False)

@pytest.mark.skipif(not hasattr(os, "fork"), reason="a process is limited")
def test_a_disk_that_takes_no_large_files_is_called_by_its_name(learner, tmp_path):
    import resource, signal
    pid = os.fork()
    if not pid:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        try: learner.save_pretrained(tmp_path/"run")
        except PathError as error: os._exit(0 if "file of that size" in str(error) else 2)
        finally: os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert not (tmp_path/"run").exists()
