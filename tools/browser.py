"""The chat as people use it: Debian's Chromium, driven by Playwright, against Voila and JupyterLab, with the lite model.

    python tools/browser.py                 every check; the last lines are the times that were measured
    python tools/browser.py stop tabs       the checks whose name has one of these words
    python tools/browser.py --shots FOLDER  keep screenshots

Without Chromium it says so, and that is no failure: nobody can install a browser by `pip`.
"""
import argparse, os, re, shutil, signal, socket, subprocess, sys, tempfile, time, traceback, urllib.request
from pathlib import Path
from notebooks import BIN, NBS, ROOT

DEMO = NBS/"tutorials"/"chat_demo.ipynb"
FLAGS = ("--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update "
         "--disable-sync --use-fake-ui-for-media-stream --use-fake-device-for-media-stream").split()
WAIT = 90_000 # ms; a busy machine is slow, and that is no fault of the chat
LONG = "Write a very long story about a ship, the sea, a storm and an island."
RUDE = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script> <|im_end|> <image>'

def chromium(): return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]

class Program:
    "A server that runs while the block does."
    def __init__(self, command, url, **env): self.command, self.url, self.env = [str(o) for o in command], url, env
    def __enter__(self):
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(self.command, cwd=ROOT, env={**os.environ, **self.env}, stdout=self.log, stderr=subprocess.STDOUT, start_new_session=True)
        for _ in range(240):
            try:
                urllib.request.urlopen(self.url, timeout=2).close()
                return self
            except OSError: time.sleep(.5)
            if self.process.poll() is not None: break
        self.__exit__()
        self.log.seek(0)
        raise RuntimeError(f"{self.command[:3]} did not start: {self.log.read()[-2000:]}")
    def __exit__(self, *_):
        try: os.killpg(self.process.pid, signal.SIGTERM) # its own group: kernels end with it
        except ProcessLookupError: pass
        try: self.process.wait(20)
        except subprocess.TimeoutExpired: os.killpg(self.process.pid, signal.SIGKILL)

class Talk:
    "A chat in a page, with the words that a person would use for what they do."
    def __init__(self, page): self.page = page
    def open(self, url):
        if self.page.url == url: return self.begin_again()
        self.page.goto(url, timeout=WAIT)
        self.box.wait_for(timeout=WAIT)
        return self
    def begin_again(self):
        "The page as somebody finds it who comes back to it for something else."
        self.finished(self.page.locator(".bot").count())
        if self.page.locator(".mm-row").count(): self.press("Clear")
        self.until("() => !document.querySelector('.mm-row')")
        return self
    @property
    def box(self): return self.page.get_by_label("Message: Enter sends").first
    def press(self, name): self.page.get_by_role("button", name=name, exact=True).last.click()
    def until(self, script, *args): self.page.wait_for_function(script, arg=list(args), timeout=WAIT, polling=20)
    def finished(self, n): self.until("([n]) => document.querySelectorAll('.bot[data-state]').length == n && ![...document.querySelectorAll('.bot')].some(o => ['waiting', 'writing'].includes(o.dataset.state))", n)
    def ask(self, text):
        "Type and press Enter; the seconds until the first word can be seen."
        before = self.page.locator(".bot").count()
        self.box.fill(text)
        began = time.perf_counter()
        self.box.press("Enter")
        self.until("([n]) => document.querySelectorAll('.bot .mm-bubble')[n]?.innerText.trim()", before)
        return time.perf_counter() - began
    def attach(self, *files):
        before = self.page.locator(".mm-chip[data-ok]").count()
        self.page.set_input_files("input[type=file]", [str(f) for f in files])
        self.until("([n]) => document.querySelectorAll('.mm-chip[data-ok], .mm-chip.bad').length >= n", before + len(files))
    def replies(self): return self.page.locator(".bot .mm-bubble").all_inner_texts()
    def state(self): return self.page.locator(".bot").last.get_attribute("data-state")
    def ready(self): self.until("() => document.querySelector('.mm-status[data-state=ready]')") # the model is there

