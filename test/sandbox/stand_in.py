#!/usr/bin/env python3
"""A server that says what it is told to say: stand_in.py PORT_FILE PARENT

Writes its port to PORT_FILE, ends with PARENT. Whoever runs it rules it by POST /control:
  {"op": "answers", "answers": [{"method", "path", "match", "status", "headers", "body"}, ...]}
             the first whose method and path are those of the request, and whose match is in its body; else 404
  {"op": "log"} -> {"requests": [[method, path, whether there were credentials], ...]}    since the last log
"""
import http.server
import json
import sys

from serving import serve

PORT_FILE, PARENT = sys.argv[1], int(sys.argv[2])
STATE = {"answers": [], "requests": []}


def control(c):
    if c["op"] == "answers":
        STATE["answers"] = c["answers"]
        return {}
    seen, STATE["requests"] = STATE["requests"], []
    return {"requests": seen}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def handle_any(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        if self.path == "/control":
            return self.answer(200, {"Content-Type": "application/json"}, json.dumps(control(json.loads(body))))
        STATE["requests"].append([self.command, self.path, "Authorization" in self.headers])
        for a in STATE["answers"]:
            if a["method"] == self.command and a["path"] == self.path and a.get("match", "") in body:
                return self.answer(a.get("status", 207), a.get("headers", {"Content-Type": "application/xml"}), a.get("body", ""))
        self.answer(404, {"Content-Type": "text/plain"}, "nothing here")

    do_GET = do_PUT = do_POST = do_DELETE = do_PROPFIND = do_REPORT = handle_any

    def answer(self, status, headers, body):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())


serve(Handler, PORT_FILE, PARENT)
