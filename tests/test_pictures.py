"Pictures from anywhere: whole ones are read as they are, others are refused by name."
import io, os, struct, zlib
from pathlib import Path
import numpy as np
import pytest
from PIL import Image
from helpers import refused
import samples
from mmllm.data.media import (
    DamagedMedia, EmptyMedia, InvalidSamples, MediaError, MediaNotFound, MediaTooLarge, StoredImage,
    UnknownFormat, image_key, load_image,
)

PICTURES = samples.pictures()
IS_TURNED = ("png, with text", "jpeg, turned") # by EXIF

def close(a, b, most):
    "Whether two pictures are alike, on average over their pixels."
    return np.abs(a.astype(int) - b.astype(int)).mean() < most

@pytest.mark.parametrize("name", PICTURES)
def test_a_whole_picture_is_read(name, picture):
    found = load_image(PICTURES[name])
    assert found.dtype == np.uint8
    assert found.shape == ((48, 36, 3) if name in IS_TURNED else (36, 48, 3))
    if name in ("png RGB", "png, animated", "webp, lossless"): assert (found == picture).all()
    if name in ("jpeg RGB", "jpeg, progressive", "jpeg, restart marks", "webp"):
        assert close(found, picture, 12)
    if name in IS_TURNED: assert close(found, np.rot90(picture, -1), 12)

ANIMATED = [name for name in PICTURES if "animated" in name]

@pytest.mark.parametrize("name", [name for name in PICTURES if name not in ANIMATED])
@pytest.mark.parametrize("share", [.1, .5, .9])
def test_a_picture_that_is_cut_off_is_refused(name, share):
    with refused(MediaError): load_image(PICTURES[name][:int(len(PICTURES[name]) * share)])

@pytest.mark.parametrize("name", ANIMATED)
def test_of_an_animation_the_first_picture_counts(name):
    first = load_image(PICTURES[name])
    single = {"png, animated": "png RGB", "webp, animated": "webp", "gif, animated": "gif"}[name]
    assert close(first, load_image(PICTURES[single]), 12)

# --- claims

def png_of(width, height, data=b"\0" * 100, depth=8, colour=2):
    "A PNG file with this header, whatever its data are."
    def chunk(kind, content):
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")

def jpeg_that_claims(width, height):
    "A JPEG whose header says so."
    data = bytearray(PICTURES["jpeg RGB"])
    at = data.index(b"\xff\xc0") + 5
    data[at:at + 4] = struct.pack(">HH", height, width)
    return bytes(data)

def gif_that_claims(width, height):
    "A GIF whose screen and first frame are that large."
    data = bytearray(PICTURES["gif"])
    data[6:10] = struct.pack("<HH", width, height)
    at = data.rindex(b"\x2c\0\0\0\0") + 5
    data[at:at + 4] = struct.pack("<HH", width, height)
    return bytes(data)

def webp_that_claims(width, height):
    "A lossy WebP whose frame says so."
    data = bytearray(PICTURES["webp"])
    at = data.index(b"\x9d\x01\x2a") + 3
    data[at:at + 4] = struct.pack("<HH", width, height)
    return bytes(data)

CLAIMS = [
    ("png, more rows than data", png_of(7000, 7000), DamagedMedia),
    ("png, a bomb", png_of(60_000, 60_000), MediaTooLarge),
    ("png, the largest number", png_of(2**31 - 1, 2**31 - 1), MediaTooLarge),
    ("png, beyond the largest number", png_of(2**32 - 1, 2**32 - 1), MediaError),
    ("png, no width", png_of(0, 36), MediaError),
    ("png, a strip", png_of(1, 40_000), MediaTooLarge),
    ("png, a depth that is none", png_of(48, 36, depth=7), MediaError),
    ("png, colours that are none", png_of(48, 36, colour=5), MediaError),
    ("jpeg, 7000 by 7000 over a kilobyte", jpeg_that_claims(7000, 7000), DamagedMedia),
    ("jpeg, one row more than there is", jpeg_that_claims(48, 60), DamagedMedia),
    ("jpeg, 65500 by 65500", jpeg_that_claims(65_500, 65_500), MediaTooLarge),
    ("jpeg, no height", jpeg_that_claims(48, 0), MediaError),
    ("jpeg, a strip", jpeg_that_claims(65_000, 40), MediaTooLarge),
    ("gif, 65535 by 65535", gif_that_claims(65_535, 65_535), MediaTooLarge),
    ("gif, 7000 by 7000", gif_that_claims(7000, 7000), MediaError),
    ("gif, no pixels", gif_that_claims(0, 0), MediaError),
    ("webp, 16383 by 16383", webp_that_claims(16_383, 16_383), MediaTooLarge),
    ("webp, 7000 by 7000", webp_that_claims(7000, 7000), MediaError),
]

