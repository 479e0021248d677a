"Bundles that somebody damaged, or wrote on purpose: numbers and sizes in files are not believed."
import json, os
import pytest
import torch
from safetensors.torch import load_file, save_file
from helpers import empty, folder, link_to_nothing, refused, remove
from mmllm.core import MMError
from mmllm.evaluation import bundle_hash
from mmllm.model import BundleError, MMModel, find_bundle, read_config

def load(folder, **options): return MMModel.from_pretrained(folder, device="cpu", **options)

def change(bundle, **fields):
    "Other values in `config.json`."
    path = bundle/"config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))

def test_an_unchanged_bundle_is_loaded(bundle, talker):
    question = [{"role": "user", "content": "What is this?"}]
    assert load(bundle).reply(question, max_new_tokens=8) == talker.reply(question, max_new_tokens=8)

# --- what stands in config.json

VALUES = [
    ("model_type", None), ("model_type", 5), ("model_type", "llava"), ("model_type", []),
    ("format", None), ("format", "2"), ("format", 0), ("format", -1), ("format", 3), ("format", 10**30), ("format", 1.5), ("format", [2]),
    ("vision", "no-such-model"), ("audio", ""), ("language", "../../etc/passwd"), ("language", "tiny-clip"), ("vision", "tiny-phi3"), ("audio", "tiny-phi3"),
    ("language", "\0"), ("vision", "é" * 5000), ("grid_hidden", 0), ("audio_lora_r", 10**9), ("words", [5]), ("words", "abc"), ("vision_own_blocks", -1), ("vision_own_blocks", "x"),
    ("bases", {"vision": {"sha256": 5}}),
    ("vision", 5), ("vision", None), ("audio", []), ("language", {"a": 1}), ("language", True),
    ("bases", 5), ("bases", []), ("bases", "x"), ("bases", {"vision": 5}),
    ("image_tokens", -4), ("image_tokens", 0), ("image_tokens", 15), ("image_tokens", "4"), ("image_tokens", 2.5), ("image_tokens", None),
    ("concept_tokens", -1), ("concept_tokens", 100_000), ("concept_tokens", "2"), ("concept_tokens", None),
    ("lora_alpha", None), ("lora_alpha", "x"), ("lora_alpha", []),
    ("preset", "no-such-preset"), ("preset", 5), ("preset", None),
    ("vision_lora_r", -1), ("vision_lora_r", "x"), ("audio_lora_r", [1]),
    ("confidence_gamma", 0), ("confidence_gamma", 2), ("confidence_gamma", "1"), ("grid_hidden", -5), ("grid_hidden", "1024"), ("audio_hidden", None), ("grid_hidden", 10**9),
    ("name_tokens", -1), ("name_tokens", "x"), ("word_tokens", -1), ("words", 5),
    ("trained_in_four_bit", "yes"), ("audio_projector_trained", 5),
    ("projector", None), ("projector", 5), ("projector", "qformer"), ("projector", "llava"), ("pad_to_square", None), ("pad_to_square", "yes"), ("pad_to_square", 1),
    ("max_tiles", None), ("max_tiles", 0), ("max_tiles", 5), ("max_tiles", True), ("max_tiles", 2.5), ("max_tiles", 10**30),
]

@pytest.mark.parametrize("key, value", VALUES, ids=lambda value: ascii(value)[:24])
def test_a_value_that_makes_no_sense_is_refused(key, value, bundle, memory_limit):
    change(bundle, **{key: value})
    with refused(MMError, seconds=5): load(bundle)

RANKS = [0, -1, "16", None, 10_000_000]

@pytest.mark.parametrize("rank", RANKS)
def test_the_rank_of_an_adapter_is_what_its_file_holds(rank, bundle, memory_limit):
    change(bundle, lora_r=rank)
    with refused(MMError, seconds=5): load(bundle)
    with refused(MMError, seconds=5): load(bundle, trainable=True)

@pytest.fixture
def memory_limit():
    "A gigabyte and a half of address space more than there is: what asks for more fails here, not the machine."
    import psutil, resource
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + 3 * 2**29, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)

# --- its files

FILES = ["projectors.safetensors", "clip.safetensors", "audio.safetensors", "adapter/adapter_model.safetensors"]
FULL = [name for name in FILES if name != "audio.safetensors"] # an untrained bundle has nothing of Whisper's

