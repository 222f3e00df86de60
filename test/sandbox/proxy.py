#!/usr/bin/env python3
"""Stands in front of a CardDAV server and breaks what passes: proxy.py PORT_FILE PARENT UPSTREAM

Writes its port to PORT_FILE, ends with PARENT. Whoever runs it rules it by POST /control:
  {"op": "mode", "path", "match", "mode", "skip": n, "times": n}
             misbehave for requests below a path that have "match" in their body, after n of those and n times,
             or as long as nothing else is said; null: behave. See faults.py for modes, and:
               empty         a multistatus without members
               drop          one without its last member
               duplicate     one with each member twice
               other_origin  one whose members are on another server
               no_href       one whose members have no name
               no_token      one without a sync-token
               loop          one that is cut short, with the token that was asked with
  {"op": "release"}, {"op": "held"} -> {"held": n}     for the mode "hold"
  {"op": "log", "path"} -> {"requests": n}             how many there were since the last log
"""
import http.client
import json
import re
import sys
import threading
import urllib.parse

from faults import HOLD, RAW_MODES, FaultyHandler, Mode
from serving import serve

PORT_FILE, PARENT, UPSTREAM = sys.argv[1], int(sys.argv[2]), urllib.parse.urlparse(sys.argv[3])
MODES = "empty drop duplicate other_origin no_href no_token loop".split()
LOCK = threading.Lock()
RULES = {}  # path -> (match, Mode)
COUNTS = {}  # path -> requests
MEMBER = re.compile(rb"<response>.*?</response>", re.S)
TOKEN = re.compile(rb"<sync-token>(.*?)</sync-token>", re.S)


def control(c):
    with LOCK:
        if c["op"] == "mode":
            assert c["mode"] is None or c["mode"].split(":")[0] in [*MODES, *RAW_MODES], c["mode"]
            RULES[c["path"]] = (c.get("match", "").encode(), c["mode"] and Mode(c["mode"], c.get("skip", 0), c.get("times", 1000000)))
        elif c["op"] == "log":
            return {"requests": COUNTS.pop(c["path"], 0)}
    if c["op"] == "release":
        HOLD.release()
    return {"held": HOLD.waiting}


def mode_of(path, body):
    with LOCK:
        COUNTS[path] = COUNTS.get(path, 0) + 1
        for prefix, (match, mode) in RULES.items():
            if path.startswith(prefix) and match in body and mode:
                return mode.next()
    return None


def spoil(mode, asked, data):
    members = MEMBER.findall(data)
    if mode == "empty":
        return MEMBER.sub(b"", data)
    if mode == "drop" and members:
        at = data.rfind(members[-1])
        return data[:at] + data[at + len(members[-1]):]
    if mode == "duplicate":
        return MEMBER.sub(lambda m: m[0] * 2, data)
    if mode == "other_origin":
        return MEMBER.sub(lambda m: m[0].replace(b"<href>", b"<href>http://127.0.0.2:1"), data)
    if mode == "no_href":
        return MEMBER.sub(lambda m: re.sub(rb"<href>.*?</href>", b"", m[0], 1), data)
    if mode == "no_token":
        return TOKEN.sub(b"", data)
    if mode == "loop":
        token = TOKEN.search(asked)
        data = TOKEN.sub(b"<sync-token>" + (token and token[1] or b"urn:first") + b"</sync-token>", data)
        # RFC 6578 3.6: the collection itself with 507
        return data.replace(b"</multistatus>", b"<response><href>%s</href><status>HTTP/1.1 507 Insufficient Storage</status></response></multistatus>"
                            % re.sub(rb"[^/]*$", b"", re.search(rb"<href>(.*?)</href>", data)[1] if members else b"/"))
    return data


class Handler(FaultyHandler):
    def handle_any(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path == "/control":
            return self.send(200, json.dumps(control(json.loads(body))).encode())
        mode = mode_of(self.path, body)
        upstream = http.client.HTTPConnection(UPSTREAM.hostname, UPSTREAM.port)
        upstream.request(self.command, self.path, body, {k: v for k, v in self.headers.items() if k.lower() not in ("host", "accept-encoding")})
        response = upstream.getresponse()
        data = response.read()
        headers = [(k, v) for k, v in response.getheaders() if k.lower() not in ("content-length", "content-type", "transfer-encoding", "connection", "date", "server")]
        self.skew = 0
        try:
            if mode and mode.split(":")[0] in RAW_MODES:
                self.send_badly(mode, response.status, data, response.headers.get("Content-Type"), headers)
            else:
                self.send(response.status, spoil(mode, body, data), response.headers.get("Content-Type"), headers)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    do_GET = do_PUT = do_POST = do_DELETE = do_PROPFIND = do_REPORT = handle_any


serve(Handler, PORT_FILE, PARENT)
