"Folders that the program replaces: ours and nothing else, links followed, one saver after the other."
import os, subprocess, sys, threading
from pathlib import Path
import pytest
from helpers import refused
from mmllm.chat import Chat
from mmllm.chat.formats import CONVERSATION
from mmllm.files import (
    FolderKind, ForeignFiles, PathError, atomic_file, check_replaceable, recover_folder, remove_folder, replaced_folder,
)
from mmllm.model import MMModel, read_config
from mmllm.training import train_recipe
from mmllm.training.recipes import is_done
from mmllm.training.trainer import TrainingError, get_stage, train

# --- a thesis where mmllm is going to write

PLACES = ["clip", "align", "tune", "checkpoints/clip", "checkpoints/align", "checkpoints/tune", "listen-asr", "listen", "checkpoints/listen", "clip/adapter", "checkpoints/tune/checkpoint-7"]

@pytest.mark.parametrize("stage", ["clip", "all"])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("restart", [False, True], ids=["on", "restart"])
def test_training_does_not_begin_over_a_thesis(place, stage, restart, tmp_path, thesis):
    thesis.lay(tmp_path/"run"/place)
    with refused(ForeignFiles, "thesis.txt", seconds=2): train_recipe(stage, "tiny", tmp_path/"run", restart=restart)
    assert thesis.is_there()

@pytest.mark.parametrize("place", ["align", "checkpoints/align"])
@pytest.mark.parametrize("resume", [False, True])
def test_a_stage_of_its_own_does_not_begin_over_a_thesis(place, resume, learner, tmp_path, thesis):
    thesis.lay(tmp_path/place)
    with refused(ForeignFiles, "thesis.txt", seconds=2): train(learner, "align", [{}] * 40, tmp_path, resume=resume)
    assert thesis.is_there()

@pytest.mark.parametrize("kind", ["bundle", "conversation"])
@pytest.mark.parametrize("beside", [True, False], ids=["in ours", "alone"])
def test_saving_does_not_replace_a_thesis(kind, beside, learner, tmp_path, thesis):
    place = tmp_path/"place"
    def save(): learner.save_pretrained(place) if kind == "bundle" else Chat("tiny").save(place)
    if beside: save()
    before = sorted(p.name for p in place.rglob("*")) if beside else []
    thesis.lay(place)
    with refused(Exception, "thesis.txt"): save()
    assert thesis.is_there() and sorted(p.name for p in place.rglob("*")) == sorted([*before, "thesis.txt"])

OTHERS = {"a picture": "holiday.jpg", "a hidden file": ".bashrc", "a name like ours": "adapter_model.safetensors", "a folder of others": "sub/x.txt", "a backup": "config.json~"}

@pytest.mark.parametrize("name", OTHERS)
def test_whatever_is_not_ours_stays(name, learner, bundle):
    file = bundle/OTHERS[name]
    file.parent.mkdir(exist_ok=True)
    file.write_text("mine")
    with refused(ForeignFiles): learner.save_pretrained(bundle)
    with refused(ForeignFiles): train_recipe("clip", "tiny", bundle.rename(bundle.with_name("clip")).parent, restart=True)
    assert (bundle.with_name("clip")/OTHERS[name]).read_text() == "mine"

def test_a_bundle_of_another_program_is_not_replaced(learner, tmp_path):
    (tmp_path/"config.json").write_text('{"model_type": "llava"}')
    with refused(ForeignFiles): learner.save_pretrained(tmp_path)
    assert (tmp_path/"config.json").read_text() == '{"model_type": "llava"}'

def test_a_bundle_is_replaced_by_a_bundle(learner, bundle):
    (bundle/"projectors.safetensors").write_bytes(b"damaged")
    learner.save_pretrained(bundle)
    MMModel.from_pretrained(bundle, device="cpu")

@pytest.mark.parametrize("make", ["file", "mounted", "nothing", "empty"])
def test_what_may_be_replaced(make, tmp_path):
    kind, place = FolderKind(("x.json",), "x.json", {"x": 1}), tmp_path/"place"
    if make == "file":
        place.touch()
        with refused(PathError, "is a file"): check_replaceable(place, kind)
    elif make == "mounted":
        with refused(PathError): check_replaceable("/", kind)
    else:
        if make == "empty": place.mkdir()
        assert check_replaceable(place, kind) == place

