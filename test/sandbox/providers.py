#!/usr/bin/env python3
"""Five providers, as we read their documentation: Google People, Microsoft Graph, HubSpot, Salesforce, SCIM.

providers.py PORT_FILE PARENT: serves until the process PARENT is gone.

  /google/v1/people/me/connections           syncToken, pageToken; 400 EXPIRED_SYNC_TOKEN
  /graph/me/contactFolders[/ID/childFolders], .../ID/contacts/delta, .../ID/contacts/ID
                                             nextLink, deltaLink, @removed; 410 SyncStateNotFound
  /hubspot/crm/v3/objects/contacts[/search]  cursor paging, archived=true, search capped at 10,000
  /services/data/vNN.N/{query,queryAll}/, .../sobjects/Contact/deleted/ (Salesforce)
                                             nextRecordsUrl, totalSize, latestDateCovered
  /scim/Users                                startIndex, totalResults
  /scim/linked                               the same people, by the header Link
  /oauth/token, /services/oauth2/token       refresh_token (rotating), client_credentials, jwt-bearer (RS256)

It proves agreement with our reading, no more: real providers differ where we are wrong.

  provider_store.py  who is there, for whom: accounts, by the token that asks
  provider_apis.py   what the providers answer
  provider_oauth.py  the token endpoint
  faults.py          ways to answer badly, whatever the answer is

Whoever runs it rules it by POST /control with {"op", "provider", "account"}; "accounts": [name, ...] stands for
the same in each of them. "at" is a stamp in milliseconds, else it is now.
  reset    {"count": n, "at"}                n people, changed a second after each other, in January
  create   {"fields": {...}, "at"} -> {"id"}
  edit {"id", "fields", "at"}    delete {"id", "at"}    restore {"id", "at"}
  purge    {"id", "at"}                      (Salesforce) gone from the recycle bin, too
  rename   {"id"} -> {"id"}                  (Google) another resourceName for the same person
  folder   {"folder", "parent"}              (Graph) a folder in another one; unfolder {"folder"}: with all that is in it
  move     {"id", "folder"}                  (Graph) the person to a folder; at first all are in "contacts"
  expire                                     cursors given so far are lost
  set      {name: value, ...}                page (largest page), skew (seconds its clock is ahead)
  mode     {"mode", "skip": n, "times": n}   misbehave, after n requests and n times, or as long as nothing else
                                             is said; null: behave. See MODES, and faults.py
  release                                    let go what the mode "hold" holds, in all accounts
  held     -> {"held": n}                    how many that are
  oauth    {"rotate", "expires_in", "error", "modulus"}      revoke: access tokens are lost
  people   -> {"people": [[id, first, last, mail, title], ...]}   who is there, by the provider's ids
  log      -> {"requests": [...]}            what was asked since the last log, in this account
"""
import json
import sys
import threading
import urllib.parse

import provider_apis
from faults import HOLD, RAW_MODES, FaultyHandler, Mode
from provider_apis import salesforce_id
from provider_oauth import token
from provider_store import Refused, account, account_of
from serving import serve

PORT_FILE, PARENT = sys.argv[1], int(sys.argv[2])
LOCK = threading.RLock()
LOGS = {}

# besides those of faults.py, of what the answer says:
MODES = {
    "empty": "no items, and as if these were all",
    "missing": "no items, and the way to the next page",
    "skipped": "the way to the page after the next",
    "duplicate": "each item twice",
    "again": "the way to the same page once more",
    "loop": "the way to a page that was, for ever",
    "other_origin": "the way to somebody else's server",
    "array_type": "an object instead of the array of items",
    "id_type": "objects instead of ids",
    "revoke": "401: the access token has expired",
    "partial": "(Graph) changed items with some of their properties",
    "limit": "X-RateLimit-Remaining: 0",
}
# how an item is named, where that can be spoilt
ID_OF = {"google": "resourceName", "graph": "id", "hubspot": "id", "salesforce": "Id", "scim": "id"}
NAME_OF = {"google": lambda p: "people/c%d%s" % (p["id"], "x" * p["names"]), "graph": lambda p: "AAMk%d=" % p["id"],
           "hubspot": lambda p: str(p["id"]), "salesforce": salesforce_id, "scim": lambda p: "u-%d" % p["id"]}


# ---- the control ----

def control(c):
    if "accounts" in c:
        answers = [control({**{k: v for k, v in c.items() if k != "accounts"}, "account": name}) for name in c["accounts"]]
        return {"answers": answers}
    owner = account(c.get("account", ""))
    store = owner.stores.get(c.get("provider"))
    op, at = c["op"], c.get("at")
    if op == "reset":
        store.reset(c["count"], at)
    elif op == "create":
        return {"id": store.create(c["fields"], at)}
    elif op in ("edit", "restore"):
        store.edit(store.people[c["id"]], c.get("fields", {}), at)
    elif op in ("delete", "purge"):
        store.delete(store.people[c["id"]], at, op == "purge")
    elif op == "rename":
        p = store.people[c["id"]]
        p["names"] += 1
        store.touch(p, at)
    elif op == "folder":
        store.folders[c["folder"]] = c["parent"]
    elif op == "unfolder":
        store.remove_folder(c["folder"])
    elif op == "move":
        store.move(store.people[c["id"]], c["folder"])
    elif op == "expire":
        store.generation += 1
        store.expired = store.now()  # Salesforce: deletes before this moment are not listed, until all is read
    elif op == "set":
        for name in ("page", "skew"):
            if name in c:
                setattr(store, name, c[name])
    elif op == "mode":
        assert c["mode"] is None or c["mode"].split(":")[0] in [*MODES, *RAW_MODES], c["mode"]
        store.mode = c["mode"] and Mode(c["mode"], c.get("skip", 0), c.get("times", 1000000))
    elif op == "release":
        HOLD.release()
    elif op == "held":
        return {"held": HOLD.waiting}
    elif op == "oauth":
        owner.oauth.update({k: v for k, v in c.items() if k in owner.oauth})
    elif op == "revoke":
        owner.revoke()
    elif op == "people":
        name = NAME_OF[c["provider"]]
        return {"people": [[name(p), p["first"], p["last"], p["email"], p["title"]] for p in store.live()]}
    elif op == "log":
        return {"requests": LOGS.pop(owner.name, []), **{k: owner.oauth[k] for k in ("claims", "refresh", "count")}}
    else:
        raise AssertionError(op)
    return {}


