"""Writes orders and reads lists until it is told to end, and says how many requests failed."""

import http.client
import json
import signal
import threading

HOST, PORT = "127.0.0.1", 8080
stop = threading.Event()
signal.signal(signal.SIGINT, lambda *_: stop.set())
signal.signal(signal.SIGTERM, lambda *_: stop.set())
done, failed = [0, 0], []


def request(connection, method, path, body=None):
    headers = {"content-type": "application/json"} if body else {}
    connection.request(method, path, json.dumps(body) if body else None, headers)
    answer = connection.getresponse()
    return answer.status, answer.getheader("log-position"), answer.read()


def work(kind, number):
    connection = http.client.HTTPConnection(HOST, PORT, timeout=20)
    while not stop.is_set():
        if kind == 0:
            order = {"user_id": f"load-{number}", "total_amount": "1.00"}
            status, position, body = request(connection, "POST", "/orders", order)
            done[0] += 1
            if status != 201:
                failed.append((status, body[:200]))
                continue
            path = f"/orders/{json.loads(body)['id']}?at_least={position}"
        else:
            path = "/orders?limit=20"
        status, _, body = request(connection, "GET", path)
        done[1] += 1
        if status != 200:
            failed.append((path, status, body[:200]))
        stop.wait(0.02)


threads = [threading.Thread(target=work, args=(n % 2, n)) for n in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print("writes", done[0], "reads", done[1])
for what in failed[:10]:
    print(what)
print("failed", len(failed))
