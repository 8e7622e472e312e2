"""Says what has happened in the world because of orders: receipts written, messages sent, money moved.

    python3 effects.py URL SNS_URL RECEIPTS_FOLDER

Two equal lines: nothing happened between them.
"""

import json
import os
import sys
import urllib.request
from decimal import Decimal

PAGE = 500
base, sns, receipts = sys.argv[1:]


def get(url):
    with urllib.request.urlopen(url, timeout=40) as answer:
        return json.load(answer)


written = []
for folder, _, names in os.walk(receipts):
    for name in names:
        at = os.stat(os.path.join(folder, name))
        written.append((at.st_mtime_ns, at.st_ino))

sent = {topic["topic_arn"]: topic["messages_sent"] for topic in get(sns)["topics"]}


def items(path):
    cursor = ""
    while cursor is not None:
        page = get(f"{base}{path}limit={PAGE}{cursor and '&cursor='}{cursor}")
        yield from page["items"]
        cursor = page["next_cursor"]


orders = sum(1 for _ in items("/orders?include_deleted=true&"))
balances = [Decimal(account["balance"]) for account in items("/accounts?")]
print("orders", orders, "receipts", len(written), "last", max(written, default=None))
print("messages", sent, "accounts", len(balances), "balances", sum(balances))
# Each order has one as JSON and one to be read.
sys.exit(0 if len(written) == 2 * orders else 1)
