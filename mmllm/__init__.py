"""A multi-modal language model to build, train, measure and talk to from notebooks."""
__version__ = "0.2.0"

import os, signal, sys
from importlib import import_module
from importlib.util import find_spec

_HOMES = {
    "MMModel": "mmllm.model",
    "MMProcessor": "mmllm.model",
    "Chat": "mmllm.chat",
    "ChatView": "mmllm.chat",
}
__all__ = ["MMModel", "MMProcessor", "Chat", "ChatView"]

def __getattr__(name):
    "Import one of the four main names when it is first asked for, so that `import mmllm` stays quick."
    if name not in _HOMES:
        raise AttributeError(f"module 'mmllm' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)

class _LazyConfig:
    "Stands for `MMConfig` in transformers' registry until a bundle is opened, for that is slow."
    @staticmethod
    def from_dict(*args, **kwargs):
        "The real configuration; our model is registered with it."
        return import_module("mmllm.export.hub").MMConfig.from_dict(*args, **kwargs)

class _RegisterConfig:
    "Registers it when transformers' own registry is imported; see nbs/12_export/02_hub.ipynb."
    registry = "transformers.models.auto.configuration_auto"

    def find_spec(self, name, path=None, target=None):
        "Import the registry as it is, and register afterwards."
        if name != self.registry: return None
        sys.meta_path.remove(self)
        spec = find_spec(name)
        execute = spec.loader.exec_module
        def execute_and_register(module):
            execute(module)
            self.register(module)
        spec.loader.exec_module = execute_and_register
        return spec

    @staticmethod
    def register(module):
        "Make `AutoConfig` know bundles."
        module.AutoConfig.register("mmllm", _LazyConfig, exist_ok=True)

if registry := sys.modules.get(_RegisterConfig.registry): _RegisterConfig.register(registry)
else: sys.meta_path.insert(0, _RegisterConfig())

def _leave(number, frame):
    "End at once: nothing is begun that could be lost, and an exception could get lost in a callback of an import."
    os.write(2, b"mmllm: interrupted\n")
    os._exit(130)

def main():
    "The `mmllm` command: Ctrl-C ends it in one line, also while it imports."
    usual = signal.getsignal(signal.SIGINT)
    if usual is signal.default_int_handler: signal.signal(signal.SIGINT, _leave)
    command = import_module("mmllm.cli").main
    signal.signal(signal.SIGINT, usual)
    try: command()
    except KeyboardInterrupt:
        print("mmllm: interrupted", file=sys.stderr)
        sys.exit(130)
    finally: signal.signal(signal.SIGINT, signal.SIG_DFL) # nothing is left to clean up, and Python's end is not to be traced

def __dir__():
    return sorted([*globals(), *__all__])