class Lab(Talk):
    "The same in JupyterLab: open the notebook and run it."
    def open(self, url):
        self.page.goto(url, timeout=WAIT)
        self.page.locator(".jp-NotebookPanel .jp-Cell").first.wait_for(timeout=WAIT)
        try: self.page.get_by_role("button", name="Select", exact=True).click(timeout=5000) # a kernel
        except Exception: pass                                                          # it was not asked for
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        self.box.wait_for(timeout=WAIT)
        return self
    def run(self, code):
        "Run code in a new cell at the end."
        self.page.locator(".jp-Notebook-footer").click()
        self.page.locator(".jp-CodeCell .cm-content").last.click()
        self.page.keyboard.insert_text(code)
        self.page.keyboard.press("Shift+Enter")

# --- checks: each gets a browser's context, the address, and notes down what it measured

def is_dark(talk):
    "Whether the chat stands on a dark ground."
    return talk.page.evaluate("getComputedStyle(document.querySelector('.mm-chat')).backgroundColor.match(/\\d+/g).slice(0, 3).every(x => x < 80)")

def types_and_streams(new, url, shot, note):
    talk = Talk(new()).open(url)
    shot(talk, "empty")
    talk.ready()
    note("Enter to first word, text", talk.ask("Tell me about the sea."))
    talk.finished(1)
    talk.page.evaluate("() => { window.sizes = new Set(); window.watch = setInterval(() => sizes.add([...document.querySelectorAll('.bot .mm-bubble')].pop().innerText.length), 10) }")
    talk.ask(LONG)
    began = time.perf_counter()
    talk.box.press_sequentially("typed meanwhile")
    note("15 keys while the model writes", time.perf_counter() - began)
    assert talk.box.input_value() == "typed meanwhile" and talk.state() == "writing", "the page waits for the model"
    talk.finished(2)
    sizes = talk.page.evaluate("() => { clearInterval(watch); return sizes.size }")
    assert sizes > 4, "the reply did not grow while it was made"
    note("updates of one reply that were seen", sizes)
    note("tokens a second", float(re.search(r"(\d+) tokens/s", talk.page.inner_text(".mm-head")).group(1)))
    assert talk.box.evaluate("o => o === document.activeElement"), "the composer lost the focus"
    talk.box.fill("")
    talk.box.press("Shift+Enter")
    assert talk.box.input_value() == "\n"
    talk.box.fill("")
    shot(talk, "text")
    talk.page.locator(".bot").last.hover()
    talk.press("Copy this reply")
    assert talk.page.evaluate("() => navigator.clipboard.readText()").split() == talk.replies()[1].split()

def begins_with_an_example(new, url, shot, note):
    talk = Talk(new()).open(url)
    talk.ready()
    talk.page.get_by_role("button", name="What was said?").click()
    talk.finished(1)
    assert "selfish" in talk.page.inner_text(".mm-transcript"), talk.page.inner_text(".mm-transcript")
    talk.press("Clear")
    talk.until("() => !document.querySelector('.mm-row')")
    talk.press("Bring it back")
    talk.until("() => document.querySelector('.you .mm-bubble')?.innerText == 'What was said?'")
    assert talk.page.locator(".you audio").count() == 1
    talk.press("Clear")
    talk.page.get_by_role("button", name="Which objects are in this picture?").click()
    talk.finished(1)
    assert talk.page.locator(".you .mm-media img").count() == 1

def sees_a_photo(new, url, shot, note):
    talk = Talk(new()).open(url)
    talk.attach(PHOTOS/"chelsea.png")
    note("Enter to first word, new photo", talk.ask("Describe this picture in one sentence."))
    talk.finished(1)
    assert "cat" in talk.replies()[0].lower(), talk.replies()
    assert "cat" in talk.page.inner_text(".mm-stats >> nth=1"), "what the eyes named is not shown"
    talk.page.get_by_role("button", name="Enlarge chelsea.png").click()
    assert talk.page.locator("dialog[open] img").evaluate("o => o.naturalWidth") > 400
    shot(talk, "enlarged")
    talk.page.keyboard.press("Escape")
    shot(talk, "photo")
    note("Enter to first word, turn 2 about the photo", talk.ask("Which animal is it?"))

