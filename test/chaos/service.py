# A bank behind HTTP, for test/chaos/bank: accounts in a file of its own (SQLite),
# which outlives its process.  Whatever it is asked twice it does once.
# usage: service.py FILE PORT_FILE PORT SEED
#
#   POST /debit, /credit   {"transfer", "account", "amount"}: 200, or 409 where there is
#                          too little, it was undone, or asks to be refused ("refuse")
#   POST /undebit, /uncredit   the same: undoes it, or sees to it that it never comes
#   POST /check            {"key": transfer}: commit when the debit is done; else
#                          rollback, and the debit is refused from then on
#   POST /fine             200: there is nothing to do
#   GET /books             accounts, and entries: [transfer, operation, account, amount]
#
# Some answers get lost after the work is done, by the seed.
import http.server, json, os, random, sqlite3, sys, threading

file, port_file, port, seed = sys.argv[1:5]
chance = random.Random(int(seed))
lock = threading.Lock()
books = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
books.executescript('''
    CREATE TABLE IF NOT EXISTS account (name TEXT PRIMARY KEY, amount INTEGER NOT NULL);
    CREATE TABLE IF NOT EXISTS entry (transfer TEXT, op TEXT, account TEXT, amount INTEGER, PRIMARY KEY (transfer, op));
    INSERT OR IGNORE INTO account VALUES ('a0', 1000), ('a1', 1000), ('a2', 1000), ('a3', 1000);
''')


def entered(transfer, op):
    return books.execute('SELECT amount FROM entry WHERE transfer = ? AND op = ?', (transfer, op)).fetchone()


def enter(transfer, op, account, amount):
    books.execute('INSERT INTO entry VALUES (?, ?, ?, ?)', (transfer, op, account, amount))
    books.execute('UPDATE account SET amount = amount + ? WHERE name = ?', (amount, account))


def done(ask, op, amount):
    before = entered(ask['transfer'], op)
    if before is None:
        rich = books.execute('SELECT amount + ? >= 0 FROM account WHERE name = ?', (amount, ask['account'])).fetchone()[0]
        before = (amount if rich and not ask.get('refuse') else 0,)
        enter(ask['transfer'], op, ask['account'], before[0])
    return (200, 'done') if before[0] and entered(ask['transfer'], 'un' + op) is None else (409, 'refused')


def undone(ask, op):
    before = entered(ask['transfer'], op)
    if before is None:
        enter(ask['transfer'], op, ask['account'], 0)
    elif before[0] and entered(ask['transfer'], 'un' + op) is None:
        enter(ask['transfer'], 'un' + op, ask['account'], -before[0])
    return 200, 'done'


# Whoever is asked first decides: the row of a debit that never comes takes nothing.
def check(ask):
    before = entered(ask['key'], 'debit')
    if before is None:
        enter(ask['key'], 'debit', None, 0)
    return 200, 'commit' if before and before[0] else 'rollback'


does = {
    '/debit': lambda ask: done(ask, 'debit', -ask['amount']), '/undebit': lambda ask: undone(ask, 'debit'),
    '/credit': lambda ask: done(ask, 'credit', ask['amount']), '/uncredit': lambda ask: undone(ask, 'credit'),
    '/check': check, '/fine': lambda ask: (200, 'done')}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def answer(self, status, text):
        body = text.encode()
        self.send_response(status)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        with lock:
            self.answer(200, json.dumps({
                'accounts': dict(books.execute('SELECT name, amount FROM account').fetchall()),
                'entries': books.execute('SELECT transfer, op, account, amount FROM entry').fetchall()}))

    def do_POST(self):
        ask = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
        with lock:
            books.execute('BEGIN IMMEDIATE')
            status, text = does[self.path](ask)
            books.execute('COMMIT')
            lost = chance.random() < 0.05
        if lost:
            self.close_connection = True
        else:
            self.answer(status, text)

    def log_message(self, *ignored):
        pass


server = http.server.ThreadingHTTPServer(('127.0.0.1', int(port)), Handler)
with open(port_file + '.new', 'w') as out:
    out.write(str(server.server_address[1]))
os.rename(port_file + '.new', port_file)
server.serve_forever()
