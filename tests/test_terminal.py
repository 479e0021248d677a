"The command line as a terminal has it: pipes that close, keys that interrupt, letters that it cannot show."
import os, signal, subprocess, sys, time
import pytest
from helpers import ROOT, mmllm, refused
import samples
import mmllm.cli as cli
from mmllm.cli import run
from mmllm.terminal import end_in_order

COMMAND = f"{sys.executable} -c 'import mmllm; mmllm.main()'"

def shell(line, **environment):
    "A finished line of a shell."
    return subprocess.run(["sh", "-c", line], capture_output=True, timeout=600, env={**os.environ, **environment})

def check_complaint(done, status):
    "One line on the error stream, and no trace."
    said = done.stderr.decode()
    assert done.returncode == status, said
    assert "Traceback" not in said and "Error:" not in said and "object at 0x" not in said, said
    assert len([line for line in said.splitlines() if line.strip()]) <= 1, said
    return said

@pytest.mark.parametrize("line", [f"{COMMAND} --help | head -1", f"{COMMAND} plan tiny | head -c 5", f"{COMMAND} train --help | true"])
def test_a_pipe_that_closes_is_no_error(line):
    done = shell(line)
    assert done.stderr == b"" and done.returncode == 0

@pytest.mark.parametrize("language", ["C", "POSIX", "C.UTF-8"])
def test_any_terminal_shows_what_it_can(language, tmp_path):
    done = shell(f"{COMMAND} plan tiny --vision '\udce9\u00e9/x y'", LANG=language, LC_ALL=language, PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", PYTHONIOENCODING="")
    assert b"Traceback" not in done.stderr and b"UnicodeEncodeError" not in done.stderr

IMPORTS = """
import sys, mmllm
class SaysSo:
    def find_spec(self, name, *_):
        if name == "mmllm.cli": print("here", flush=True)
sys.meta_path.insert(0, SaysSo())
mmllm.main()
"""

@pytest.mark.parametrize("seconds", [0, .3, 1])
def test_ctrl_c_while_it_imports_is_one_line(seconds):
    process = subprocess.Popen([sys.executable, "-c", IMPORTS, "plan", "tiny"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == b"here\n"
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=600)[1].decode()
    assert process.returncode in (0, 130) and "Traceback" not in said and said.count("\n") <= 1, said
    assert seconds or said == "mmllm: interrupted\n"

@pytest.fixture
def program(tmp_path):
    "A function: what `ask` does -> words that start an mmllm whose `ask` does that."
    def write(action):
        path = tmp_path/"program.py"
        path.write_text(f"""
import time
import mmllm.cli as cli
def ask(
    question: str, # what to ask
):
    "Ask. Raises nothing."
    {action}
cli.COMMANDS["ask"] = ask
cli.main()
""")
        return [sys.executable, str(path), "ask", "hi"]
    return write

def test_ctrl_c_while_it_works_is_one_line(program):
    words = program("print('asked', flush=True); time.sleep(500)")
    def listens(): signal.signal(signal.SIGINT, signal.default_int_handler) # a shell's background job does not
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=listens)
    assert process.stdout.readline() == b"asked\n"
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=600)[1].decode()
    assert process.returncode == 130 and said == "mmllm: interrupted\n"

def end_by(numbers, folder):
    "What `mmllm ask` in a fork leaves when signals come while it works: (exit status, what it said)."
    pid = os.fork()
    if not pid:
        code = 1
        try:
            def ask(question):
                (folder/"begun").touch()
                try: time.sleep(500)
                finally: (folder/"begun").unlink()
            signal.alarm(0)
            for number in (signal.SIGTERM, signal.SIGHUP): signal.signal(number, signal.SIG_DFL)
            sys.stderr, sys.argv = open(folder/"said", "w", buffering=1), ["mmllm", "ask", "hi"]
            sys.stdout, cli.COMMANDS["ask"] = open(os.devnull, "w"), ask
            cli.main()
        except SystemExit as stop: code = stop.code
        finally: os._exit(code)
    while not (folder/"begun").exists(): time.sleep(.01)
    for number in numbers:
        os.kill(pid, number)
        time.sleep(.005)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code, (folder/"said").read_text()

@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot be forked here")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)], ids=lambda number: number.name)
def test_a_command_that_is_told_to_end_cleans_up_and_says_so(number, tmp_path):
    assert end_by([number], tmp_path) == (128 + number, "mmllm: interrupted\n")
    assert not (tmp_path/"begun").exists()

@pytest.mark.skipif(not hasattr(os, "fork") or not hasattr(signal, "SIGHUP"), reason="processes cannot be forked here")
def test_a_terminal_may_say_twice_that_it_closes(tmp_path):
    assert end_by([signal.SIGHUP, signal.SIGHUP], tmp_path) == (128 + signal.SIGHUP, "mmllm: interrupted\n")
    assert not (tmp_path/"begun").exists()

def test_a_signal_that_is_ignored_stays_ignored(monkeypatch):
    usual = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        end_in_order()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
        monkeypatch.setenv("WORLD_SIZE", "2") # torchrun's own
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        end_in_order()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally: signal.signal(signal.SIGTERM, usual)

