#!/usr/bin/env python3
"""A receiver that acts once for each Idempotency-Key.

    examples/receiver.py [--port 8080] [--database seen.db] [--key whsec_...]

It answers POST /... with 200 whether the message is new or a repeat, and acts
on it (here: prints it) only the first time.  Keys and what was done are kept in
one SQLite database and committed together, so a crash in between repeats
nothing and forgets nothing.  With a key it takes only what is signed by it, as
Standard Webhooks has it, and is not older than five minutes.  Standard library
only.
"""
import argparse
import base64
import hashlib
import hmac
import http.server
import json
import sqlite3
import time

parser = argparse.ArgumentParser(description="acts once for each Idempotency-Key")
parser.add_argument("--port", type=int, default=8080, help="0: any free one")
parser.add_argument("--database", default="seen.db")
parser.add_argument("--key", help="whsec_...: refuse what is not signed by it")
options = parser.parse_args()

db = sqlite3.connect(options.database)
db.execute("CREATE TABLE IF NOT EXISTS seen (key text PRIMARY KEY)")
db.execute("CREATE TABLE IF NOT EXISTS orders (body text)")


def signed(headers, body):
    """One of the signatures is by our key, over these bytes, and made just now."""
    ident = headers.get("webhook-id", "")
    sent = headers.get("webhook-timestamp", "")
    if not sent.isdigit() or abs(time.time() - int(sent)) > 300:
        return False
    key = base64.b64decode(options.key.removeprefix("whsec_"))
    digest = hmac.new(key, f"{ident}.{sent}.".encode() + body, hashlib.sha256).digest()
    good = "v1," + base64.b64encode(digest).decode()
    return any(hmac.compare_digest(good, one) for one in headers.get("webhook-signature", "").split())


class Receiver(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        key = self.headers.get("Idempotency-Key")
        if options.key and not signed(self.headers, body):
            return self.answer(401, {"error": "not signed by the key, or too old"})
        if key is None:
            return self.answer(400, {"error": "no Idempotency-Key"})
        try:
            order = json.loads(body)
        except ValueError:
            # 400 means: never send this again, it cannot succeed
            return self.answer(400, {"error": "the body is not JSON"})
        with db:
            new = db.execute("INSERT OR IGNORE INTO seen VALUES (?)", (key,)).rowcount == 1
            if new:
                db.execute("INSERT INTO orders VALUES (?)", (json.dumps(order),))
        print("new" if new else "repeat", key, order, flush=True)
        self.answer(200, {"new": new})

    def answer(self, status, content):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


server = http.server.HTTPServer(("127.0.0.1", options.port), Receiver)
print("listening on port", server.server_port, flush=True)
server.serve_forever()