def pastes_and_drops(new, url, shot, note):
    talk = Talk(new()).open(url)
    give = """async (o, [event, name]) => { const c = new OffscreenCanvas(64, 64), x = c.getContext('2d'); x.fillStyle = 'red'; x.fillRect(0, 0, 64, 64)
      const t = new DataTransfer(); t.items.add(new File([await c.convertToBlob()], name, { type: 'image/png' }))
      o.dispatchEvent(event === 'paste' ? new ClipboardEvent('paste', { clipboardData: t, bubbles: true }) : new DragEvent('drop', { dataTransfer: t, bubbles: true })) }"""
    talk.box.evaluate(give, ["paste", "pasted.png"])
    talk.box.evaluate(give, ["drop", RUDE + ".png"])
    talk.until("() => document.querySelectorAll('.mm-chip[data-ok]').length == 2")
    talk.ask("Which colour?")
    talk.finished(1)
    assert talk.page.locator(".you .mm-media img").count() == 2
    assert not talk.page.evaluate("window.hacked"), "a file name ran as a script"

def hears_the_microphone(new, url, shot, note):
    from mmllm.evaluation import word_error_rate
    talk = Talk(new()).open(url)
    talk.press("Record from the microphone")
    time.sleep(8.5)
    talk.press("Finish the recording")
    talk.until("() => document.querySelector('.mm-chip[data-ok]')")
    talk.ask("What was said?")
    talk.finished(1)
    heard = talk.page.inner_text(".mm-transcript").strip("“”")
    note("word error rate of the recording", word_error_rate([SAID], [heard]))
    assert word_error_rate([SAID], [heard]) < .2, f"heard {heard!r}, said {SAID!r}"
    shot(talk, "recording")

def hears_in_every_way(new, url, shot, note):
    talk = Talk(new()).open(url)
    talk.ready()
    for n, mode in enumerate(("transcript", "tokens", "both"), 1):
        talk.press("Settings")
        talk.page.get_by_label("Sound as").select_option(mode)
        talk.page.keyboard.press("Escape")
        talk.attach(SOUND)
        note(f"Enter to first word, new sound as {mode}", talk.ask("What was said?"))
        talk.finished(n)
        assert talk.state() == "done" and ("audio tokens" in talk.page.locator(".bot .mm-stats").last.inner_text()) == (mode != "transcript")
    shot(talk, "ways to hear")

def changes_the_model(new, url, shot, note):
    from playwright.sync_api import expect
    talk = Talk(new()).open(url)
    talk.ready()
    def choose(name):
        talk.press("Settings")
        talk.page.get_by_label("Model", exact=True).fill(name)
        talk.page.keyboard.press("Enter")
        talk.page.keyboard.press("Tab")
        talk.page.keyboard.press("Escape")
    choose("nowhere")
    talk.until("() => document.querySelector('.mm-note').innerText.includes('no bundle in')")
    talk.ready()
    talk.until("() => document.querySelector('.mm-head').innerText.includes('lite on')")
    expect(talk.page.get_by_label("Model", exact=True)).to_have_value("lite") # the field follows a moment later
    choose("tiny")
    talk.until("() => document.querySelector('.mm-head').innerText.includes('has not learned')")
    shot(talk, "another model")
    talk.ask("Hello")
    talk.finished(1)
    choose("lite")
    talk.until("() => document.querySelector('.mm-head').innerText.includes('lite on')")
    talk.ask("Hello again")
    talk.finished(2)

