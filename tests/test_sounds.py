"Sounds from anywhere: whole ones are heard as they are, others are refused by name."
import struct, time
import numpy as np
import pytest
from helpers import refused
import samples
import mmllm.data.speech as speech
from mmllm.data.media import (
    DamagedMedia, EmptyMedia, InvalidSamples, MediaError, MediaTooLarge, UnknownFormat, load_audio,
)

SOUNDS = samples.sounds()
SECONDS = {name: .3 if "stereo" in name or "48" in name or "extensible" in name else 1. for name in SOUNDS}

def loudness(wave): return float(np.sqrt(np.mean(np.square(wave))))

@pytest.mark.parametrize("name", SOUNDS)
def test_a_whole_sound_is_heard(name):
    wave = load_audio(SOUNDS[name])
    assert wave.dtype == np.float32 and wave.ndim == 1
    assert abs(len(wave) / 16_000 - SECONDS[name]) < .08
    own = samples.voice(SECONDS[name])
    share = .25 if "stereo" in name or "extensible" in name else 1. # the channels are averaged
    assert abs(loudness(wave) / loudness(own) - share) < .15 * share

@pytest.mark.parametrize("name", SOUNDS)
@pytest.mark.parametrize("share", [.05, .5, .95])
def test_a_sound_that_is_cut_off_is_refused(name, share):
    with refused(MediaError): load_audio(SOUNDS[name][:int(len(SOUNDS[name]) * share)])

# --- joined, streamed, anti-phase

@pytest.mark.parametrize("name", ["ogg", "ogg opus", "flac"])
def test_joined_recordings_are_refused_for_only_one_would_be_heard(name):
    with refused(DamagedMedia, "joined"): load_audio(SOUNDS[name] * 2)

def test_joined_recordings_with_serial_numbers_of_their_own_are_refused():
    with refused(DamagedMedia, "joined"): load_audio(SOUNDS["ogg"] + samples.with_serial(SOUNDS["ogg"], 2))

def test_of_joined_mp3_it_is_said_that_the_second_would_not_be_heard():
    with refused(DamagedMedia, "1.0 s of the 1.9 s"): load_audio(SOUNDS["mp3"] * 2)

def streamed_flac(data):
    "A FLAC whose header does not say how many samples there are."
    data = bytearray(data)
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    return bytes(data)

def test_a_streamed_flac_lasts_as_long_as_it_lasts():
    whole, streamed = load_audio(SOUNDS["flac"]), load_audio(streamed_flac(SOUNDS["flac"]))
    assert np.array_equal(whole, streamed)

def test_a_flac_that_claims_years_is_refused():
    data = bytearray(SOUNDS["flac"])
    data[21] |= 0x0F
    data[22:26] = b"\xff" * 4
    with refused(MediaTooLarge): load_audio(bytes(data))

def test_a_streamed_wav_is_read():
    data = bytearray(SOUNDS["wav PCM_16"])
    data[40:44] = data[4:8] = b"\xff" * 4
    assert abs(len(load_audio(bytes(data))) - 16_000) < 2

@pytest.mark.parametrize("kind", ["WAV", "FLAC"])
def test_channels_that_cancel_each_other_are_not_silence(kind):
    wave = samples.voice()
    found = load_audio(samples.as_sound(np.stack([wave, -wave], 1), kind=kind))
    assert abs(loudness(found) / loudness(wave) - 1) < .01

def test_one_silent_channel_halves_the_sound():
    wave = samples.voice()
    found = load_audio(samples.as_sound(np.stack([wave, 0 * wave], 1)))
    assert abs(loudness(found) / loudness(wave) - .5) < .01

@pytest.mark.parametrize("rate", [8000, 11_025, 22_050, 44_100, 48_000, 96_000])
def test_another_rate_is_resampled(rate):
    wave = load_audio(samples.as_sound(samples.voice(.5, rate), rate))
    assert abs(len(wave) - 8000) < 3
    assert abs(loudness(wave) / loudness(samples.voice(.5)) - 1) < .1

# --- claims

def wav_with(**fields):
    "A WAV with other numbers in its header."
    data = bytearray(SOUNDS["wav PCM_16"])
    places = dict(format=(20, "<H"), channels=(22, "<H"), rate=(24, "<I"), per_second=(28, "<I"), align=(32, "<H"), bits=(34, "<H"), size=(40, "<I"))
    for name, value in fields.items():
        at, form = places[name]
        data[at:at + struct.calcsize(form)] = struct.pack(form, value)
    return bytes(data)

CLAIMS = [
    dict(channels=0), dict(channels=33), dict(channels=65_535), dict(rate=0), dict(rate=1), dict(rate=2**31 - 1), dict(rate=2**32 - 1),
    dict(bits=0), dict(bits=65_535), dict(format=0), dict(format=0x55), dict(format=0xFFFF), dict(align=0, bits=0),
    dict(size=2**31 - 1), dict(size=2**32 - 2),
]

