"""Cuts a Python process and its Python children off the network: PYTHONPATH=tools/offline HF_HUB_OFFLINE=1 mmllm plan"""
import errno, socket

NEAR = ("localhost", "127.", "::1", "0.0.0.0")
def refused(): return OSError(errno.ENETUNREACH, "network blocked by tools/offline")

def is_near(address):
    "Whether `address` is on this machine: a Unix socket or the loopback."
    return not isinstance(address, tuple) or not address[0] or str(address[0]).startswith(NEAR)

def guard(name):
    "Let `socket.socket.<name>` reach this machine only."
    original = getattr(socket.socket, name)
    def guarded(self, *args):
        if not is_near(args[-1]): raise refused()
        return original(self, *args)
    setattr(socket.socket, name, guarded)

def guard_names():
    "Resolve names of this machine only."
    original = socket.getaddrinfo
    def guarded(host, *args, **kwargs):
        if host and not is_near((host.decode() if isinstance(host, bytes) else host,)): raise refused()
        return original(host, *args, **kwargs)
    socket.getaddrinfo = guarded

for name in ("connect", "connect_ex", "sendto"): guard(name)
guard_names()