class Handler(FaultyHandler):
    def spoil(self, mode, request, body, items, following):
        """Make of a good body what a mode of MODES has it be."""
        if mode == "empty":
            body[items] = []
            for member in (following, "totalResults", "total"):
                body.pop(member, None)
        elif mode == "missing":
            # the page is there, and nothing is on it
            body[items] = []
        elif mode == "skipped" and body.get(following):
            body[following] = self.peek(request, following)
        elif mode == "duplicate" and body.get(items):
            body[items] = body[items] + body[items]
        elif mode == "again" and body.get(following):
            body[following] = self.here(request, following)
        elif mode == "loop" and following:
            body[following] = {"next": {"after": "1"}} if following == "paging" else \
                self.url if "Link" in following or "Url" in following else "0.0"
        elif mode == "other_origin" and following:
            body[following] = "http://127.0.0.2:%d/steal" % self.server.server_address[1]
        elif mode == "array_type" and items in body:
            body[items] = {"0": body[items]}
        elif mode == "id_type" and body.get(items):
            body[items] = [{**item, name: {"$": item[name]}} for item in body[items] for name in (ID_OF[request.provider], "id") if name in item][:len(body[items])]

    def here(self, request, following):
        """The way to the page that was asked for, in other words."""
        if following == "paging":
            return {"next": {"after": request.query.get("after", "0") + " "}}
        if following == "nextPageToken":
            return request.query.get("pageToken", "0.%d" % request.store.change) + "~"
        if following == "@odata.nextLink":
            return self.url + ("~" if "token=" in self.url else "?$skiptoken=%d.0.0.%d~" % (request.store.generation, request.store.change))
        return "/services/data/v60.0/query/%s~" % (request.path.rsplit("/", 1)[1] or "%d-0" % len(request.store.results))

    def peek(self, request, following):
        """The way to the page after the next; to the next, if that is the last."""
        body, _, _ = request.answer
        if following == "paging":
            request.query["after"] = body["paging"]["next"]["after"]
        elif following == "nextPageToken":
            request.query["pageToken"] = body["nextPageToken"]
        elif following == "@odata.nextLink":
            request.query = dict(urllib.parse.parse_qsl(urllib.parse.urlparse(body["@odata.nextLink"]).query))
        else:
            request.path = body["nextRecordsUrl"]
        return getattr(provider_apis, request.provider)(request.store, request)[0].get(following, body[following])

    def respond(self):
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        url = urllib.parse.urlparse(self.path)
        if url.path == "/control":
            with LOCK:
                return self.send(200, json.dumps(control(json.loads(raw))).encode())
        request = type("Request", (), {})()
        request.method, request.path, request.body, request.headers = self.command, url.path, raw, self.headers
        request.query = dict(urllib.parse.parse_qsl(url.query))
        request.provider = "salesforce" if url.path.startswith("/services/data/") else url.path.split("/")[1]
        self.url = "http://%s%s" % (self.headers.get("Host"), self.path)
        request.base = "http://%s/%s" % (self.headers.get("Host"), request.provider)
        kind = "application/scim+json" if request.provider == "scim" else "application/json"
        with LOCK:
            mode = None
            line = "%s %s%s" % (self.command, self.path, " " + raw.decode() if request.provider == "hubspot" and raw else "")
            try:
                if url.path in ("/oauth/token", "/services/oauth2/token"):
                    LOGS.setdefault("", []).append(line)
                    return self.send(200, json.dumps(token(request)).encode())
                owner = account_of(self.headers.get("Authorization", "").removeprefix("Bearer "),
                                   request.query.pop("api_key", self.headers.get("X-Emulator-Key")))
                LOGS.setdefault(owner.name if owner else "", []).append(line)
                request.store = owner and owner.stores.get(request.provider)
                if request.store is None:
                    raise Refused(401, {"error": "unauthorized"})
                self.skew = request.store.skew
                request.mode = mode = request.store.mode and request.store.mode.next()
                if mode == "revoke":
                    owner.revoke()
                    raise Refused(401, {"error": "expired"})
                request.answer = getattr(provider_apis, request.provider)(request.store, request)
                body, items, following = request.answer
                if mode and items:
                    self.spoil(mode, request, body, items, following)
            except Refused as r:
                refused = r
            else:
                refused = None
        if refused and mode and mode.split(":")[0] in RAW_MODES:
            return self.send_badly(mode, refused.status, json.dumps(refused.body).encode(), kind, refused.headers)
        if refused:
            return self.send(refused.status, json.dumps(refused.body).encode(), headers=refused.headers)
        headers = getattr(request, "extra", []) + ([("X-RateLimit-Remaining", "0"), ("X-RateLimit-Reset", "1")] if mode == "limit" else [])
        if mode and mode.split(":")[0] in RAW_MODES:
            return self.send_badly(mode, 200, json.dumps(body).encode(), kind, headers)
        self.send(200, json.dumps(body).encode(), kind, headers)

    def do_GET(self):
        try:
            self.respond()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    do_POST = do_GET


serve(Handler, PORT_FILE, PARENT)
