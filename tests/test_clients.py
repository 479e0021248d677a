"Odd clients of the server, byte by byte: each gets an answer or the end of the connection, and the next one is served."
import json, signal, socket, struct, threading, time
from contextlib import contextmanager
import pytest
from mmllm.chat.engine import local_engine
from mmllm.serve import ServerSettings, make_server, open_port

PATIENCE = 1. # seconds that an idle connection has here
HOST = b"Host: localhost\r\n"

@contextmanager
def running():
    "A server of the tiny model, in a thread."
    sock, server = open_port(port=0), make_server(local_engine("tiny"), ServerSettings(body_seconds=2.))
    server.config.timeout_keep_alive, server.port = PATIENCE, sock.getsockname()[1]
    thread = threading.Thread(target=server.run, kwargs=dict(sockets=[sock]), daemon=True)
    thread.start()
    yield server
    if server.told is None: server.handle_exit(signal.SIGTERM, None)
    thread.join()

@pytest.fixture(scope="module")
def server(learner):
    with running() as server: yield server

def connected(server):
    link = socket.create_connection(("127.0.0.1", server.port))
    link.settimeout(60)
    return link

def received(link):
    "All that comes until the connection ends."
    found = b""
    try:
        while piece := link.recv(65536): found += piece
    except ConnectionError: pass
    return found

def answer(server, data, ends=False):
    "What comes back on some bytes."
    with connected(server) as link:
        try: link.sendall(data)
        except ConnectionError: pass
        if ends: link.shutdown(socket.SHUT_WR)
        return received(link)

def get(path=b"/health", headers=b"", method=b"GET"): return method + b" " + path + b" HTTP/1.1\r\n" + HOST + headers + b"\r\n"

