"""Runs notebooks as nbdev_test does, each in a fork of one process that has imported what most of them need.

It reads lines "NOTEBOOK<tab>LOG" and answers "EXIT CODE<tab>GB". What a page does and says stays in its fork and in its log;
mmllm itself is not loaded beforehand, so a page imports it like anybody. tools/check.py starts it.
"""
import contextlib, gc, importlib, logging, os, signal, sys

MINUTES = 15                                      # before a notebook counts as hung
LIBRARIES = """
    nbdev.test torch transformers.trainer peft bitsandbytes datasets matplotlib.pyplot IPython.display anywidget
    sacrebleu.metrics jiwer fastapi uvicorn prometheus_client gguf nbformat lxml.etree
    transformers.models.clip.modeling_clip transformers.models.whisper.modeling_whisper
    transformers.models.phi3.modeling_phi3 transformers.models.llama.modeling_llama
    transformers.models.efficientnet.modeling_efficientnet transformers.models.bert.modeling_bert
""".split()

def become(notebook, log):
    "Turn this fork into `nbdev_test` of one notebook, whose output goes to a file."
    signal.alarm(MINUTES * 60)                    # ends a page that hangs
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for number in (1, 2): os.dup2(out, number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    from nbdev.test import nbdev_test
    nbdev_test(path=notebook, do_print=True)

def main():
    sys.path.pop(0)                               # a page does not see tools/
    os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "3000"} | os.environ # as mmllm says before it imports torch
    logging.disable()                             # what libraries complain about while they load, a page does not hear
    for name in LIBRARIES:
        with contextlib.suppress(ImportError): importlib.import_module(name) # a page that needs it will say so
    logging.disable(logging.NOTSET)
    gc.freeze()                                   # a fork shares what is never looked at
    for line in sys.stdin:
        notebook, log = line.rstrip("\n").split("\t")
        child = os.fork()
        if not child: return become(notebook, log)
        _, status, usage = os.wait4(child, 0)
        print(os.waitstatus_to_exitcode(status), usage.ru_maxrss / 1e6, sep="\t", flush=True)

if __name__ == "__main__": main()
