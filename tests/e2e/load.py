"""Places, reads and lists orders through an edge until it is told to end; then looks whether
everything that was acknowledged is there.

    python3 load.py URL

Prints counts and the first failures; exits 1 when a request failed or an order was lost. A request
failed when its answer was not the expected one, or when none came: also an edge that lets a
connection go is one that users notice.
"""

import http.client
import json
import signal
import sys
import threading
import time
import urllib.parse

WRITERS, READERS = 2, 2
# Between two requests of a thread, in seconds: a load, not the most that goes.
PACE = 0.02
TIMEOUT = 40
# How long a read waits for what was just written, in seconds.
PATIENCE = 20
# How long the last look may be put off by an edge that is away, in seconds.
LAST_LOOK = 60

edge = urllib.parse.urlsplit(sys.argv[1])
stop = threading.Event()
signal.signal(signal.SIGINT, lambda *_: stop.set())
signal.signal(signal.SIGTERM, lambda *_: stop.set())
placed, reads, failed = [], [0], []


class Client:
    """One connection, made anew when an answer says that it closes."""

    def __init__(self):
        self.connection = http.client.HTTPConnection(edge.hostname, edge.port or 80, timeout=TIMEOUT)

    def ask(self, method, path, body=None):
        # Partitions that move are read again within seconds; that long a reader is ready to wait.
        headers = {"prefer": f"wait={PATIENCE}"}
        if body:
            headers["content-type"] = "application/json"
        try:
            self.connection.request(method, path, json.dumps(body) if body else None, headers)
            answer = self.connection.getresponse()
            return answer.status, answer.getheader("log-position"), answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.connection.close()
            return 0, None, repr(error).encode()


def failure(method, path, status, body):
    failed.append(f"{time.strftime('%H:%M:%S')} {method} {path}: {status} {body[:200]!r}")


def write(client, number):
    order = {"user_id": f"load-{number}", "total_amount": "1.00"}
    status, position, body = client.ask("POST", "/orders", order)
    if status != 201:
        return failure("POST", "/orders", status, body)
    order_id = json.loads(body)["id"]
    placed.append(order_id)
    path = f"/orders/{order_id}?at_least={position}"
    status, _, body = client.ask("GET", path)
    reads[0] += 1
    if status != 200:
        failure("GET", path, status, body)


def read(client):
    status, _, body = client.ask("GET", "/orders?limit=20")
    reads[0] += 1
    if status != 200:
        failure("GET", "/orders", status, body)


def work(number):
    client = Client()
    while not stop.is_set():
        if number < WRITERS:
            write(client, number)
        else:
            read(client)
        stop.wait(PACE)


def lost():
    client = Client()
    deadline = time.monotonic() + LAST_LOOK
    missing = []
    for order_id in placed:
        status = 0
        while status != 200 and status != 404 and time.monotonic() < deadline:
            status, _, _ = client.ask("GET", f"/orders/{order_id}?consistency=strong")
        if status != 200:
            missing.append(f"{order_id}: {status}")
    return missing


threads = [threading.Thread(target=work, args=(n,)) for n in range(WRITERS + READERS)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
missing = lost()
print("writes", len(placed), "reads", reads[0])
for what in failed[:10] + missing[:10]:
    print(what)
print("failed", len(failed), "lost", len(missing), flush=True)
sys.exit(1 if failed or missing or not placed else 0)