def stops_retries_edits_clears(new, url, shot, note):
    talk = Talk(new()).open(url)
    talk.ready()
    talk.ask(LONG)
    began = time.perf_counter()
    talk.press("Stop the reply")
    talk.finished(1)
    note("Stop to stopped", time.perf_counter() - began)
    assert talk.state() == "stopped" and talk.replies()[0].strip()
    shot(talk, "stopped")
    talk.press("Ask again")
    talk.until("() => document.querySelector('.bot')?.dataset.state == 'writing'")
    talk.page.keyboard.press("Escape")
    talk.finished(1)
    talk.box.focus()
    talk.box.press("ArrowUp")
    assert talk.box.input_value() == LONG
    talk.press("Cancel")
    assert not talk.box.input_value()
    talk.press("Edit this message")
    talk.box.fill("What is two and two?")
    talk.box.press("Enter")
    talk.until("() => document.querySelector('.you .mm-bubble')?.innerText.startsWith('What is two')")
    talk.finished(1)
    assert talk.state() == "done" and talk.page.locator(".you").count() == 1
    with talk.page.expect_download() as download: talk.press("Export")
    assert "What is two" in Path(download.value.path()).read_text()
    talk.press("Clear")
    talk.until("() => !document.querySelector('.mm-row')")

def refuses_files(new, url, shot, note):
    talk = Talk(new()).open(url)
    with tempfile.TemporaryDirectory() as folder:
        for name, data in (("paper.pdf", b"%PDF-1.7 " + b"x" * 99), ("huge.png", bytes(33 << 20)), ("empty.png", b""), ("cut.jpg", b"\xff\xd8\xff\xe0" + b"\0" * 99)):
            (Path(folder)/name).write_bytes(data)
            talk.attach(Path(folder)/name)
    talk.until("() => document.querySelectorAll('.mm-chip.bad').length >= 4")
    said = talk.page.locator(".mm-chip.bad").all_inner_texts()
    assert len(said) == 4 and any("limit is 32 MiB" in s for s in said), said
    shot(talk, "refused")
    talk.ask("Hello")
    talk.finished(1) # the conversation goes on without them

def rude_text_stays_text(new, url, shot, note):
    talk = Talk(new()).open(url)
    talk.ask(RUDE + " Say it again: **<b onclick=x>bold</b>**")
    talk.finished(1)
    assert RUDE in talk.page.inner_text(".you .mm-bubble"), "the prompt is not shown as it was typed"
    assert not talk.page.evaluate("window.hacked") and not talk.page.locator(".mm-chat script, .mm-bubble img, .mm-bubble b").count()

def quick_clicks_leave_one_state(new, url, shot, note):
    talk = Talk(new()).open(url)
    for i in range(10):
        talk.box.fill(f"Quick {i}")
        talk.page.evaluate("() => document.querySelector('.mm-bar .go').click()")
    talk.until("() => document.querySelector('.mm-bar .go').title == 'Send the message' || document.querySelectorAll('.bot[data-state=done]').length")
    n = before = 0
    while not n or n != before: # clicks may still be under way to the kernel
        n, before = talk.page.locator(".bot").count(), n
        talk.finished(n)
        talk.page.wait_for_timeout(1500)
    assert n >= 1 and talk.page.locator(".mm-bar .go").get_attribute("aria-label") == "Send the message"
    talk.box.fill("")
    talk.ask("And now?")
    talk.finished(n + 1)

def tabs_share_a_model(new, url, shot, note):
    one, two = Talk(new()).open(url), Talk(new()).open(url)
    one.press("Settings")
    field = one.page.locator(".mm-drawer .widget-readout")
    for n, value in ((0, "2"), (2, "1024")):
        field.nth(n).click()
        one.page.keyboard.press("Control+a")
        one.page.keyboard.insert_text(value)
        one.page.keyboard.press("Enter")
    one.page.keyboard.press("Escape")
    one.ask(LONG)
    before = len(kernels())
    one.page.close(run_before_unload=True) # in the middle of a reply of half a minute
    wait = two.ask("Hello, who are you?")
    note("Enter to first word after another tab closed in its reply", wait)
    assert wait < 10, f"a tab that closed kept the model for {wait:.0f} s"
    two.finished(1)
    assert two.page.locator(".you").count() == 1
    for _ in range(100):
        if len(kernels()) < before: break
        time.sleep(.1)
    assert len(kernels()) < before, "a tab that closed left its kernel"
    note("model process, GB", memory(VOILA))
    note("largest tab process, GB", max(map(memory, kernels())))
    two.page.reload()
    two.box.wait_for(timeout=WAIT)
    assert not two.page.locator(".mm-row").count(), "a reload of Voila begins again"
    two.ask("Still there?")

