"What a refusal has to be: of a named type, one sentence, soon."
import os, re, subprocess, sys, time
from contextlib import contextmanager
from pathlib import Path
import pytest
from mmllm.core import MMError

ROOT = Path(__file__).resolve().parent.parent
NEEDS_FIFOS = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes have no names here")
IS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
NOT_ROOT = pytest.mark.skipif(IS_ROOT, reason="the administrator may write everywhere")

def check_sentence(error, *words):
    "What is said is one sentence: no trace, no address of an object, not the text of a library."
    text = str(error)
    assert isinstance(error, MMError), f"{type(error).__name__} is no MMError: {text[:200]}"
    assert 10 < len(text) <= 420, f"{len(text)} characters: {text[:200]}"
    assert "\n" not in text and "Traceback" not in text
    assert not re.search(r"\bat 0x[0-9a-f]{6,}", text), text
    text.encode() # no halves of characters, which a terminal cannot show
    for word in words: assert word.lower() in text.lower(), f"{word!r} is not in: {text}"

@contextmanager
def refused(kind=MMError, *words, seconds=10):
    "The block raises `kind`, says `words`, and takes no longer than that."
    began = time.process_time()
    with pytest.raises(kind) as caught: yield
    check_sentence(caught.value, *words)
    assert time.process_time() - began < seconds, "refused, but late"

def is_refused(action, *arguments, **options):
    "Whether it raises an `MMError`; any other error fails the test."
    try: action(*arguments, **options)
    except MMError as error:
        check_sentence(error)
        return True
    return False

def mmllm(*words, environment=None, **options):
    "A finished `mmllm` command: its exit code, what it printed, what it complained about."
    command = [sys.executable, "-c", "import mmllm; mmllm.main()", *map(str, words)]
    env = {**os.environ, **(environment or {})}
    return subprocess.run(command, env=env, capture_output=True, timeout=600, **options)

# what may happen to a file

def empty(path): os.truncate(path, 0)
def remove(path): path.unlink()
def link_to_nothing(path):
    path.unlink()
    path.symlink_to("nothing")
def folder(path):
    path.unlink()
    path.mkdir()
