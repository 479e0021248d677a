"Small pictures and sounds of every form that mmllm reads, made on the spot: what tests/ and tools/fuzz.py damage."
import functools, io, re, struct, zlib
import numpy as np
import soundfile
from PIL import Image

def landscape(width=48, height=36):
    "A small picture with edges, colours and noise, the same every time."
    y, x = np.mgrid[:height, :width]
    noise = np.random.default_rng(0).integers(0, 40, (height, width))
    pixels = np.stack([x * 215 // width + noise, y * 215 // height + noise, (x + y) * 2 % 216 + noise], 2)
    return Image.fromarray(pixels.astype(np.uint8))

def as_file(image, kind, **options):
    "The bytes of a picture's file."
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()

def turned():
    "EXIF that says: turn me by 90 degrees."
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif.tobytes()

def translucent(image):
    "The picture with an alpha channel that fades from left to right."
    faded = image.convert("RGBA")
    faded.putalpha(Image.linear_gradient("L").rotate(90).resize(image.size))
    return faded

@functools.cache
def pictures():
    "{name: bytes of a file}"
    image = landscape()
    flipped = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    found = {f"png {mode}": as_file(image.convert(mode), "PNG") for mode in ("1", "L", "LA", "P", "RGB")}
    found |= {f"jpeg {mode}": as_file(image.convert(mode), "JPEG") for mode in ("L", "RGB", "CMYK")}
    found |= {
        "png RGBA": as_file(translucent(image), "PNG"),
        "png I;16": as_file(Image.fromarray(np.arange(48*36, dtype=np.uint16).reshape(36, 48) * 37), "PNG"),
        "png P, transparent": as_file(image.convert("P"), "PNG", transparency=3),
        "png, animated": as_file(image, "PNG", save_all=True, append_images=[flipped], duration=50),
        "png, with text": as_file(image, "PNG", exif=turned(), dpi=(72, 72)),
        "jpeg, progressive": as_file(image, "JPEG", progressive=True),
        "jpeg, turned": as_file(image, "JPEG", exif=turned()),
        "jpeg, restart marks": as_file(image, "JPEG", restart_marker_blocks=2),
        "webp": as_file(image, "WEBP"),
        "webp, lossless": as_file(image, "WEBP", lossless=True),
        "webp RGBA": as_file(translucent(image), "WEBP"),
        "webp, animated": as_file(image, "WEBP", save_all=True, append_images=[flipped], duration=50),
        "gif": as_file(image, "GIF"),
        "gif, animated": as_file(image, "GIF", save_all=True, append_images=[flipped], duration=50),
        "gif, transparent": as_file(image.convert("P"), "GIF", transparency=3),
    }
    return found

def voice(seconds=1., rate=16_000):
    "Something like a vowel: a buzz that swells and fades."
    t = np.arange(int(seconds * rate)) / rate
    return (0.4 * np.sin(np.pi * t / seconds) * np.sign(np.sin(2*np.pi*120*t)) * np.sin(2*np.pi*700*t)).astype(np.float32)

def as_sound(wave, rate=16_000, kind="WAV", subtype=None):
    "The bytes of a sound's file; those of Ogg always have the same serial number."
    file = io.BytesIO()
    soundfile.write(file, wave, rate, format=kind, subtype=subtype)
    data = re.sub(rb"(PEAK.{8}).{4}", rb"\1\0\0\0\0", file.getvalue(), count=1, flags=re.DOTALL) # when it was written
    return with_serial(data) if kind == "OGG" else data

WAVES = ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW", "MS_ADPCM", "IMA_ADPCM", "GSM610")

@functools.cache
def sounds():
    "{name: bytes of a file}"
    wave, quick = voice(), voice(.3, 44_100)
    both = np.stack([quick, -.5 * quick], 1)
    found = {f"wav {subtype}": as_sound(wave, subtype=subtype) for subtype in WAVES}
    found |= {
        "wav, stereo": as_sound(both, 44_100),
        "wav extensible": as_sound(both, 44_100, "WAVEX"),
        "flac": as_sound(wave, kind="FLAC"),
        "flac, stereo, 24 bits": as_sound(both, 44_100, "FLAC", "PCM_24"),
        "ogg": as_sound(wave, kind="OGG", subtype="VORBIS"),
        "ogg, stereo": as_sound(both, 44_100, "OGG", "VORBIS"),
        "ogg opus": as_sound(wave, kind="OGG", subtype="OPUS"),
        "mp3": as_sound(wave, kind="MP3"),
        "mp3, stereo": as_sound(both, 44_100, "MP3"),
        "mp3, 48 kHz": as_sound(voice(.3, 48_000), 48_000, "MP3"),
    }
    return found

# --- checksums, which would hide what lies behind them

def _ogg_table():
    table = []
    for byte in range(256):
        value = byte << 24
        for _ in range(8): value = (value << 1) ^ (0x04C11DB7 if value & 0x80000000 else 0)
        table.append(value & 0xFFFFFFFF)
    return table

_TABLE = _ogg_table()

def _ogg_checksum(page):
    value = 0
    for byte in page: value = (value << 8 & 0xFFFFFFFF) ^ _TABLE[value >> 24 ^ byte]
    return value

def ogg_pages(data):
    "(start, end) of each page that is whole."
    at = data.find(b"OggS")
    while 0 <= at and len(data) >= at + 27:
        end = at + 27 + data[at + 26] + sum(data[at + 27:at + 27 + data[at + 26]])
        if end <= len(data): yield at, end
        at = data.find(b"OggS", max(end if end <= len(data) else 0, at + 4))

def mended_ogg(data):
    "The same with the right checksum on every page."
    data = bytearray(data)
    for start, end in ogg_pages(bytes(data)):
        data[start + 22:start + 26] = bytes(4)
        data[start + 22:start + 26] = struct.pack("<I", _ogg_checksum(data[start:end]))
    return bytes(data)

def with_serial(data, serial=1):
    "An Ogg file whose pages have this serial number."
    data = bytearray(data)
    for start, _ in ogg_pages(bytes(data)): data[start + 14:start + 18] = struct.pack("<I", serial)
    return mended_ogg(data)

def mended_png(data):
    "The same with the right checksum on every chunk that is whole."
    data, at = bytearray(data), 8
    while at + 12 <= len(data):
        size = int.from_bytes(data[at:at + 4], "big")
        end = at + 8 + size
        if end + 4 > len(data): break
        data[end:end + 4] = struct.pack(">I", zlib.crc32(data[at + 4:end]))
        at = end + 4
    return bytes(data)

def mended(data):
    "The same with right checksums, where the format has some."
    if data.startswith(b"\x89PNG"): return mended_png(data)
    return mended_ogg(data) if re.match(b"OggS", data) else data
