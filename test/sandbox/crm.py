#!/usr/bin/env python3
"""A CRM to read from: GET /contacts with updated_since, cursor paging, tombstones;
to edit; and that sends webhooks.

crm.py STATE PORT_FILE PARENT: serves what the JSON file STATE holds, read anew for
each request, so that whoever runs it changes the CRM by writing the file:
  {"token": "...", "contacts": [{"id", "updated_at", "deleted"?, "properties"}], "fault": null,
   "webhook": {"url": "...", "secret": "whsec_..."}?}
Faults: an HTTP status as a number, "html", "cut", "half", "hang", "empty", "loop",
"redirect"; with "fault_from": N only from the N-th item on.
Writes its port to PORT_FILE, logs requests to STATE.log, ends with PARENT.

The rest of its API, for people who work in it:
  PATCH  /api/contacts/ID  {"properties": {...}}   change some; null takes away
  DELETE /api/contacts/ID                          leaves a tombstone
  POST   /api/deliveries/N                         send a webhook again, or at last
An edit sends its webhook at once (Standard Webhooks; see STATE) unless asked with
?deliver=no. The answer says what became of it: {"delivery", "posted_at", "status", "answer"}.
"""
import base64
import datetime
import hashlib
import hmac
import http.server
import json
import os
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

from serving import serve

STATE, PORT_FILE, PARENT = sys.argv[1], sys.argv[2], int(sys.argv[3])
EDITING = threading.Lock()
DELIVERIES = []  # bodies, by number


def read_state():
    with open(STATE) as f:
        return json.load(f)


def edit(contact_id, change):
    """Change a contact and stamp it later than anything before; None where there is none."""
    with EDITING:
        state = read_state()
        contact = next((c for c in state["contacts"] if c["id"] == contact_id and not c.get("deleted")), None)
        if contact is None:
            return None
        change(contact)
        latest = max(c["updated_at"] for c in state["contacts"])
        now = datetime.datetime.now(datetime.timezone.utc)
        while stamp(now) <= latest:
            now += datetime.timedelta(microseconds=1)
        contact["updated_at"] = stamp(now)
        with open(STATE + ".new", "w") as f:
            json.dump(state, f)
        os.rename(STATE + ".new", STATE)
        kind = "contact.deleted" if contact.get("deleted") else "contact.updated"
        DELIVERIES.append(json.dumps({"type": kind, "timestamp": contact["updated_at"], "data": contact}).encode())
        return len(DELIVERIES) - 1


def stamp(t):
    return t.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def deliver(number):
    """POST a webhook, signed as https://www.standardwebhooks.com has it: a repetition has the same id."""
    webhook = read_state()["webhook"]
    body, event, now = DELIVERIES[number], "msg_%d" % number, str(int(time.time()))
    key = base64.b64decode(webhook["secret"].removeprefix("whsec_"))
    mac = hmac.digest(key, b"%s.%s.%s" % (event.encode(), now.encode(), body), hashlib.sha256)
    request = urllib.request.Request(webhook["url"], body, {
        "Content-Type": "application/json", "webhook-id": event, "webhook-timestamp": now,
        "webhook-signature": "v1," + base64.b64encode(mac).decode()})
    result = {"delivery": number, "posted_at": time.time()}
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return {**result, "status": answer.status, "answer": answer.read().decode()}
    except urllib.error.HTTPError as e:
        return {**result, "status": e.code, "answer": e.read().decode()}
    except OSError as e:
        return {**result, "status": 0, "answer": str(e)}


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
        state = read_state()
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

    def do_edit(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Authorization") != "Bearer " + read_state()["token"]:
            return self.answer(401, b'{"error": "unauthorized"}')
        url = urllib.parse.urlparse(self.path)
        what, _, which = url.path.removeprefix("/api/").partition("/")
        number, send = None, "deliver=no" not in url.query

        def patch(contact):
            properties = {**contact["properties"], **json.loads(body)["properties"]}
            contact["properties"] = {k: v for k, v in properties.items() if v is not None}

        def delete(contact):
            contact["deleted"] = True
            del contact["properties"]

        if what == "contacts" and self.command in ("PATCH", "DELETE"):
            number = edit(which, patch if self.command == "PATCH" else delete)
        elif what == "deliveries" and self.command == "POST" and which.isdigit() and int(which) < len(DELIVERIES):
            number = int(which)
        if number is None:
            return self.answer(404, b'{"error": "not found"}')
        return self.answer(200, json.dumps(deliver(number) if send else {"delivery": number}).encode())

    do_PATCH = do_DELETE = do_POST = do_edit


serve(Handler, PORT_FILE, PARENT)
