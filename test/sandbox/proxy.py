#!/usr/bin/env python3
"""Stands in front of a server and breaks what passes: proxy.py STATE PORT_FILE PARENT UPSTREAM

STATE is a JSON file, read anew for each request: {"fault": null, "match": "", "after": 0}.
A fault meets requests whose body has "match" in it, but for the first "after" of those
since the file changed: a status as a number, "html", "cut" (the connection, in the middle),
"half" (of the body, as if it were all), "hang", "drop" (the last <response> of a multistatus).
Writes its port to PORT_FILE, ends with PARENT.
"""
import http.client
import http.server
import json
import sys
import time
import urllib.parse

from serving import serve

STATE, PORT_FILE, PARENT, UPSTREAM = sys.argv[1], sys.argv[2], int(sys.argv[3]), urllib.parse.urlparse(sys.argv[4])
matched = {"of": None, "count": 0}


def fault_for(body):
    with open(STATE) as f:
        text = f.read()
    state = json.loads(text)
    if matched["of"] != text:
        matched.update(of=text, count=0)
    if not state.get("fault") or state.get("match", "").encode() not in body:
        return None
    matched["count"] += 1
    return state["fault"] if matched["count"] > state.get("after", 0) else None


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def handle_any(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = fault_for(body)
        if fault == "hang":
            time.sleep(3600)
        if isinstance(fault, int):
            return self.answer(fault, {}, b"")
        if fault == "html":
            return self.answer(200, {"Content-Type": "text/html"}, b"<html>Sign in</html>")
        upstream = http.client.HTTPConnection(UPSTREAM.hostname, UPSTREAM.port)
        upstream.request(self.command, self.path, body, {k: v for k, v in self.headers.items() if k.lower() not in ("host", "accept-encoding")})
        response = upstream.getresponse()
        data = response.read()
        if fault == "half":
            data = data[:len(data) // 2]
        if fault == "drop":
            at = data.rfind(b"<response>")
            data = data[:at] + data[data.find(b"</response>", at) + len(b"</response>"):]
        self.answer(response.status, dict(response.getheaders()), data, cut=fault == "cut")

    do_GET = do_PUT = do_DELETE = do_PROPFIND = do_REPORT = handle_any

    def answer(self, status, headers, data, cut=False):
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[:len(data) // 2] if cut else data)
        self.close_connection = True


serve(Handler, PORT_FILE, PARENT)