def test_a_reader_that_goes_away_while_it_speaks_is_no_error(program):
    words = program("[print('word', end=' ', flush=True) for _ in range(100_000)]")
    done = shell(" ".join(words) + " | head -c 5")
    assert done.stdout == b"word " and done.stderr == b""

def test_a_terminal_of_ascii_shows_what_it_can(program):
    words = program("print('caf\\u00e9 \\u4f60\\u597d \\U0001F600')")
    done = subprocess.run(words, capture_output=True, timeout=600, env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    assert done.returncode == 0 and done.stderr == b"" and done.stdout.startswith(b"caf")

# --- in this process

def said(capfd, *words):
    "(exit code, what was printed, what was complained about)"
    code = run(list(words))
    return code, *capfd.readouterr()

def test_help_lists_the_commands(capfd):
    code, out, err = said(capfd, "--help")
    assert code == 0 and err == "" and all(name in out for name in ("plan", "fetch", "train", "evaluate", "ask", "chat"))

BAD_LINES = [
    ["nothing"], ["plan", "huge"], ["plan", "tiny", "--device", "abacus"], ["plan", "tiny", "--vision", "nope"], ["fetch", "nope"], ["fetch", "tiny", "--revision", "main"], ["fetch", "tiny-phi3", "--revision", "x"],
    ["train", "nothing"], ["train", "all", "--preset", "huge"], ["train", "all", "--preset", "tiny", "--epochs", "-3"], ["train", "all", "--preset", "tiny", "--seed", "-1"], ["train", "all", "--preset", "tiny", "--out", "/dev/null/x"],
    ["train", "tune", "--preset", "tiny", "--out", "nowhere"], ["train", "clip", "--preset", "tiny", "--data", "imagenet"], ["train", "clip", "--preset", "tiny", "--data", "coco6k"],
    ["evaluate", "--model", "nowhere"], ["evaluate", "--seed", "-1"], ["evaluate", "--batch_size", "0"], ["evaluate", "--images", "nowhere"], ["evaluate", "--out", "/dev/null/x"], ["evaluate", "--ablations", "upside"],
    ["ask", ""], ["ask", "  "], ["ask", "hi", "--model", "nowhere"], ["ask", "hi", "--image", "missing.png"], ["ask", "hi", "--audio", "missing.wav"], ["ask", "hi", "--temperature", "inf"], ["ask", "hi", "--temperature", "-1"],
    ["ask", "hi", "--temperature", "nan"], ["ask", "hi", "--max_new_tokens", "0"], ["ask", "hi", "--seed", "-1"], ["ask", "hi", "--seed", "4294967296"], ["ask", "hi", "--image", "/dev/zero"], ["ask", "hi", "--image", ""],
    ["chat", "--port", "0"], ["chat", "--port", "65536"], ["chat", "--model", "nowhere"], ["features", "--out", "/dev/null/x"], ["demo", "--out", "/dev/null/x"], ["ask", "hi", "--model", "\udcff"], ["ask", "hi", "--image", "\udcff.png"],
]

@pytest.mark.parametrize("words", BAD_LINES, ids=lambda words: ascii(" ".join(words))[:60])
def test_a_line_that_cannot_be_carried_out_is_one_sentence(words, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = said(capfd, *words)
    assert code in (1, 2) and err.startswith("mmllm: ") and err.count("\n") == 1, err
    assert "--debug" not in err and len(err) < 420, err
    assert list(tmp_path.iterdir()) == []

@pytest.mark.parametrize("words", [["train", "--epochs", "many"], ["ask"], ["ask", "hi", "--no_such"], ["chat", "--port", "x"], ["plan", "tiny", "extra"]], ids=" ".join)
def test_a_line_that_cannot_be_read_shows_how_it_is_written(words, capfd):
    code, out, err = said(capfd, *words)
    assert code == 2 and "usage: mmllm" in err and "Traceback" not in err

def test_ten_bad_sounds_are_ten_sentences(capfd, tmp_path):
    for i, data in enumerate(list(samples.sounds().values())[:10]):
        (tmp_path/f"{i}.wav").write_bytes(data[:len(data)//2])
        code, out, err = said(capfd, "ask", "hi", "--audio", str(tmp_path/f"{i}.wav"))
        assert code == 1 and err.count("\n") == 1 and f"{i}.wav" in err and "0x" not in err and "object at" not in err

def test_a_bad_mp3_says_one_line(capfd, tmp_path):
    data = bytearray(samples.sounds()["mp3"])
    data[600:1800] = bytes(range(256)) * 4 + bytes(176)
    (tmp_path/"x.mp3").write_bytes(data)
    code, out, err = said(capfd, "ask", "hi", "--audio", str(tmp_path/"x.mp3"))
    assert code == 1 and err.count("\n") == 1 and "x.mp3" in err

def test_debug_shows_where():
    with refused(Exception, "no preset"): run(["plan", "huge", "--debug"])

def test_one_real_command_ends_in_one_line():
    check_complaint(mmllm("ask", "hi", "--model", "nowhere"), 1)
    assert ROOT.is_dir()
