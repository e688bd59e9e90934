# Stands in for the robots of chats and for a pager: checks what each of them
# checks, and answers as they do, a wrong signature with status 200 too.
# usage: chat_receiver.py PORT_FILE LEDGER SECRET
import base64, hashlib, hmac, http.server, json, sys, time, urllib.parse

port_file, ledger, secret = sys.argv[1:]


def signature(key, text):
    return base64.b64encode(hmac.new(key.encode(), text.encode(), hashlib.sha256).digest()).decode()


def dingtalk(query, body):
    stamp = query.get('timestamp', [''])[0]
    good = query.get('access_token') == ['t0ken'] and abs(time.time() * 1000 - int(stamp or 0)) < 3600000 \
        and query.get('sign') == [signature(secret, stamp + '\n' + secret)] and 'content' in body.get('text', {})
    return {'errcode': 0, 'errmsg': 'ok'} if good else {'errcode': 310000, 'errmsg': 'sign not match'}


def feishu(query, body):
    stamp = body.get('timestamp', '')
    good = abs(time.time() - int(stamp or 0)) < 3600 and body.get('sign') == signature(stamp + '\n' + secret, '') \
        and 'text' in body.get('content', {})
    return {'code': 0, 'msg': 'success'} if good else {'code': 19021, 'msg': 'sign match fail'}


def wecom(query, body):
    good = query.get('key') == ['k'] and body.get('msgtype') == 'text' and len(body['text']['content'].encode()) <= 2048
    return {'errcode': 0 if good else 40058}


def pagerduty(query, body):
    good = body.get('routing_key') == secret and body.get('event_action') in ('trigger', 'resolve') and body.get('dedup_key') \
        and body['payload']['severity'] in ('critical', 'error', 'warning', 'info') and body['payload']['summary']
    return {'status': 'success'} if good else None


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def do_POST(self):
        url = urllib.parse.urlsplit(self.path)
        body = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
        answer = {'/robot/send': dingtalk, '/hook': feishu, '/wecom': wecom, '/enqueue': pagerduty}[url.path](
            urllib.parse.parse_qs(url.query), body)
        with open(ledger, 'a') as f:
            f.write(json.dumps({'path': url.path, 'good': answer is not None and not answer.get('errcode') and not answer.get('code'),
                                'body': body}) + '\n')
        text = json.dumps(answer if answer is not None else {'status': 'invalid event'}).encode()
        self.send_response(202 if url.path == '/enqueue' and answer else 400 if answer is None else 200)
        self.send_header('Content-Type', 'application/json')
        self.send_header('Content-Length', str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args):
        pass


server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
with open(port_file + '.new', 'w') as f:
    f.write(str(server.server_address[1]))
import os
os.rename(port_file + '.new', port_file)
server.serve_forever()