def test_removing_what_is_not_there_does_nothing(tmp_path): remove_folder(tmp_path/"nowhere", CONVERSATION)

def test_a_thesis_is_not_removed(tmp_path, thesis):
    with refused(ForeignFiles): remove_folder(thesis.lay(tmp_path/"chat"), CONVERSATION)
    assert thesis.is_there()

# --- links

def test_saving_over_a_link_twice_keeps_the_link(learner, bundle, tmp_path):
    link = tmp_path/"link"
    link.symlink_to(bundle, target_is_directory=True)
    for _ in range(2):
        learner.save_pretrained(link)
        assert link.is_symlink() and link.resolve() == bundle and read_config(link).preset == "tiny"

def test_a_conversation_over_a_link_keeps_the_link(tmp_path):
    (tmp_path/"there").mkdir()
    (tmp_path/"link").symlink_to("there")
    for _ in range(2): Chat("tiny").save(tmp_path/"link")
    assert (tmp_path/"link").is_symlink() and (tmp_path/"there"/"chat.json").is_file()

def test_a_link_to_a_thesis_is_followed_and_refused(learner, tmp_path, thesis):
    (tmp_path/"link").symlink_to(thesis.lay(tmp_path/"mine"))
    with refused(ForeignFiles): learner.save_pretrained(tmp_path/"link")
    assert thesis.is_there()

def test_a_link_inside_is_not_followed_but_foreign(learner, bundle, tmp_path, thesis):
    (bundle/"notes").symlink_to(thesis.lay(tmp_path/"mine"))
    with refused(ForeignFiles, "notes"): learner.save_pretrained(bundle)
    assert thesis.is_there() and (bundle/"notes").is_symlink()

def test_a_file_is_written_through_a_link(tmp_path):
    (tmp_path/"link").symlink_to("there")
    with atomic_file(tmp_path/"link") as part: part.write_text("new")
    assert (tmp_path/"link").is_symlink() and (tmp_path/"there").read_text() == "new"

# --- between two renames

def test_every_reader_recovers_a_bundle(bundle):
    aside = bundle.with_name(".bundle.old")
    for read in (read_config, lambda folder: MMModel.from_pretrained(folder, device="cpu"), lambda folder: is_done(folder, get_stage("align"), 0)):
        bundle.rename(aside)
        read(bundle)
        assert bundle.is_dir() and not aside.exists()

def test_a_conversation_is_recovered(tmp_path):
    Chat("tiny", system="Be brief.").save(tmp_path/"chat")
    (tmp_path/"chat").rename(tmp_path/".chat.old")
    assert Chat.load(tmp_path/"chat", "tiny").settings.system == "Be brief."

def test_the_newer_of_two_stays(bundle, saved):
    import shutil
    shutil.copytree(saved, bundle.with_name(".bundle.old"))
    (bundle.with_name(".bundle.old")/"config.json").write_text('{"model_type": "mmllm", "preset": "lite"}')
    assert read_config(bundle).preset == "tiny"

def test_saving_after_a_cut_takes_the_rest_away(learner, bundle):
    bundle.rename(bundle.with_name(".bundle.old"))
    bundle.with_name(".bundle.new").mkdir()
    (bundle.parent/"..bundle.new.part").mkdir()
    learner.save_pretrained(bundle)
    assert sorted(p.name for p in bundle.parent.iterdir()) == ["bundle"]

def test_a_thesis_that_is_called_like_our_own_stays(learner, bundle, thesis):
    thesis.lay(bundle.with_name(".bundle.old"))
    with refused(ForeignFiles): learner.save_pretrained(bundle)
    assert thesis.is_there() and read_config(bundle).preset == "tiny"

def test_training_of_other_settings_is_not_taken_over(bundle):
    (bundle/"training.json").write_text('{"stage": {"name": "align"}, "seed": 1}')
    with refused(TrainingError, "other settings"): is_done(bundle, get_stage("align"), 0)

