"Whatever was damaged in the cache is noticed and made again; what is somebody's stays; what cannot be helped is one sentence."
import itertools, json, os, shutil, signal, time, zipfile
from pathlib import Path
import pytest
import torch
from helpers import NEEDS_FIFOS, NOT_ROOT, empty, folder, link_to_nothing, refused, remove
from mmllm.core import MMError, cache_dir, is_cached, plan
from mmllm.files import FolderKind, PathError, replaced_folder
from mmllm.vision.features import TensorFolder
from mmllm.weights import check_model_folder, fetch
from mmllm.weights import download
from mmllm.weights.download import HashMismatch, Package, WeightsError, build_folder, check_sha256, file_sha256, find_damage, unpack_members

NAME = "tiny-phi3"

@pytest.fixture
def weights(cache, tmp_path, monkeypatch):
    "A cache of its own with a copy of the tiny language model."
    whole = fetch(NAME)
    monkeypatch.setenv("MMLLM_CACHE", str(tmp_path/"cache"))
    return Path(shutil.copytree(whole, tmp_path/"cache"/"weights"/NAME))

def cut(path): os.truncate(path, path.stat().st_size // 2)
def junk(path): path.write_bytes(b"\xff\0junk" * 100)
def same_size(path):
    "Other content of the same size, as a bad disk leaves it."
    data = bytearray(path.read_bytes())
    data[len(data)//2:] = bytes(len(data) - len(data)//2)
    path.write_bytes(data)

FILES = ["model.safetensors", "config.json", "tokenizer.json", "conversion.json"]
DAMAGES = [cut, empty, remove, junk, same_size, link_to_nothing, folder]

@pytest.mark.parametrize("damage", DAMAGES, ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", FILES)
def test_damage_is_made_good_again(name, damage, weights, cache, capfd):
    damage(weights/name)
    assert fetch(NAME) == weights
    assert "made again" in capfd.readouterr().err
    assert not find_damage(weights)
    for file in ("model.safetensors", "config.json", "tokenizer.json"):
        assert (weights/file).read_bytes() == (cache/"weights"/NAME/file).read_bytes()
    kept = [f"{NAME}.damaged"] if name == "conversion.json" else [] # without the note nobody knows whose the files are
    assert sorted(p.name for p in weights.parent.iterdir()) == [NAME, *kept]

def test_an_empty_folder_does_not_count_as_fetched(weights, capfd):
    for file in weights.iterdir(): file.unlink()
    assert not is_cached(NAME)
    fetch(NAME)
    assert is_cached(NAME) and "made again" in capfd.readouterr().err

def test_what_is_whole_is_not_made_again(weights, capfd):
    before = (weights/"model.safetensors").stat().st_mtime_ns
    fetch(NAME)
    assert (weights/"model.safetensors").stat().st_mtime_ns == before and not capfd.readouterr().err

def test_what_was_only_touched_is_not_made_again(weights, capfd):
    os.utime(weights/"model.safetensors")
    fetch(NAME)
    assert not capfd.readouterr().err

def test_a_thesis_in_the_cache_is_kept(weights, thesis, capfd):
    thesis.lay(weights)
    empty(weights/"model.safetensors")
    fetch(NAME)
    assert (weights.parent/f"{NAME}.damaged"/"thesis.txt").read_text() == thesis.text
    assert f"{NAME}.damaged" in capfd.readouterr().err

@NEEDS_FIFOS
@pytest.mark.parametrize("make", ["file", "link to nothing", "link to itself", "pipe"])
@pytest.mark.parametrize("place", ["weights/tiny-phi3", "weights", "."])
def test_what_stands_where_a_folder_should_be_is_named(place, make, tmp_path, monkeypatch):
    monkeypatch.setenv("MMLLM_CACHE", str(tmp_path/"cache"))
    place = tmp_path/"cache"/place
    place.parent.mkdir(parents=True, exist_ok=True)
    if make == "file": place.touch()
    if make == "pipe": os.mkfifo(place)
    if make == "link to nothing": place.symlink_to("nothing")
    if make == "link to itself": place.symlink_to(place.name)
    with refused(PathError): fetch(NAME)
    assert os.path.lexists(place)

@pytest.mark.parametrize("make", ["folder", "link"])
def test_a_lock_that_is_none_is_named(make, tmp_path, monkeypatch):
    monkeypatch.setenv("MMLLM_CACHE", str(tmp_path/"cache"))
    lock = tmp_path/"cache"/"weights"/f".{NAME}.lock"
    lock.parent.mkdir(parents=True)
    if make == "folder": lock.mkdir()
    else: lock.symlink_to("nowhere")
    with refused(PathError, ".lock"): fetch(NAME)

@pytest.mark.parametrize("name", ["/proc/mmllm", "/dev/null/cache", "x" * 300, "a\nb/" + "y" * 300])
def test_a_cache_that_cannot_be_written_says_what_to_set(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MMLLM_CACHE", name)
    with refused(PathError): fetch(NAME)

@NOT_ROOT
def test_a_whole_cache_that_cannot_be_written_is_read(weights):
    weights.chmod(0o500)
    assert fetch(NAME) == weights

def test_what_a_killed_process_left_is_swept_up(weights, capfd):
    for name in (f".{NAME}.source", f".{NAME}.part"):
        (weights.parent/name/"sub").mkdir(parents=True)
        (weights.parent/name/"sub"/"half").write_bytes(b"half")
    shutil.rmtree(weights)
    fetch(NAME)
    assert sorted(p.name for p in weights.parent.iterdir()) == [NAME]

# --- names, and folders of models that somebody has

NAMES = ["", "nope", "../x", "a/b/c", "/", "\0", "x" * 5000, "tiny", None, 5, b"tiny-phi3", ["tiny-phi3"], "a b/c", "org/na me", "http://x/y", "./", "\udcff/x"]

@pytest.mark.parametrize("name", NAMES, ids=lambda name: repr(name)[:24])
def test_a_name_of_nothing_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with refused(MMError): fetch(name)

def test_what_is_not_here_cannot_be_had_without_a_network():
    with refused(MMError, "network"): fetch("nobody/nothing-of-this-name")

@pytest.mark.parametrize("device", ["", "gpu", "CUDA", 5, "cpu:0"])
def test_a_plan_needs_a_device(device):
    if device != "":
        with refused(MMError, "no device"): plan("tiny", device)
    else: assert plan("tiny", device).device in ("cpu", "cuda", "mps")

@pytest.mark.parametrize("damage", [remove, cut, empty, junk, folder], ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_folder_of_somebodys_model_is_looked_at(name, damage, weights, tmp_path):
    own = Path(shutil.copytree(weights, tmp_path/"own"))
    damage(own/name)
    with refused(WeightsError): fetch(own)

def test_pickles_are_not_opened(tmp_path):
    (tmp_path/"config.json").write_text('{"model_type": "phi3"}')
    (tmp_path/"pytorch_model.bin").write_bytes(b"\x80\x04pickle")
    with refused(WeightsError, "pickles"): fetch(tmp_path)

@pytest.mark.parametrize("index", ['{"weight_map": {"a": "model-2.safetensors"}}', "{}", "[]", "hello", '{"weight_map": 5}'])
def test_an_index_that_names_what_is_not_there(index, weights):
    (weights/"model.safetensors.index.json").write_text(index)
    with refused(WeightsError): check_model_folder(weights)

def test_a_revision_of_what_has_none_is_refused(weights):
    for name in (NAME, weights):
        with refused(WeightsError, "revision"): fetch(name, revision="main")

# --- what a package brings

def test_a_wrong_hash_is_refused(tmp_path):
    (tmp_path/"x.whl").write_bytes(b"other content")
    with refused(HashMismatch, "x.whl"): check_sha256(tmp_path/"x.whl", "0" * 64)

@pytest.mark.parametrize("name", ["../evil.txt", "/tmp/evil.txt", "a/../../evil.txt"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_members_stay_in_their_folder(kind, name, tmp_path):
    import io, tarfile, zipfile
    archive = tmp_path/f"x.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as box: box.writestr(name, "evil")
    else:
        with tarfile.open(archive, "w") as box:
            about = tarfile.TarInfo(name)
            about.size = 4
            box.addfile(about, io.BytesIO(b"evil"))
    with refused(WeightsError, "outside"): unpack_members(archive, ["*"], tmp_path/"target")
    assert not (tmp_path/"evil.txt").exists()

def test_a_member_that_is_missing_is_named(tmp_path):
    import zipfile
    with zipfile.ZipFile(tmp_path/"x.whl", "w") as box: box.writestr("a.txt", "x")
    with refused(WeightsError, "b.txt"): unpack_members(tmp_path/"x.whl", ["b.txt"], tmp_path/"target")

def test_the_note_lists_what_is_there(weights):
    noted = json.loads((weights/"conversion.json").read_text())["manifest"]
    assert noted.keys() == {p.name for p in weights.iterdir()} - {"conversion.json"}

def test_the_cache_is_where_it_is_said_to_be(tmp_path, monkeypatch):
    monkeypatch.setenv("MMLLM_CACHE", str(tmp_path/"elsewhere"))
    assert cache_dir("weights") == tmp_path/"elsewhere"/"weights"

def test_an_interrupted_download_takes_its_pip_along(cache, monkeypatch):
    "What writes on while the folder is removed would leave a piece of it."
    writes = "import sys, itertools\nfor i in itertools.count(): open(f'{sys.argv[1]}/{i}', 'w').write('a piece')"
    def interrupt(folder):
        if len(list(Path(folder).iterdir())) > 20: raise KeyboardInterrupt
        return 0
    monkeypatch.setattr(download, "_pip_arguments", lambda package, folder: ["-c", writes, str(folder)])
    monkeypatch.setattr(download, "_largest_file", interrupt)
    with pytest.raises(KeyboardInterrupt): build_folder("odd", dict, [Package("odd", "1", "0" * 64, (), 1, "none")])
    assert [path.name for path in (cache/"weights").glob("*odd*")] == []

@pytest.fixture(params=[-86_400, 365 * 86_400], ids=["back a day", "ahead a year"])
def jumping(request, monkeypatch):
    "A clock that is right and, each second time it is asked, wrong."
    now, asked = time.time, itertools.count()
    def jump(): return now() + request.param * (next(asked) % 2)
    monkeypatch.setattr(time, "time", jump)
    monkeypatch.setattr(time, "time_ns", lambda: int(jump() * 1e9))
    return request.param

def test_a_clock_that_jumps_changes_nothing_in_the_cache(jumping, weights, capfd):
    for path in weights.iterdir(): os.utime(path, (time.time() + jumping,) * 2)
    assert fetch(NAME) == weights and not find_damage(weights) # copied or touched, and whole
    known = file_sha256(weights/"config.json")
    (weights/"config.json").write_text("{}")
    os.utime(weights/"config.json", (0, 0))
    assert file_sha256(weights/"config.json") != known
    fetch(NAME)
    assert file_sha256(weights/"config.json") == known and "made again" in capfd.readouterr().err

def test_a_clock_that_jumps_changes_nothing_in_what_is_kept(jumping, tmp_path):
    "Features of pictures, whose files are named by the time, and a folder that is replaced under a lock."
    kept, other = TensorFolder(tmp_path/"features"), TensorFolder(tmp_path/"features")
    for number in range(6): kept.update({f"picture {number}": torch.full((2,), float(number))})
    other.refresh()
    assert [other.get(f"picture {number}")[0].item() for number in range(6)] == list(range(6))
    kind = FolderKind(("*.json",), "mark.json", {"n": None})
    for number in range(4):
        with replaced_folder(tmp_path/"run", kind) as folder: (folder/"mark.json").write_text(f'{{"n": {number}}}')
    assert json.loads((tmp_path/"run"/"mark.json").read_text()) == {"n": 3} and len(list(tmp_path.iterdir())) == 2

LOITERS = "import sys, itertools, time\nfor i in itertools.count():\n    open(f'{sys.argv[1]}/{i}.whl', 'w').write('a piece')\n    time.sleep(.02)"
DELIVERS = "import sys, zipfile\nzipfile.ZipFile(f'{sys.argv[1]}/a.whl', 'w').writestr(zipfile.ZipInfo('x.txt'), 'whole')"

@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot be forked here")
def test_a_pip_that_outlives_its_mmllm_is_not_in_the_way(cache, tmp_path, monkeypatch):
    "`kill -9` ends the one and not the other, which goes on writing while all is fetched again."
    pip = [LOITERS]
    monkeypatch.setattr(download, "_pip_arguments", lambda package, folder: ["-c", pip[0], str(folder)])
    with zipfile.ZipFile(tmp_path/"a.whl", "w") as wheel: wheel.writestr(zipfile.ZipInfo("x.txt"), "whole")
    package = Package("outlived", "1", file_sha256(tmp_path/"a.whl"), ("x.txt",), 0, "none")
    def convert(source, target): return {"copied": str(shutil.copy(source/"x.txt", target))}
    pid = os.fork()
    if not pid:
        try: build_folder("outlived", convert, [package])
        finally: os._exit(1)
    while not list((cache/"weights").glob(".outlived*/download/2.whl")): time.sleep(.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    pip[0] = DELIVERS
    assert (build_folder("outlived", convert, [package])/"x.txt").read_text() == "whole"
