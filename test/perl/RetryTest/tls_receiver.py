#!/usr/bin/env python3
"""A receiver behind TLS that says with whom it speaks; see Tls.pm.

It answers every request 200 with one line of JSON: the common name of the
client's certificate (null: it showed none), the number of the connection, the
version of TLS.  A path /status/NNN is answered with that status.
"""
import argparse
import http.server
import itertools
import json
import os
import ssl
import threading

connections = itertools.count(1)
lock = threading.Lock()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self):
        super().setup()
        with lock:
            self.number = next(connections)

    def handle(self):
        # What the client sent behind a handshake that fails is read, or closing
        # would reset the connection, and the client might not see the alert.
        rest = os.dup(self.connection.fileno())
        try:
            if self.server.context is not None:
                self.connection.do_handshake()
        except OSError:
            self.connection.settimeout(None)
            try:
                self.connection.shutdown(1)
            except OSError:
                pass
            while True:
                try:
                    if not os.read(rest, 65536):
                        break
                except OSError:
                    break
            return
        finally:
            os.close(rest)
        super().handle()

    def answer(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        certificate = self.connection.getpeercert()
        name = None
        if certificate:
            name = dict(pair[0] for pair in certificate["subject"])["commonName"]
        body = json.dumps({"client": name, "connection": self.number,
                           "version": self.connection.version()}).encode()
        status = int(self.path[8:11]) if self.path.startswith("/status/") else 200
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = answer

    def log_message(self, *args):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def get_request(self):
        connection, address = super().get_request()
        if self.context is None:
            return connection, address
        return self.context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), address

    def handle_error(self, *args):
        pass


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port-file", required=True)
    parser.add_argument("--certificate", required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--clients-of", help="certificates of the authorities of clients, who must show one")
    parser.add_argument("--ask", action="store_true", help="clients may show none")
    parser.add_argument("--highest", choices=["1.1", "1.2", "1.3"], default="1.3")
    parser.add_argument("--plain", action="store_true", help="without TLS")
    given = parser.parse_args()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(given.certificate, given.key)
    if given.highest == "1.1":
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = {"1.1": ssl.TLSVersion.TLSv1_1, "1.2": ssl.TLSVersion.TLSv1_2,
                               "1.3": ssl.TLSVersion.TLSv1_3}[given.highest]
    if given.clients_of:
        context.load_verify_locations(given.clients_of)
        context.verify_mode = ssl.CERT_OPTIONAL if given.ask else ssl.CERT_REQUIRED

    server = Server(("127.0.0.1", 0), Handler)
    server.context = None if given.plain else context
    with open(given.port_file + ".new", "w") as file:
        file.write(str(server.server_address[1]))
    os.rename(given.port_file + ".new", given.port_file)
    server.serve_forever()


main()