def dark_and_narrow(new, url, shot, note):
    talk = Talk(new(width=390, height=780)).open(url + "?theme=dark")
    talk.attach(PHOTOS/"coffee.png")
    talk.ask("Describe this picture in one sentence.")
    talk.finished(1)
    assert talk.page.evaluate("document.documentElement.scrollWidth") <= 392, "the page scrolls sideways"
    assert is_dark(talk), "the chat is not dark in a dark theme"
    shot(talk, "narrow")
    talk.press("Settings")
    talk.page.get_by_label("System").fill("Answer in one word.")
    talk.page.evaluate("() => document.activeElement.blur()")
    shot(talk, "settings")

def lab_works_too(new, url, shot, note):
    talk = Lab(new(width=1200, height=900)).open(url)
    talk.ready()
    talk.attach(PHOTOS/"coffee.png")
    note("Enter to first word in JupyterLab, new photo", talk.ask("Describe this picture in one sentence."))
    talk.finished(1)
    talk.box.press_sequentially("dd")
    talk.box.press("Shift+Enter")
    assert talk.box.input_value() == "dd\n"
    talk.box.fill("") # keys that JupyterLab has other plans for
    shot(talk, "lab dark")
    assert is_dark(talk), "the chat is not dark in a dark theme"
    talk.box.press("Control+s")
    time.sleep(2)
    talk.page.reload()
    talk.box.wait_for(timeout=WAIT)
    talk.until("() => document.querySelector('.bot[data-state=done]')") # the kernel still has the conversation, the notebook has not
    assert "coffee.png" not in NOTEBOOK.read_text(), "an upload was saved in the notebook"
    talk.run("view.chat.to_cell()")
    talk.until("() => [...document.querySelectorAll('.jp-CodeCell .cm-content')].some(o => o.innerText.includes('%%markdown'))")

# --- the machine

def command(pid):
    try: return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError: return ""

def children(pid):
    import psutil
    return [p.pid for p in psutil.Process(pid).children(recursive=True)]

def kernels(): return [p for p in children(VOILA) if "ipykernel" in command(p)]

def memory(pid):
    import psutil
    return psutil.Process(pid).memory_info().rss / 1e9

TOGETHER = [types_and_streams, begins_with_an_example, sees_a_photo, pastes_and_drops, stops_retries_edits_clears, refuses_files,
            rude_text_stays_text, quick_clicks_leave_one_state] # one after the other in one page: half of a check's time is the start of a kernel
CHECKS = [*TOGETHER, hears_the_microphone, hears_in_every_way, changes_the_model, tabs_share_a_model, dark_and_narrow, lab_works_too]

def run(browser, check, url, shots, shared):
    "One check in a context of its own, or in the page in `shared`; returns what it measured, or raises."
    if check not in TOGETHER: leave(shared)
    measured, pages = [], shared if check in TOGETHER else []
    def new(width=900, height=860):
        if pages is shared and pages: return pages[-1]
        context = browser.new_context(viewport=dict(width=width, height=height), accept_downloads=True, permissions=["clipboard-read", "clipboard-write"])
        context.route(re.compile(r"^https?://(?!127\.0\.0\.1|localhost)"), lambda route: route.abort()) # nothing from elsewhere is needed
        pages.append(context.new_page())
        return pages[-1]
    def shot(talk, name):
        if shots: talk.page.screenshot(path=str(Path(shots)/f"{name.replace(' ', '-')}.png"))
    try: check(new, url, shot, lambda what, value: measured.append((what, value)))
    except Exception:
        if shots and pages and not pages[-1].is_closed(): pages[-1].screenshot(path=str(Path(shots)/f"failed-{check.__name__}.png"))
        leave(pages)
        raise
    if pages is not shared: leave(pages)
    return measured

