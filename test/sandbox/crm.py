#!/usr/bin/env python3
"""A CRM to read from: GET /contacts with updated_since, cursor paging, tombstones.

crm.py STATE PORT_FILE PARENT: serves what the JSON file STATE holds, read anew for
each request, so that whoever runs it changes the CRM by writing the file:
  {"token": "...", "contacts": [{"id", "updated_at", "deleted"?, "properties"}], "fault": null}
Faults: an HTTP status as a number, "html", "cut", "half", "hang", "empty", "loop",
"redirect"; with "fault_from": N only from the N-th item on.
Writes its port to PORT_FILE, logs requests to STATE.log, ends with PARENT.
"""
import http.server
import json
import os
import sys
import threading
import time
import urllib.parse

STATE, PORT_FILE, PARENT = sys.argv[1], sys.argv[2], int(sys.argv[3])


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, status, body, kind="application/json", headers=(), announce=None):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(announce or len(body)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        if announce:
            self.close_connection = True

    def do_GET(self):
        with open(STATE) as f:
            state = json.load(f)
        with open(STATE + ".log", "a") as f:
            f.write(self.path + "\n")
        url = urllib.parse.urlparse(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        if self.headers.get("Authorization") != "Bearer " + state["token"]:
            return self.answer(401, b'{"error": "unauthorized"}')
        if url.path != "/api/contacts":
            return self.answer(404, b'{"error": "not found"}')
        since, after, limit = query.get("updated_since", ""), query.get("after", ""), int(query.get("limit", "100"))
        items = sorted((c for c in state["contacts"]
                        if c["updated_at"] >= since and (since or not c.get("deleted"))),
                       key=lambda c: (c["updated_at"], c["id"]))
        items = [c for c in items if c["updated_at"] + "|" + c["id"] > after]
        page = {"results": items[:limit]}
        if len(items) > limit:
            page["paging"] = {"next": {"after": page["results"][-1]["updated_at"] + "|" + page["results"][-1]["id"]}}
        fault = state.get("fault") if not state.get("fault_from") or after else None
        body = json.dumps(page).encode()
        if isinstance(fault, int):
            return self.answer(fault, b'{"error": "fault"}', headers=[("Retry-After", "1")])
        if fault == "html":
            return self.answer(200, b"<html>Sign in</html>", kind="text/html")
        if fault == "cut":
            return self.answer(200, body[:len(body) // 2], announce=len(body))
        if fault == "half":
            return self.answer(200, body[:len(body) // 2])
        if fault == "hang":
            time.sleep(3600)
        if fault == "empty":
            return self.answer(200, b'{"results": []}')
        if fault == "loop":
            return self.answer(200, json.dumps({"results": [], "paging": {"next": {"after": "again"}}}).encode())
        if fault == "redirect":
            return self.answer(302, b"", headers=[("Location", "http://other.example/")])
        return self.answer(200, body)


def end_with_parent():
    while os.path.exists("/proc/%d" % PARENT):
        time.sleep(1)
    os._exit(0)


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
server.daemon_threads = True
threading.Thread(target=end_with_parent, daemon=True).start()
with open(PORT_FILE + ".new", "w") as f:
    f.write(str(server.server_address[1]))
os.rename(PORT_FILE + ".new", PORT_FILE)
server.serve_forever()