@pytest.mark.parametrize("name, data, kind", CLAIMS, ids=[name for name, *_ in CLAIMS])
def test_a_claim_that_is_false_or_too_large_is_refused(name, data, kind):
    with refused(kind): load_image(data)

def test_a_bomb_is_refused_before_it_is_unpacked():
    bomb = png_of(30_000, 30_000, bytes(30_000 * 3001))
    assert len(bomb) < 200_000
    with refused(MediaTooLarge, "900 million pixels", seconds=2): load_image(bomb)

def test_text_that_unpacks_to_gigabytes_is_refused():
    data = PICTURES["png RGB"]
    body = b"zTXtx\0\0" + zlib.compress(bytes(100_000_000))
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    with refused(MediaError, seconds=5): load_image(data[:33] + chunk + data[33:])

def chunk_of(kind, content=b""):
    "A chunk of a PNG."
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

def segment_of(mark, content=b""):
    "A segment of a JPEG."
    return bytes([0xFF, mark]) + struct.pack(">H", len(content) + 2) + content

PIECES = {"png": chunk_of(b"prVt"), "gif": b"!\xfe\1c\0", "jpeg": segment_of(0xE9), "jpeg, filled up": b"\xff"}
NOTE = segment_of(0xE1, b"Exif\0\0" + bytes(60_000))

def with_pieces(name, piece, n):
    "A picture with something between its header and its pixels, so many times."
    data = PICTURES[{"png": "png RGB", "gif": "gif"}.get(name[:3], "jpeg RGB")]
    at = {"png": 33, "gif": 13 + 3*2**((PICTURES["gif"][10] & 7) + 1)}.get(name[:3], 2)
    return data[:at] + piece * n + data[at:]

@pytest.mark.parametrize("name", PIECES)
def test_millions_of_parts_are_refused_soon(name):
    assert load_image(with_pieces(name, PIECES[name], 1000)).shape == (36, 48, 3)
    with refused(DamagedMedia, "too many parts", seconds=5): load_image(with_pieces(name, PIECES[name], 2_000_000))

def test_hundreds_of_notes_of_a_camera_are_refused_soon():
    assert load_image(with_pieces("jpeg", NOTE, 3)).shape == (36, 48, 3)
    with refused(DamagedMedia, "camera notes", seconds=2): load_image(with_pieces("jpeg", NOTE, 900))

@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="its memory is not told")
def test_the_largest_transparent_picture_fits_into_a_gigabyte():
    data = png_of(8000, 8000, bytes(8000 * 16_001), colour=4)
    def most(): return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1e6
    Path("/proc/self/clear_refs").write_text("5")
    before = most()
    assert load_image(data).shape == (8000, 8000, 3)
    assert most() - before < 1, "gigabytes"