def question(tokens=2, **options): return json.dumps({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": tokens, **options}).encode()

def post(body=None, headers=b"", length=None, version=b"1.1"):
    body = question() if body is None else body
    length = b"Content-Length: %d\r\n" % (len(body) if length is None else length)
    return b"POST /v1/chat/completions HTTP/" + version + b"\r\n" + HOST + b"Content-Type: application/json\r\n" + headers + length + b"\r\n" + body

def chunked(*chunks, headers=b""):
    head = b"POST /v1/chat/completions HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n" + headers + b"\r\n"
    return head + b"".join(size + b"\r\n" + data + b"\r\n" for size, data in chunks)

SIZE = b"%x" % len(question())
REQUESTS = { # name: (what is sent, status)
    "HTTP/1.0": (post(version=b"1.0"), 200), "HTTP/0.9": (b"GET /health\r\n\r\n", 400), "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 403),
    "the start of TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100), 400), "junk": (bytes(range(256)) * 400, 400),
    "lines that end in LF": (b"GET /health HTTP/1.1\nHost: localhost\n\n", 200), "empty lines": (b"\r\n" * 1000 + get(), 400),
    "chunks": (chunked((SIZE, question()), (b"0", b"")), 200), "a chunk of no size": (chunked((b"zz", question())), 400),
    "a chunk of -5": (chunked((b"-5", question())), 400), "a chunk of 70 digits": (chunked((b"f" * 70, b"")), 400),
    "a chunk that is longer than it says": (chunked((b"5", question())), 400), "a chunk that never ends": (chunked((b"ffffff", question())), 408),
    "100-continue": (post(headers=b"Expect: 100-continue\r\n"), 100), "a header of 1 MB": (get(headers=b"X: " + b"a" * 2**20 + b"\r\n"), 400),
    "ten thousand headers": (get(headers=b"X: a\r\n" * 10_000), 200), "an address of 1 MB": (get(b"/" + b"a" * 2**20), 400),
    "more than its length": (post(length=10), 400), "less than its length": (post(length=500), 408), "a length of -1": (post(length=-1), 400),
    "two lengths": (post(headers=b"Content-Length: 3\r\n"), 400), "a length in words": (post(headers=b"Content-Length: abc\r\n"), 400),
    "a length of 31 digits": (post(length=10**30), 400), "HEAD": (get(method=b"HEAD"), 405), "OPTIONS": (get(b"*", method=b"OPTIONS"), 404),
    "PUT": (get(b"/v1/models", method=b"PUT"), 405), "TRACE": (get(method=b"TRACE"), 405), "CONNECT": (get(b"a.example:443", method=b"CONNECT"), 404),
    "a method of 1,000 letters": (get(method=b"A" * 1000), 405), "NUL in a path": (get(b"/static/%00"), 404), "NUL as a model": (get(b"/v1/models/%00"), 404),
    "out of static": (get(b"/static/../../../../etc/passwd"), 404), "out of static, written otherwise": (get(b"/static/%2e%2e/%2e%2e/app.py"), 404),
    "no UTF-8": (get(b"/static/%ff%fe"), 404), "bytes in a path": (get(b"/\xff\xfe"), 400), "a path of 5,000": (get(b"/static/" + b"a" * 5000), 404),
    "no host": (b"GET /health HTTP/1.1\r\n\r\n", 400), "two hosts": (get(headers=b"Host: evil\r\n"), 400),
    "half an IPv6 address as host": (b"GET /health HTTP/1.1\r\nHost: [::1\r\n\r\n", 403),
    "half an IPv6 address as origin": (get(headers=b"Origin: http://[\r\n"), 403), "nobody's origin": (get(headers=b"Origin: null\r\n"), 403),
    "a web socket": (get(headers=b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"), 200),
    "three thousand ranges": (get(b"/", b"Range: bytes=" + b",".join(b"%d-" % i for i in range(3000)) + b"\r\n"), 200),
    "a form of no boundary": (post(b"abcde").replace(b"chat/completions", b"audio/transcriptions").replace(b"application/json", b"multipart/form-data"), 400),
}

def status(answer): return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.") else answer

@pytest.fixture(scope="module")
def answers(server):
    "All of them at once, for most of their time is patience; {name: answer}."
    found = {}
    def ask(name): found[name] = answer(server, REQUESTS[name][0])
    threads = [threading.Thread(target=ask, args=(name,)) for name in REQUESTS]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    return found

@pytest.mark.parametrize("name", REQUESTS)
def test_every_request_is_answered(name, answers):
    assert status(answers[name]) == REQUESTS[name][1], answers[name][:500]
    assert b"Traceback" not in answers[name] and b"root:" not in answers[name]

@pytest.mark.parametrize("part", [b"", b"GET /health HTT", get()[:-2], b"G" * 40_000])
def test_half_a_request_ends_with_the_connection(part, server): assert answer(server, part, ends=True) in (b"",) or len(part) > 1000

def test_several_requests_in_one_piece(server):
    found = answer(server, get() * 3 + post() + get())
    assert found.count(b"HTTP/1.1 200 OK") == 5 and found.count(b'{"status":"ok"}') == 4

def test_a_request_of_one_letter_at_a_time_ends(server):
    began = time.monotonic()
    with connected(server) as link:
        try:
            while time.monotonic() - began < 20:
                link.sendall(b"G")
                time.sleep(.1)
        except ConnectionError: pass
    assert time.monotonic() - began < 15

def test_many_that_only_wait_end_and_others_are_served(server):
    idle = [connected(server) for _ in range(300)]
    for number, link in enumerate(idle): link.sendall([b"", b"G", get()[:-2], post(length=500)][number % 4])
    assert status(answer(server, post(headers=b"Connection: close\r\n"))) == 200
    assert {received(link)[:12] for link in idle} == {b"", b"HTTP/1.1 408"}
    for link in idle: link.close()
    assert not server.server_state.connections

def waits_for(condition):
    for _ in range(600):
        if condition(): return True
        time.sleep(.05)

def test_somebody_who_hardly_reads_holds_nobody_up(server):
    with connected(server) as link:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        link.sendall(post(question(100, stream=True)))
        assert link.recv(1)
        assert status(answer(server, post())) == 200
        assert b"[DONE]" in received(link)

def test_connections_that_are_reset_in_mid_reply_leave_nothing(server):
    for _ in range(10):
        with connected(server) as link:
            link.sendall(post(question(100, stream=True)))
            assert link.recv(100)
            link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)) # close resets
    assert waits_for(lambda: not len(server.api.queue) and not server.server_state.connections)
    assert status(answer(server, post())) == 200

def test_a_server_that_is_told_twice_ends_the_reply_in_a_sentence(learner):
    with running() as server, connected(server) as link:
        link.sendall(post(question(1000, stream=True), version=b"1.0"))
        assert link.recv(100)
        server.handle_exit(signal.SIGTERM, None)
        assert waits_for(lambda: server.api.queue.closing)
        server.handle_exit(signal.SIGTERM, None)
        assert b"the server ended before the reply did" in received(link)