@pytest.mark.parametrize("fields", CLAIMS, ids=str)
def test_a_header_that_makes_no_sense_is_refused(fields):
    with refused(MediaError, seconds=3): load_audio(wav_with(**fields))

@pytest.mark.parametrize("kind", ["WAV", "FLAC"])
def test_a_sound_without_samples_is_empty(kind):
    with refused(MediaError): load_audio(samples.as_sound(np.zeros(0, np.float32), kind=kind))

def test_a_sound_of_an_hour_is_refused_before_it_is_heard():
    long = samples.as_sound(np.zeros(3600 * 8000, np.float32), 8000, subtype="ULAW")
    with refused(MediaTooLarge, "3600 s", seconds=2): load_audio(long)

def test_a_streamed_hour_is_refused_too():
    long = samples.as_sound(np.zeros(1200 * 16_000, np.float32), kind="FLAC")
    assert len(long) < 1_000_000
    with refused(MediaTooLarge, "cut it into pieces"): load_audio(streamed_flac(long))

@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e6, 3e38])
def test_floating_point_files_hold_sound_and_nothing_else(value):
    wave = samples.voice()
    wave[100] = value
    with refused(InvalidSamples): load_audio(samples.as_sound(wave, subtype="FLOAT"))

# --- what is no sound

STRANGERS = {
    "PDF": b"%PDF-1.7\n" + bytes(40), "ZIP": b"PK\x03\x04" + bytes(40), "AIFF": b"FORM\0\0\0\0AIFF" + bytes(40),
    "MP4": bytes(4) + b"ftypM4A " + bytes(40), "WebM": b"\x1aE\xdf\xa3" + bytes(40),
    "an image": samples.pictures()["png RGB"], "no known format": b"<!DOCTYPE html><title>404</title>",
}

@pytest.mark.parametrize("word", STRANGERS)
def test_what_is_no_sound_is_called_what_it_is(word):
    with refused(UnknownFormat, word, "WAV, FLAC, OGG, MP3"): load_audio(STRANGERS[word])

@pytest.mark.parametrize("start", [b"RIFF\0\0\0\0WAVE", b"fLaC", b"OggS", b"ID3", b"\xff\xfb\x90\x00", b"RIFF\xff\xff\xff\xffWAVEfmt "])
@pytest.mark.parametrize("rest", [b"", bytes(500), b"\xff" * 500], ids=["alone", "zeros", "ones"])
def test_a_beginning_alone_is_no_sound(start, rest):
    with refused(MediaError): load_audio(start + rest)

def test_a_damaged_mp3_prints_nothing(capfd):
    data = bytearray(SOUNDS["mp3"])
    data[600:1800] = bytes(range(256)) * 4 + bytes(176)
    with refused(MediaError): load_audio(bytes(data))
    said = capfd.readouterr()
    assert said.err == said.out == ""

# --- arrays

ARRAYS = [
    ("int16", np.zeros(100, np.int16), InvalidSamples), ("NaN", np.full(100, np.nan, np.float32), InvalidSamples),
    ("infinity", np.full(100, np.inf), InvalidSamples), ("complex", np.zeros(100, complex), InvalidSamples),
    ("bool", np.zeros(100, bool), InvalidSamples), ("text", np.array(["a"]), InvalidSamples),
    ("stereo", np.zeros((100, 2), np.float32), InvalidSamples), ("a number", np.float32(0)[...], InvalidSamples),
    ("too loud", np.full(100, 32_768., np.float32), InvalidSamples), ("nothing", np.zeros(0, np.float32), EmptyMedia),
    ("an hour", np.broadcast_to(np.float32(0), 3600 * 16_000), MediaTooLarge),
]

@pytest.mark.parametrize("name, array, kind", ARRAYS, ids=[name for name, *_ in ARRAYS])
def test_an_array_that_is_no_sound_is_refused(name, array, kind):
    with refused(kind): load_audio(array)

@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_an_array_is_heard_as_it_is(kind):
    found = load_audio(samples.voice().astype(kind)[::-1])
    assert found.dtype == np.float32 and found.flags["C_CONTIGUOUS"]
    assert np.allclose(found, samples.voice()[::-1], atol=1e-3)

def test_a_voice_says_the_same_at_any_time():
    pytest.importorskip("espeakng_loader")
    said = speech.random_utterances([f"The cat number {i} sat on the mat." for i in range(12)], 0)
    before = speech.speak(said)
    time.sleep(1.1) # eSpeak NG draws by the second
    assert all(np.array_equal(a, b) for a, b in zip(before, speech.speak(said), strict=True))