def cut(path): os.truncate(path, path.stat().st_size // 2)
def cut_at_once(path): os.truncate(path, 4)
def junk(path): path.write_bytes(bytes(range(256)) * 8)
def lie(path): path.write_bytes((2**62).to_bytes(8, "little") + path.read_bytes()[8:])
def nested(path): path.write_bytes((100_000).to_bytes(8, "little") + b"[" * 100_000)

@pytest.mark.parametrize("damage", [cut, cut_at_once, empty, remove, junk, lie, link_to_nothing, folder, nested], ids=lambda f: f.__name__)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_named(name, damage, bundle):
    damage(bundle/name)
    with refused(BundleError, (bundle/name).name, seconds=3): load(bundle)

def rewritten(path, function):
    "The tensors of a file, changed by a function."
    state = function(load_file(path))
    save_file(state, path, metadata={"format": "pt"})

def first(state): return sorted(state)[0]

CHANGES = {
    "a tensor too many": lambda state: state | {"another": torch.zeros(2)},
    "a tensor too few": lambda state: {key: state[key] for key in sorted(state)[1:]},
    "another name": lambda state: {key + "x": tensor for key, tensor in state.items()},
    "another shape": lambda state: state | {first(state): torch.zeros(3, 5, 7)},
    "no tensors": lambda state: {},
}
NUMBERS = {
    "NaN": lambda state: state | {first(state): torch.full_like(state[first(state)], float("nan"))},
    "infinity": lambda state: state | {first(state): torch.full_like(state[first(state)], float("inf"))},
    "complex": lambda state: state | {first(state): state[first(state)].to(torch.complex64)},
    "whole numbers": lambda state: state | {first(state): torch.ones_like(state[first(state)], dtype=torch.int64)},
}

@pytest.mark.parametrize("name", FULL)
@pytest.mark.parametrize("how", CHANGES)
def test_tensors_of_another_model_are_refused(how, name, bundle):
    rewritten(bundle/name, CHANGES[how])
    with refused(BundleError): load(bundle)

@pytest.mark.parametrize("name", FULL)
@pytest.mark.parametrize("how", NUMBERS)
def test_tensors_without_ordinary_numbers_are_refused(how, name, bundle):
    rewritten(bundle/name, NUMBERS[how])
    with refused(BundleError): load(bundle)

def test_a_bolder_bundle_has_another_hash(bundle):
    before = bundle_hash(bundle)
    change(bundle, confidence_gamma=.5)
    assert bundle_hash(bundle) != before

def test_nothing_is_changed_by_a_bundle_that_does_not_fit(bundle, saved, learner):
    before = {key: tensor.clone() for key, tensor in learner.projectors.state_dict().items()}
    rewritten(bundle/"projectors.safetensors", lambda state: {key: tensor + 1 for key, tensor in state.items()})
    rewritten(bundle/"clip.safetensors", CHANGES["another shape"])
    with refused(BundleError): learner.load_weights(bundle)
    assert all(torch.equal(tensor, before[key]) for key, tensor in learner.projectors.state_dict().items())

def test_pickles_are_not_opened(bundle, tmp_path):
    class Trap:
        def __reduce__(self): return os.mkdir, (str(tmp_path/"trapped"),)
    torch.save(Trap(), bundle/"projectors.safetensors")
    with refused(BundleError): load(bundle)
    assert not (tmp_path/"trapped").exists()

def test_other_bases_are_refused(bundle):
    bases = json.loads((bundle/"config.json").read_text())["bases"]
    bases["language"]["sha256"] = "0" * 64
    change(bundle, bases=bases)
    with refused(BundleError, "other weights"): load(bundle)

# --- what is no bundle

NAMES = [None, 5, b"bytes", ["x"], {}, 1.5, "x" * 5000, "x\0y", "", ".", "/dev/null", "nowhere", "\udcff", "no/such/place", "~nobody-of-this-name"]

@pytest.mark.parametrize("name", NAMES, ids=lambda name: repr(name)[:24])
def test_what_names_no_bundle_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with refused(BundleError, seconds=2): load(name)
    with refused(BundleError): read_config(name)

@pytest.mark.parametrize("make", ["empty folder", "file", "another model", "link to nothing", "link to itself"])
def test_what_is_no_bundle_is_refused(make, tmp_path):
    place = tmp_path/"place"
    if make == "empty folder": place.mkdir()
    if make == "file": place.write_text("bundle")
    if make == "link to nothing": place.symlink_to("nothing")
    if make == "link to itself": place.symlink_to("place")
    if make == "another model":
        place.mkdir()
        (place/"config.json").write_text('{"model_type": "llava"}')
    with refused(BundleError): load(place)

def test_a_link_to_a_bundle_is_followed(bundle, tmp_path):
    (tmp_path/"link").symlink_to(bundle)
    assert read_config(tmp_path/"link").preset == "tiny"

def test_an_unknown_part_is_refused(saved):
    with refused(MMError, "no base called"): load(saved, ears="tiny-whisper")

def test_a_device_that_is_none_is_refused(saved):
    with refused(MMError, "no device"): MMModel.from_pretrained(saved, device="abacus")

def test_a_bundle_caught_between_two_renames_is_found(bundle):
    bundle.rename(bundle.with_name(".bundle.old"))
    assert read_config(bundle).preset == "tiny" and find_bundle(bundle).is_dir()
    assert not bundle.with_name(".bundle.old").exists()

def test_what_is_not_ours_is_not_put_in_place(tmp_path):
    old = tmp_path/".bundle.old"
    old.mkdir()
    (old/"thesis.txt").write_text("mine")
    with refused(BundleError): load(tmp_path/"bundle")
    assert (old/"thesis.txt").read_text() == "mine" and not (tmp_path/"bundle").exists()
