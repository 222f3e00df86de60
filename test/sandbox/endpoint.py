#!/usr/bin/env python3
"""The part of an application that takes webhooks: POST /webhooks/SOURCE goes to contactsync.receive().

endpoint.py PORT_FILE PARENT PSQL-ARGUMENT...

All it does is to hand on the headers and the body as they came, and to answer what
receive() answers. Checking the signature, knowing a repetition, putting what is old
in its place: all that is done in the database. An application does the same with its
own driver, by one statement with bind parameters, and commits:

    row = db.execute("SELECT status, body FROM contactsync.receive(%s, %s, %s, %s, %s)",
                     (source, json.dumps(headers), body, method, path)).fetchone()

Here there is no driver but psql, one process for all requests; what comes from outside
reaches it as hex digits only. Writes its port to PORT_FILE, and ends with PARENT.
"""
import http.server
import json
import subprocess
import sys
import threading

from serving import serve

PORT_FILE, PARENT, PSQL = sys.argv[1], int(sys.argv[2]), sys.argv[3:]


class Database:
    def __init__(self):
        self.lock = threading.Lock()
        self.psql = None

    def row(self, query):
        """The one row of a query, its columns as bytes; an error ends psql and is raised."""
        with self.lock:
            if self.psql is None or self.psql.poll() is not None:
                self.psql = subprocess.Popen(["psql", "-X", "-q", "-A", "-t", "-F", " ", "-v", "ON_ERROR_STOP=1", *PSQL],
                                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            self.psql.stdin.write(query.encode() + b";\n")
            self.psql.stdin.flush()
            line = self.psql.stdout.readline()
            if not line:
                self.psql.wait()
                raise OSError("the database could not answer")
            return line.rstrip(b"\n").split(b" ")


DATABASE = Database()


def text(s):
    return "convert_from('\\x%s', 'UTF8')" % s.encode("utf-8", "surrogateescape").hex()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def handle_request(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = json.dumps({name: ", ".join(self.headers.get_all(name)) for name in self.headers})
        try:
            status, answer = DATABASE.row(
                "SELECT status, encode(convert_to(body, 'UTF8'), 'hex') FROM contactsync.receive(%s, %s::jsonb, '\\x%s', %s, %s)" % (
                    text(self.path.removeprefix("/webhooks/")), text(headers), body.hex(), text(self.command), text(self.path)))
            status, answer = int(status), bytes.fromhex(answer.decode())
        except (OSError, ValueError):
            # not committed: the sender will try again
            status, answer = 503, b'{"error": "try again"}'
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_POST = do_GET = do_PUT = handle_request


serve(Handler, PORT_FILE, PARENT)