def leave(pages):
    "Close every page, and forget it."
    while pages:
        page = pages.pop()
        if not page.is_closed(): page.goto("about:blank") # so that Voila hears of it
        page.context.close()

def spoken(sound, folder):
    "The sound after two seconds of silence, as of a person who first looks whether the recording is on; a busy machine needs the second."
    import numpy as np, soundfile
    wave, rate = soundfile.read(sound)
    soundfile.write(f"{folder}/spoken.wav", np.concatenate([np.zeros(2 * rate), wave]), rate)
    return f"{folder}/spoken.wav"

def lab(folder, port):
    global NOTEBOOK
    NOTEBOOK = Path(shutil.copy(DEMO, folder))
    settings = Path(folder)/"settings"/"@jupyterlab"/"apputils-extension"
    settings.mkdir(parents=True)
    (settings/"themes.jupyterlab-settings").write_text('{"theme": "JupyterLab Dark"}')
    (settings/"notification.jupyterlab-settings").write_text('{"fetchNews": "false", "checkForUpdates": false}')
    return Program([BIN/"jupyter", "lab", "--no-browser", "--allow-root", f"--port={port}", "--ServerApp.ip=127.0.0.1", "--IdentityProvider.token=", f"--ServerApp.root_dir={folder}",
                    "--LabApp.news_url=None"], f"http://127.0.0.1:{port}/api", JUPYTERLAB_SETTINGS_DIR=f"{folder}/settings")

def main():
    global PHOTOS, SAID, SOUND, VOILA
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--shots")
    args = parser.parse_args()
    if not chromium():
        print("skipped: there is no Chromium here (on Debian: apt install chromium)")
        return 0
    from playwright.sync_api import sync_playwright
    from mmllm.data import load_librivox
    from mmllm.weights import fetch
    PHOTOS, speech = fetch("photos"), fetch("librivox")
    SOUND = sorted(speech.glob("*.wav"))[2]
    SAID = load_librivox()[1][2]
    if args.shots: Path(args.shots).mkdir(parents=True, exist_ok=True)
    port, other, failed, measured, shared = free_port(), free_port(), 0, [], []
    chosen = [c for c in CHECKS if not args.words or any(w in c.__name__ for w in args.words)]
    start = time.time()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as p, \
         Program([BIN/"mmllm", "chat", "--notebook", DEMO, "--port", port, "--no_browser"], f"http://127.0.0.1:{port}/voila/static/voila.js") as voila:
        VOILA = voila.process.pid
        browser = p.chromium.launch(executable_path=chromium(), args=[*FLAGS, f"--use-file-for-fake-audio-capture={spoken(SOUND, folder)}%noloop"])
        for check in chosen:
            began = time.time()
            try:
                if check is lab_works_too:
                    with lab(folder, other): found = run(browser, check, f"http://127.0.0.1:{other}/lab/tree/{DEMO.name}", args.shots, shared)
                else: found = run(browser, check, f"http://127.0.0.1:{port}/", args.shots, shared)
                measured += found
                print(f"ok    {check.__name__.replace('_', ' ')}  ({time.time() - began:.0f} s)", flush=True)
            except Exception as error:
                failed += 1
                print(f"FAIL  {check.__name__.replace('_', ' ')}: {type(error).__name__}: {str(error)[:600]}", *traceback.format_exc().splitlines()[-8:-1], sep="\n      ", flush=True)
        browser.close()
    for what, value in measured: print(f"      {what}: {value:.2f}" if isinstance(value, float) else f"      {what}: {value}")
    print(f"{len(chosen) - failed} browser checks passed, {failed} failed, {time.time() - start:.0f} s")
    return 1 if failed else 0

if __name__ == "__main__": sys.exit(main())
