"""A multi-modal language model to build, train, measure and talk to from notebooks."""
__version__ = "0.2.0"

from importlib import import_module

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

def main():
    "The `mmllm` command: Ctrl-C ends it in one line, also while it imports."
    try: import_module("mmllm.cli").main()
    except KeyboardInterrupt:
        import sys
        print("mmllm: interrupted", file=sys.stderr)
        sys.exit(130)

def __dir__():
    return sorted([*globals(), *__all__])