# --- two savers

KIND = FolderKind(("*.txt", "mark.json"), "mark.json", {"x": None})
SAVER = """
import sys
from pathlib import Path
from mmllm.files import FolderKind, replaced_folder
kind = FolderKind(("*.txt", "mark.json"), "mark.json", {"x": None})
for i in range(60):
    with replaced_folder(sys.argv[1], kind) as new:
        (new/"mark.json").write_text('{"x": 1}')
        for name in "abc": (new/f"{name}.txt").write_text(sys.argv[2] + str(i))
"""

def is_whole(folder):
    texts = [(folder/f"{name}.txt").read_text() for name in "abc"]
    return len(set(texts)) == 1

def test_two_processes_save_to_one_folder(tmp_path):
    place = tmp_path/"place"
    savers = [subprocess.Popen([sys.executable, "-c", SAVER, place, who], stderr=subprocess.PIPE) for who in ("one ", "two ")]
    said = [saver.communicate(timeout=600)[1].decode() for saver in savers]
    assert [saver.returncode for saver in savers] == [0, 0], said
    assert is_whole(place) and sorted(p.name for p in tmp_path.iterdir()) == ["place"]

def test_ten_threads_save_to_one_folder(tmp_path):
    failures = []
    def save(who):
        try:
            for i in range(8):
                with replaced_folder(tmp_path/"place", KIND) as new:
                    (new/"mark.json").write_text('{"x": 1}')
                    for name in "abc": (new/f"{name}.txt").write_text(f"{who} {i}")
        except Exception as error: failures.append(error)
    threads = [threading.Thread(target=save, args=(who,)) for who in range(10)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    assert failures == [] and is_whole(tmp_path/"place")

@pytest.mark.parametrize("make", ["folder", "link"])
def test_a_lock_that_is_none_is_named(make, tmp_path, learner):
    lock = tmp_path/".place.lock"
    if make == "folder": lock.mkdir()
    else: lock.symlink_to("nowhere")
    with refused(PathError, ".place.lock"): learner.save_pretrained(tmp_path/"place")

def test_what_fails_leaves_the_old_one(tmp_path):
    Chat("tiny", system="old").save(tmp_path/"chat")
    with pytest.raises(KeyboardInterrupt), replaced_folder(tmp_path/"chat", CONVERSATION) as new:
        (new/"chat.json").write_text("half")
        raise KeyboardInterrupt
    assert Chat.load(tmp_path/"chat", "tiny").settings.system == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["chat"]

def test_a_file_that_fails_leaves_the_old_one(tmp_path):
    (tmp_path/"file").write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_file(tmp_path/"file") as part:
        part.write_text("half")
        1 / 0
    assert (tmp_path/"file").read_text() == "old" and len(list(tmp_path.iterdir())) == 1

def test_recovering_nothing_is_nothing(tmp_path):
    for place in ("nowhere", "x" * 5000, "a\0b", "\udcff"): recover_folder(Path(tmp_path)/place, CONVERSATION)
    assert os.listdir(tmp_path) == []

@pytest.mark.parametrize("steps", range(6))
def test_a_kill_while_the_old_one_is_removed_is_no_obstacle(steps, tmp_path, monkeypatch):
    def save(text):
        with replaced_folder(tmp_path/"place", KIND) as new:
            for name in "abcd": (new/f"{name}.txt").write_text(text)
            (new/"mark.json").write_text('{"x": 1}')
    save("old")
    left, unlink = [steps], os.unlink
    def unlink_some(path, **options):
        if ".place.old" in str(path) or "dir_fd" in options:
            left[0] -= 1
            if left[0] < 0: raise KeyboardInterrupt # which nothing catches, like a kill
        unlink(path, **options)
    monkeypatch.setattr(os, "unlink", unlink_some)
    try: save("new")
    except KeyboardInterrupt: assert steps < 5
    monkeypatch.undo()
    save("newest")
    assert is_whole(tmp_path/"place") and [p.name for p in tmp_path.iterdir()] == ["place"]
