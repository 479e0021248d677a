"Where a picture or a sound may come from, and what is no such place."
import io, os, socket, tempfile
from pathlib import Path
import numpy as np
import pytest
from helpers import NEEDS_FIFOS, NOT_ROOT, refused
import samples
from mmllm.data.media import EmptyMedia, MediaError, MediaNotFound, MediaTooLarge, UnknownFormat, load_audio, load_image

LOADERS = {"picture": (load_image, samples.pictures()["png RGB"]), "sound": (load_audio, samples.sounds()["wav PCM_16"])}

@pytest.fixture(params=LOADERS)
def loader(request): return LOADERS[request.param][0]

@pytest.fixture
def content(loader): return next(data for function, data in LOADERS.values() if function is loader)

NAMES = ["missing.png", "", ".", "..", "a" * 300, "a" * 5000, "a\0b", "\udcff.png", "~nobody-of-this-name/x", "/dev/null/x", "\n", "http://example.com/x.png"]

@pytest.mark.parametrize("name", NAMES, ids=lambda name: repr(name)[:20])
def test_no_such_file(loader, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with refused(MediaNotFound): loader(name)

@NEEDS_FIFOS
@pytest.mark.parametrize("make", ["folder", "pipe", "socket", "link to nothing", "link to itself", "link to a folder", "device"])
def test_what_is_no_file_is_refused_and_does_not_hang(loader, make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path) # the name of a socket has to be short
    place = Path("place")
    if make == "folder": place.mkdir()
    if make == "pipe": os.mkfifo(place)
    if make == "socket": socket.socket(socket.AF_UNIX).bind("place")
    if make == "link to nothing": place.symlink_to("nothing")
    if make == "link to itself": place.symlink_to("place")
    if make == "link to a folder": place.symlink_to(".")
    if make == "device": place = Path("/dev/zero")
    with refused(MediaNotFound, seconds=2): loader(place)

@NOT_ROOT
def test_a_file_that_may_not_be_read(loader, content, tmp_path):
    (tmp_path/"x").write_bytes(content)
    (tmp_path/"x").chmod(0)
    with refused(MediaNotFound, "permissions"): loader(tmp_path/"x")

WRONG = [None, 5, 1.5, True, [], {}, object(), Path, ("a.png",), {"image": "a.png"}, [b"abc"], np.str_]

@pytest.mark.parametrize("thing", WRONG, ids=lambda thing: str(thing)[:20])
def test_what_is_no_source_at_all(loader, thing):
    with refused(UnknownFormat, "path, bytes"): loader(thing)

@pytest.mark.parametrize("thing", [b"", bytearray(), memoryview(b""), io.BytesIO()], ids=lambda thing: type(thing).__name__)
def test_nothing_is_empty(loader, thing):
    with refused(EmptyMedia): loader(thing)

def test_an_empty_file_is_empty(loader, tmp_path):
    (tmp_path/"x.png").touch()
    with refused(EmptyMedia, "x.png"): loader(tmp_path/"x.png")

def test_an_open_text_file(loader):
    with refused(UnknownFormat, "binary"): loader(io.StringIO("some text"))

def test_a_closed_file(loader):
    file = io.BytesIO(b"x")
    file.close()
    with refused(MediaNotFound): loader(file)

def test_an_open_file_that_only_writes(loader, tmp_path):
    with open(tmp_path/"x", "wb") as file, refused(MediaNotFound): loader(file)

def test_every_way_to_give_a_file_gives_the_same(loader, content, tmp_path):
    (tmp_path/"plain").write_bytes(content)
    (tmp_path/"link").symlink_to("plain")
    odd = tmp_path/"été \udcff\n.png" if os.name != "nt" else tmp_path/"été.png"
    odd.write_bytes(content)
    ways = [tmp_path/"plain", str(tmp_path/"plain"), tmp_path/"link", odd, content, bytearray(content), memoryview(content), io.BytesIO(content),
            memoryview(np.frombuffer(content, np.uint8))]
    with open(tmp_path/"plain", "rb") as file, tempfile.SpooledTemporaryFile() as spooled:
        spooled.write(content)
        found = [loader(way) for way in (*ways, file, spooled)]
    assert all(np.array_equal(one, found[0]) for one in found)

def test_a_name_in_a_message_is_safe_to_print(loader, tmp_path):
    place = tmp_path/"\x1b[31mred\udcff\n.png"
    place.write_bytes(b"no media")
    with refused(UnknownFormat) as _: loader(place)
    try: loader(place)
    except MediaError as error: assert "\x1b" not in str(error)

def test_a_file_that_is_too_large_is_not_read(loader, tmp_path):
    with open(tmp_path/"large", "wb") as file: file.truncate(2**34) # 16 GiB of nothing
    with refused(MediaTooLarge, "MiB", seconds=1): loader(tmp_path/"large")
