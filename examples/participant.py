#!/usr/bin/env python3
"""A service that takes part in global transactions, with a database of its own.

    examples/participant.py [--port 8080] [--database accounts.db] [--key whsec_...]

It keeps accounts.  What it is asked to do comes as POST /NAME with the body
{"amount": 30}, and in the headers Retry-Gid, Retry-Branch and Retry-Operation:

    action, compensate        a step of a saga, and what undoes it: NAME pays
    try, confirm, cancel      TCC: the amount is frozen, then taken or given back
    message (or no headers)   a message that was committed: NAME gets the amount
    check                     did we commit the message with this gid?

Operations come more than once, and in any order.  The barrier is in the same
SQLite transaction as what is done: each operation acts once, what undoes finds
out whether there is anything to undo, and what was undone does not act any more.
POST /NAME/send with {"gid": ..., "amount": 30} is the other side: NAME pays, and
the gid is kept with that, for a check to find.  Standard library only.
"""
import argparse
import base64
import hashlib
import hmac
import http.server
import json
import sqlite3
import time

parser = argparse.ArgumentParser(description="takes part in global transactions")
parser.add_argument("--port", type=int, default=8080, help="0: any free one")
parser.add_argument("--database", default="accounts.db")
parser.add_argument("--key", help="whsec_...: refuse what is not signed by it")
options = parser.parse_args()

db = sqlite3.connect(options.database, isolation_level=None)
db.execute("CREATE TABLE IF NOT EXISTS account (name text PRIMARY KEY, amount int DEFAULT 100, frozen int DEFAULT 0)")
db.execute("CREATE TABLE IF NOT EXISTS note (gid text, branch text, op text, PRIMARY KEY (gid, branch, op))")
db.execute("CREATE TABLE IF NOT EXISTS sent (gid text PRIMARY KEY, decision text)")

UNDOES = {"compensate": "action", "cancel": "try"}

# what each operation does to an account; what it may not make negative is refused
ACTS = {
    "action": "amount = amount - :by",
    "compensate": "amount = amount + :by",
    "try": "amount = amount - :by, frozen = frozen + :by",
    "confirm": "frozen = frozen - :by",
    "cancel": "amount = amount + :by, frozen = frozen - :by",
    "message": "amount = amount + :by",
}


class Refused(Exception):
    pass


def note(gid, branch, op):
    """True: it was not noted before."""
    return db.execute("INSERT OR IGNORE INTO note VALUES (?, ?, ?)", (gid, branch, op)).rowcount == 1


def barrier(gid, branch, op):
    """Is it to be done?  Called in the transaction that does it."""
    nothing_to_undo = op in UNDOES and note(gid, branch, UNDOES[op])
    first = note(gid, branch, op)
    return first and not nothing_to_undo


def change(name, what, by):
    db.execute("INSERT OR IGNORE INTO account (name) VALUES (?)", (name,))
    db.execute(f"UPDATE account SET {what} WHERE name = :name", {"name": name, "by": by})
    if db.execute("SELECT 1 FROM account WHERE name = ? AND (amount < 0 OR frozen < 0)", (name,)).fetchone():
        raise Refused("there is not enough in the account")


def operate(name, gid, branch, op, by):
    if not barrier(gid, branch, op):
        return {"done": "nothing"}
    change(name, ACTS[op], by)
    return {"done": op}


def send(name, gid, by):
    """Our own transaction, which a message tells of: a check finds its gid, or has forbidden it."""
    if db.execute("INSERT OR IGNORE INTO sent VALUES (?, 'commit')", (gid,)).rowcount == 0:
        raise Refused("this transaction was given up, or is done already")
    change(name, ACTS["action"], by)
    return {"sent": gid}


def check(gid):
    """Who says rollback makes sure that it stays so: the row keeps a later send() from committing."""
    db.execute("INSERT OR IGNORE INTO sent VALUES (?, 'rollback')", (gid,))
    return {"decision": db.execute("SELECT decision FROM sent WHERE gid = ?", (gid,)).fetchone()[0]}


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


def handle(path, headers, question):
    """What a request asks for, in the transaction that is open."""
    op = headers.get("Retry-Operation", "message")
    gid = headers.get("Retry-Gid", headers.get("webhook-id"))
    branch = headers.get("Retry-Branch", "message")
    name, _, verb = path.strip("/").partition("/")
    if op == "check":
        return check(question["gid"])
    by = question["amount"]
    if type(by) is not int or by < 0:
        raise ValueError("amount")
    if verb == "send":
        return send(name, question["gid"], by)
    if op not in ACTS or gid is None:
        raise ValueError("operation")
    return operate(name, gid, branch, op, by)


class Participant(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if options.key and not signed(self.headers, body):
            return self.answer(401, {"error": "not signed by the key, or too old"})
        db.execute("BEGIN IMMEDIATE")
        try:
            answer = handle(self.path, self.headers, json.loads(body))
            db.execute("COMMIT")
        except Refused as why:
            # the note of the barrier goes too: there is nothing to undo then
            db.execute("ROLLBACK")
            return self.answer(409, {"error": str(why)})
        except (ValueError, KeyError, TypeError) as why:
            db.execute("ROLLBACK")
            return self.answer(400, {"error": f"not understood: {why}"})
        except Exception:
            # it will be asked again
            db.execute("ROLLBACK")
            return self.answer(500, {"error": "the transaction was not made"})
        self.answer(200, answer)

    def do_GET(self):
        rows = db.execute("SELECT name, amount, frozen FROM account ORDER BY name").fetchall()
        self.answer(200, {name: [amount, frozen] for name, amount, frozen in rows})

    def answer(self, status, content):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


server = http.server.HTTPServer(("127.0.0.1", options.port), Participant)
print("listening on port", server.server_port, flush=True)
server.serve_forever()