def test_a_wrong_checksum_is_refused():
    data = bytearray(PICTURES["png RGB"])
    data[len(data) // 2] ^= 1
    with refused(DamagedMedia): load_image(bytes(data))

# --- what is no picture

STRANGERS = {
    "PDF": b"%PDF-1.7\n" + bytes(40), "ZIP": b"PK\x03\x04" + bytes(40), "TIFF": b"II*\0" + bytes(40),
    "BMP": b"BM\x46\0\0\0\0\0\0\0" + bytes(40), "HEIC": bytes(4) + b"ftypheic" + bytes(40),
    "WebM": b"\x1aE\xdf\xa3" + bytes(40), "a sound": samples.sounds()["flac"],
    "no known format": b"<!DOCTYPE html><title>404 Not Found</title>", "no known": b"\0" * 64,
}

@pytest.mark.parametrize("word", STRANGERS)
def test_what_is_no_picture_is_called_what_it_is(word):
    with refused(UnknownFormat, word, "JPEG, PNG, WebP, GIF"): load_image(STRANGERS[word])

# --- Pillow's pictures and arrays

@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"])
def test_pillow_pictures_keep_their_brightness(mode, picture):
    image = samples.landscape()
    if mode in ("PA", "LAB"): image = Image.merge(mode, [*image.convert("LA").split(), image.getchannel(0)][:len(Image.new(mode, (1, 1)).getbands())])
    else: image = image.convert(mode)
    found = load_image(image)
    assert found.shape == (36, 48, 3) and found.dtype == np.uint8
    if mode not in ("PA", "LAB"): assert abs(found.mean() - picture.mean()) < 12

@pytest.mark.parametrize("mode", ["I", "F"])
def test_pillow_pictures_of_unknown_range_are_refused(mode):
    with refused(InvalidSamples, "scale them"): load_image(samples.landscape().convert(mode))

def test_sixteen_bits_become_eight():
    deep = Image.fromarray(np.array([[0, 257, 32_896, 65_535]] * 2, np.uint16))
    assert load_image(deep)[0, :, 0].tolist() == [0, 1, 128, 255]

def test_what_is_transparent_shows_white():
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert (load_image(clear) == 255).all()

ARRAYS = [
    ("float", np.zeros((4, 4, 3)), InvalidSamples), ("int64", np.zeros((4, 4, 3), int), InvalidSamples),
    ("bool", np.zeros((4, 4), bool), InvalidSamples), ("complex", np.zeros((4, 4, 3), complex), InvalidSamples),
    ("object", np.array([["a"]], object), InvalidSamples), ("one dimension", np.zeros(9, np.uint8), InvalidSamples),
    ("five channels", np.zeros((4, 4, 5), np.uint8), InvalidSamples), ("a batch", np.zeros((1, 4, 4, 3), np.uint8), InvalidSamples),
    ("no rows", np.zeros((0, 4, 3), np.uint8), EmptyMedia), ("no pixels", np.zeros((0, 0), np.uint8), EmptyMedia),
    ("channels first", np.zeros((3, 40, 40), np.uint8), InvalidSamples), ("a number", np.uint8(3)[...], InvalidSamples),
    ("too large", np.broadcast_to(np.uint8(0), (9000, 9000)), MediaTooLarge), ("vast", np.broadcast_to(np.uint8(0), (10**6, 10**6, 3)), MediaTooLarge), ("a strip", np.zeros((2, 300, 3), np.uint8), MediaTooLarge),
]

@pytest.mark.parametrize("name, array, kind", ARRAYS, ids=[name for name, *_ in ARRAYS])
def test_an_array_that_is_no_picture_is_refused(name, array, kind):
    with refused(kind): load_image(array)

def test_a_vast_view_is_not_made_into_bytes():
    with refused(MediaTooLarge): image_key(np.broadcast_to(np.uint8(0), (10**6, 10**6, 3)))

@pytest.mark.parametrize("change", [np.asfortranarray, lambda a: a[::-1], lambda a: a[:, ::2], lambda a: np.dstack([a, np.full(a.shape[:2], 255, np.uint8)])])
def test_arrays_are_read_whatever_their_memory_looks_like(change, picture):
    array = change(picture)
    assert (load_image(array) == array[..., :3]).all()

def test_a_picture_is_known_by_its_content(tmp_path):
    data = PICTURES["png RGB"]
    (tmp_path/"a.png").write_bytes(data)
    assert image_key(tmp_path/"a.png") == image_key(data) == image_key(bytearray(data))
    assert image_key(data) != image_key(PICTURES["png L"])

def test_a_stored_picture_without_its_file_says_so():
    with refused(MediaNotFound, "not at hand"): load_image(StoredImage("0" * 64, None, "cat.jpg"))

def test_an_open_file_is_read_from_its_beginning():
    file = io.BytesIO(PICTURES["png RGB"])
    file.read(20)
    assert load_image(file).shape == (36, 48, 3)
