"""Many clients on one server: does each get its own reply, does it take hang-ups, does its memory stay?

    mmllm serve --model tiny --port 8000
    python tools/load.py http://127.0.0.1:8000 --clients 16 --seconds 60

Each client asks with its own number and its own seed, about text, a photo or a sound. First every question is asked alone; then all
clients ask at once, and each reply is compared with the one that was made alone. A tenth of the requests hang up in mid-reply.
"""
import argparse, base64, random, re, statistics, sys, threading, time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from openai import APIStatusError, OpenAI
import httpx2 as httpx
from mmllm.weights import fetch

def encoded(path): return base64.b64encode(path.read_bytes()).decode()

def questions(number, tokens):
    "The requests of one client: {kind: keyword arguments}."
    photo = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PHOTO}"}}
    sound = {"type": "input_audio", "input_audio": {"data": SOUND, "format": "wav"}}
    asked = {"type": "text", "text": f"My number is {number}. Say it, then say more."}
    options = dict(model=MODEL, seed=number, temperature=1., max_tokens=tokens)
    contents = {"text": [asked], "photo": [photo, asked], "sound": [sound, asked]}
    return {kind: dict(messages=[dict(role="user", content=content)], **options) for kind, content in contents.items()}

def ask(client, request, stream):
    "The text of a reply."
    if not stream: return client.chat.completions.create(**request).choices[0].message.content
    with client.chat.completions.create(**request, stream=True) as chunks:
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)

def hang_up(client, request):
    "Go after the second piece of a long reply."
    with client.chat.completions.create(**request | dict(max_tokens=1000), stream=True) as chunks:
        for _ in zip(range(2), chunks): pass

def measure(address):
    "(MB of memory, requests that are open) of the server."
    text = httpx.get(f"{address}/metrics", headers=KEY).text
    def value(name): return float(re.search(rf"^{name} (\S+)", text, re.M).group(1))
    return value("process_resident_memory_bytes") / 1e6, int(value("mmllm_open_requests"))

def one_client(number, client, alone, end, tokens):
    "Ask until it is over: what happened, and how long the replies took."
    draw, counts, times, kinds = random.Random(number), Counter(), [], questions(number, tokens)
    while time.time() < end:
        kind = draw.choice(list(kinds))
        began = time.time()
        try:
            if draw.random() < .1:
                hang_up(client, kinds[kind])
                counts["hung up"] += 1
                continue
            stream = draw.random() < .5
            reply, own = ask(client, kinds[kind], stream), alone[number, kind]
            how = "as alone" if reply == own else "of another client" if reply in alone.values() else "another reply"
            counts[how if reply == own else f"{how} ({kind}{', streamed' if stream else ''})"] += 1
            times.append(time.time() - began)
        except APIStatusError as error:
            counts[str(error.status_code)] += 1
            time.sleep(min(5, float(error.response.headers.get("retry-after", 1))))
        except Exception as error: counts[f"{type(error).__name__}: {error}"[:80]] += 1
    return counts, times

def watch(address, end, seen):
    "Note the memory every few seconds."
    while time.time() < end:
        seen.append(measure(address)[0])
        time.sleep(5)

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--tokens", type=int, default=24, help="longest reply")
    parser.add_argument("--key", default="none", help="of the server")
    args = parser.parse_args()
    KEY = {"Authorization": f"Bearer {args.key}"}
    PHOTO, SOUND = encoded(fetch("photos")/"coffee.png"), encoded(sorted(fetch("librivox").glob("*.wav"))[1])
    client = OpenAI(base_url=f"{args.address}/v1", api_key=args.key, max_retries=0, timeout=600)
    MODEL = client.models.list().data[0].id
    numbers = range(101, 101 + args.clients)
    alone = {(n, kind): ask(client, request, stream=bool(n % 2)) for n in numbers
             for kind, request in questions(n, args.tokens).items()}
    print(f"{len(alone)} replies alone, {len(set(alone.values()))} of them different", flush=True)
    end, seen = time.time() + args.seconds, []
    watcher = threading.Thread(target=watch, args=(args.address, end, seen))
    watcher.start()
    with ThreadPoolExecutor(args.clients) as pool:
        done = list(pool.map(lambda n: one_client(n, client, alone, end, args.tokens), numbers))
    watcher.join()
    counts, times = sum((c for c, _ in done), Counter()), sorted(t for _, ts in done for t in ts)
    for name, n in counts.most_common(): print(f"{n:6} {name}")
    if times: print(f"a reply took {statistics.median(times):.1f} s (median), {times[int(.95 * len(times))]:.1f} s (95%)")
    time.sleep(2)
    print(f"memory: {seen[0]:.0f} MB at the start, {max(seen):.0f} MB at most, {measure(args.address)[0]:.0f} MB at the end; "
          f"{measure(args.address)[1]} requests are open")
    wrong = [name for name in counts if name not in ("as alone", "hung up", "429")]
    sys.exit(1 if wrong else 0)
