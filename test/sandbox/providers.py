#!/usr/bin/env python3
"""Five providers, as we read their documentation: Google People, Microsoft Graph, HubSpot, Salesforce, SCIM.

providers.py PORT_FILE PARENT: serves until the process PARENT is gone.

  /google/v1/people/me/connections           syncToken, pageToken; 400 EXPIRED_SYNC_TOKEN
  /graph/me/contactFolders/contacts/contacts/delta, /graph/me/contacts/ID
                                             nextLink, deltaLink, @removed; 410 SyncStateNotFound
  /hubspot/crm/v3/objects/contacts[/search]  cursor paging, archived=true, search capped at 10,000
  /services/data/vNN.N/{query,queryAll}/, .../sobjects/Contact/deleted/ (Salesforce)
                                             nextRecordsUrl, totalSize, latestDateCovered
  /scim/Users                                startIndex, totalResults
  /scim/linked                               the same people, by the header Link
  /oauth/token, /services/oauth2/token       refresh_token (rotating), client_credentials, jwt-bearer (RS256)

It proves agreement with our reading, no more: real providers differ where we are wrong.

Whoever runs it rules it by POST /control with {"op": ..., "provider": ...}:
  reset    {"count": n}                      n people, all changed in January
  create   {"fields": {...}} -> {"id"}       edit {"id", "fields"}    delete {"id"}    restore {"id"}
  rename   {"id"} -> {"id"}                  (Google) another resourceName for the same person
  expire                                     cursors given so far are lost
  set      {name: value, ...}                page (largest page), skew (seconds its clock is ahead)
  mode     {"mode", "skip": n, "times": n}   misbehave, after n requests and n times; see MODES
  oauth    {"rotate", "expires_in", "error", "modulus"}
  people   -> {"people": [[id, first, last, mail, title], ...]}   who is there, by the provider's ids
  log      -> {"requests": [...]}            what was asked since the last log
"""
import base64
import gzip
import hashlib
import http.server
import json
import re
import socket
import struct
import sys
import threading
import time
import urllib.parse
from datetime import datetime, timezone

from serving import serve

PORT_FILE, PARENT = sys.argv[1], int(sys.argv[2])
LOCK = threading.RLock()
LOG = []

MODES = """status:NNN[:RETRY_AFTER[:BODY]]  html  empty  truncated  half  reset  stall  drip  loop  other_origin  duplicate  missing
redirect:URL  big  bomb  partial (Graph: changed items with some of their properties)  limit (X-RateLimit-Remaining: 0)""".split()


def iso(ms, colon="Z"):
    t = datetime.fromtimestamp(ms / 1000, timezone.utc)
    return t.strftime("%Y-%m-%dT%H:%M:%S.") + "%03d" % (ms % 1000) + colon


def from_iso(text):
    return int(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1000)


class Refused(Exception):
    def __init__(self, status, body, headers=()):
        self.status, self.body, self.headers = status, body, headers


class Store:
    """The people of one provider, and the order of their changes."""

    def __init__(self, name):
        self.name = name
        self.people, self.change, self.generation, self.page, self.skew, self.expired = {}, 0, 0, 1000, 0, 0
        self.mode = None

    def now(self):
        return int((time.time() + self.skew) * 1000)

    def touch(self, person, at=None):
        self.change += 1
        # two changes have two stamps, as far as milliseconds go
        person.update(change=self.change, modified=at or max(self.now(), person.get("modified", 0) + 1))

    def reset(self, count):
        self.__init__(self.name)
        for n in range(1, count + 1):
            self.create({"first": "First%d" % n, "last": self.name.title() + "son%d" % n, "email": "p%d@%s.example" % (n, self.name),
                         "phone": "+44 20 7946 %04d" % (100 * list(STORES).index(self.name) + n), "company": "Company%d" % (n % 7), "title": "Title%d" % (n % 5)},
                        1767225600000 + n * 1000)

    def create(self, fields, at=None):
        person = {"id": 1000 + len(self.people) + 1, "names": 0, "deleted": 0, "created": at or self.now(), **fields}
        self.people[person["id"]] = person
        self.touch(person, at)
        return person["id"]

    def live(self):
        return sorted((p for p in self.people.values() if not p["deleted"]), key=lambda p: p["id"])

    def changed_since(self, change):
        return sorted((p for p in self.people.values() if p["change"] > change), key=lambda p: p["change"])


STORES = {name: Store(name) for name in ("google", "graph", "hubspot", "salesforce", "scim")}
OAUTH = {"rotate": False, "expires_in": 3600, "error": None, "modulus": None, "refresh": "r0", "count": 0, "live": {"tok"}}


# ---- what each provider says; a page is (body, items, set_items, next position or None) ----

def google_person(p):
    source = {"type": "CONTACT", "id": "%x" % p["id"], "etag": "#%d" % p["change"]}
    person = {"resourceName": "people/c%d%s" % (p["id"], "x" * p["names"]), "etag": "%%%d" % p["change"],
              "metadata": {"sources": [source], "objectType": "PERSON"}}
    if p["names"]:
        person["metadata"]["previousResourceNames"] = ["people/c%d%s" % (p["id"], "x" * n) for n in range(p["names"])]
    if p["deleted"]:
        person["metadata"]["deleted"] = True
        return person
    source["updateTime"] = iso(p["modified"])[:-1] + "000Z"
    mine = {"primary": True, "sourcePrimary": True, "source": {"type": "CONTACT", "id": source["id"]}}
    person["names"] = [{"metadata": mine, "givenName": p["first"], "familyName": p["last"], "displayName": p["first"] + " " + p["last"]}]
    person["emailAddresses"] = [{"metadata": mine, "value": p["email"], "type": "work"}]
    person["phoneNumbers"] = [{"metadata": mine, "value": p["phone"], "type": "mobile"}]
    person["organizations"] = [{"metadata": mine, "name": p["company"], "title": p["title"], "current": True}]
    return person


def google_error(status, name, message, reason=None):
    error = {"code": status, "message": message, "status": name}
    if reason:
        error["details"] = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "googleapis.com"}]
    return Refused(status, {"error": error})


def google(store, request):
    q = request.query
    if "personFields" not in q or "metadata" not in q["personFields"]:
        raise google_error(400, "INVALID_ARGUMENT", "personFields mask is required.")
    # all else has to be the same from page to page, and from token to token
    same = hashlib.md5(repr(sorted((k, v) for k, v in q.items() if k not in ("pageToken", "syncToken", "pageSize"))).encode()).hexdigest()[:8]
    since, offset, upto = 0, 0, store.change
    if "syncToken" in q:
        generation, since, digest = q["syncToken"].split("-")
        since = int(since)
        if int(generation) != store.generation:
            raise google_error(400, "FAILED_PRECONDITION",
                               "Sync token is expired. Clear local cache and retry call without the sync token.", "EXPIRED_SYNC_TOKEN")
        if digest != same:
            raise google_error(400, "INVALID_ARGUMENT", "Request parameters differ from those of the sync token.")
    if "pageToken" in q:
        offset, upto = (int(x) for x in q["pageToken"].split("."))
    people = store.changed_since(since) if since else store.live()
    size = min(int(q.get("pageSize", 100)) or 100, 1000, store.page)
    items = [google_person(p) for p in people[offset:offset + size]]
    body = {"totalItems": len(people)}
    if items:
        body["connections"] = items
    more = offset + size < len(people)
    if more:
        body["nextPageToken"] = "%d.%d" % (offset + size, upto)
    elif q.get("requestSyncToken") == "true":
        body["nextSyncToken"] = "%d-%d-%s" % (store.generation, upto, same)
    return body, "connections", "nextPageToken"


def graph_contact(p):
    return {"@odata.etag": 'W/"%d"' % p["change"], "id": "AAMk%d=" % p["id"], "createdDateTime": iso(p["created"]),
            "lastModifiedDateTime": iso(p["modified"]), "changeKey": str(p["change"]), "categories": [], "givenName": p["first"],
            "surname": p["last"], "middleName": None, "emailAddresses": [{"name": p["first"], "address": p["email"]}],
            "businessPhones": [p["phone"]], "homePhones": [], "mobilePhone": None, "companyName": p["company"], "jobTitle": p["title"]}


def graph(store, request):
    if 'IdType="ImmutableId"' not in request.headers.get("Prefer", ""):
        raise Refused(400, {"error": {"code": "ErrorEmulator", "message": "ids would change"}})
    one = re.fullmatch(r"/graph/me/contacts/AAMk(\d+)=", urllib.parse.unquote(request.path))
    if one:
        p = store.people.get(int(one[1]))
        if p is None or p["deleted"]:
            raise Refused(404, {"error": {"code": "ErrorItemNotFound", "message": "The specified object was not found in the store."}})
        return graph_contact(p), None, None
    if request.path != "/graph/me/contactFolders/contacts/contacts/delta":
        raise Refused(404, {"error": {"code": "ErrorInvalidIdMalformed"}})
    q, since, offset = request.query, 0, 0
    token = q.get("$skiptoken") or q.get("$deltatoken")
    if token:
        generation, since, offset = (int(x) for x in token.split("."))
        if generation != store.generation:
            raise Refused(410, {"error": {"code": "SyncStateNotFound", "message": "The sync state generation is not found.",
                                          "innerError": {"date": "2026-01-01T00:00:00"}}}, [("Location", request.base + "/me/contactFolders/contacts/contacts/delta?$deltatoken=")])
    people = store.changed_since(since) if since else store.live()
    size = min(int(re.search(r"maxpagesize=(\d+)", request.headers["Prefer"])[1]), store.page)
    items = []
    for p in people[offset:offset + size]:
        items.append({"id": "AAMk%d=" % p["id"], "@removed": {"reason": "deleted"}} if p["deleted"] else graph_contact(p))
        if store.mode and store.mode["mode"] == "partial" and since and not p["deleted"]:
            items[-1] = {k: v for k, v in items[-1].items() if k in ("@odata.etag", "id", "changeKey", "jobTitle", "lastModifiedDateTime")}
    link = request.base + "/me/contactFolders/contacts/contacts/delta?$%s=%d.%d.%d"
    body = {"value": items}
    if offset + size < len(people):
        body["@odata.nextLink"] = link % ("skiptoken", store.generation, since, offset + size)
    else:
        body["@odata.deltaLink"] = link % ("deltatoken", store.generation, store.change, 0)
    return body, "value", "@odata.nextLink"


def hubspot_contact(p, wanted, history=()):
    values = {"firstname": p["first"], "lastname": p["last"], "email": p["email"], "phone": p["phone"], "company": p["company"],
              "jobtitle": p["title"], "hs_additional_emails": p.get("more"), "billing_contact": p.get("billing"),
              "hs_object_id": str(p["id"]), "lastmodifieddate": iso(p["modified"]), "createdate": iso(p["created"])}
    contact = {"id": str(p["id"]), "properties": {k: v for k, v in values.items() if k in wanted or k == "hs_object_id"},
               "createdAt": iso(p["created"]), "updatedAt": iso(p["modified"]), "archived": bool(p["deleted"])}
    if p["deleted"]:
        contact["archivedAt"] = iso(p["deleted"])
    if history:
        contact["propertiesWithHistory"] = {
            k: [{"value": v, "timestamp": iso(at), "sourceType": "CRM_UI"} for at, v in reversed(p.get("history", {}).get(k, [[p["created"], values[k]]]))]
            for k in history if values.get(k) is not None}
    return contact


def hubspot(store, request):
    if request.path == "/hubspot/crm/v3/objects/contacts/search" and request.method == "POST":
        q = json.loads(request.body)
        people = store.live()
        for f in q["filterGroups"][0]["filters"]:
            value = {"lastmodifieddate": lambda p: p["modified"], "hs_object_id": lambda p: p["id"]}[f["propertyName"]]
            compare = {"GTE": lambda a, b: a >= b, "GT": lambda a, b: a > b}[f["operator"]]
            people = [p for p in people if compare(value(p), int(f["value"]))]
        sort = q["sorts"][0]
        people.sort(key=lambda p: p["id"] if sort["propertyName"] == "hs_object_id" else p["modified"])
        offset = int(q.get("after", 0))
        if offset + q["limit"] > 10000 or q["limit"] > 200:
            raise Refused(400, {"status": "error", "category": "VALIDATION_ERROR", "message": "over the limit of a search"})
        size = min(q["limit"], store.page)
        body = {"total": len(people), "results": [hubspot_contact(p, q["properties"]) for p in people[offset:offset + size]]}
        if offset + size < len(people):
            body["paging"] = {"next": {"after": str(offset + size)}}
        return body, "results", None
    if request.path != "/hubspot/crm/v3/objects/contacts":
        raise Refused(404, {"status": "error", "category": "OBJECT_NOT_FOUND"})
    q = request.query
    archived = q.get("archived") == "true"
    people = sorted((p for p in store.people.values() if bool(p["deleted"]) == archived), key=lambda p: p["id"])
    people = [p for p in people if p["id"] >= int(q.get("after", 0))]
    size = min(int(q.get("limit", 10)), 100, store.page)
    history = [h for h in q.get("propertiesWithHistory", "").split(",") if h]
    body = {"results": [hubspot_contact(p, q.get("properties", "firstname,lastname,email").split(","), history) for p in people[:size]]}
    if len(people) > size:
        body["paging"] = {"next": {"after": str(people[size]["id"]), "link": "https://api.hubapi.com/?after=%d" % people[size]["id"]}}
    return body, "results", "paging"


def salesforce_contact(p):
    return {"attributes": {"type": "Contact", "url": "/services/data/v60.0/sobjects/Contact/%s" % salesforce_id(p)}, "Id": salesforce_id(p),
            "FirstName": p["first"], "LastName": p["last"], "Email": p["email"], "Phone": p["phone"], "MobilePhone": None,
            "Title": p["title"], "Account": {"Name": p["company"]}, "CreatedDate": iso(p["created"], "+0000"),
            "SystemModstamp": iso(p["modified"], "+0000"), "IsDeleted": bool(p["deleted"])}


def salesforce_id(p):
    return "003xx%010dAAS" % p["id"]


def salesforce(store, request):
    def refuse(status, code):
        return Refused(status, [{"message": code.lower(), "errorCode": code}])

    match = re.fullmatch(r"/services/data/v\d+\.0/(query|queryAll|sobjects/Contact/deleted)/(.*)", request.path)
    if not match:
        raise refuse(404, "NOT_FOUND")
    kind, locator = match.groups()
    if kind.endswith("deleted"):
        start, end = from_iso(request.query["start"]), from_iso(request.query["end"])
        if end < start + 60000 or end > store.now() + 60000:
            raise refuse(400, "INVALID_REPLICATION_DATE")
        earliest = max(store.expired, store.now() - 15 * 86400000)
        return {"deletedRecords": [{"id": salesforce_id(p), "deletedDate": iso(p["deleted"] // 1000 * 1000, "+0000")}
                                   for p in store.people.values() if start <= p["deleted"] <= store.now()],
                "earliestDateAvailable": iso(earliest, "+0000"), "latestDateCovered": iso(end, "+0000")}, "deletedRecords", None
    if locator:
        kind_of, since, offset = (int(x) for x in locator.split("-"))
    else:
        since, offset, kind_of = 0, 0, int(kind == "queryAll")
        where = re.search(r"WHERE SystemModstamp >= (\S+)", request.query["q"])
        if where:
            since = from_iso(where[1])
        else:
            store.expired = 0
        if "FROM Contact" not in request.query["q"]:
            raise refuse(400, "MALFORMED_QUERY")
    people = [p for p in store.people.values() if p["modified"] >= since and (kind_of or not p["deleted"]) and not p.get("purged")]
    people.sort(key=lambda p: (p["modified"], p["id"]) if since else p["id"])
    size = min(2000, store.page)
    body = {"totalSize": len(people), "done": offset + size >= len(people), "records": [salesforce_contact(p) for p in people[offset:offset + size]]}
    if not body["done"]:
        body["nextRecordsUrl"] = "/services/data/v60.0/query/%d-%d-%d" % (kind_of, since, offset + size)
    return body, "records", "nextRecordsUrl"


def scim(store, request):
    if request.path == "/scim/linked":
        # no SCIM, but the same people, with pages that are told in the header Link
        page, people = int(request.query.get("page", 1)), store.live()
        links = ['<%s/linked?page=1&x=a,b>; title="first, \\"next\\""; rel=first' % request.base]
        if page * store.page < len(people):
            links.append('<linked?page=%d&x=a,b>; Rel="prefetch next"' % (page + 1))
        request.extra = [("Link", ", ".join(links))]
        return {"people": [{"id": "u-%d" % p["id"], "at": p["modified"], "first": p["first"], "last": p["last"], "mail": p["email"]}
                           for p in people[(page - 1) * store.page:page * store.page]]}, "people", None
    if request.path != "/scim/Users":
        raise Refused(404, {"schemas": ["urn:ietf:params:scim:api:messages:2.0:Error"], "status": "404"})
    start, count = max(int(request.query.get("startIndex", 1)), 1), int(request.query.get("count", 100))
    people = store.live()
    items = [{"schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"], "id": "u-%d" % p["id"], "userName": p["email"], "active": True,
              "meta": {"resourceType": "User", "created": iso(p["created"]), "lastModified": iso(p["modified"])},
              "name": {"givenName": p["first"], "familyName": p["last"]}, "title": p["title"],
              "emails": [{"value": p["email"], "type": "work", "primary": True}], "phoneNumbers": [{"value": "tel:" + p["phone"].replace(" ", "-"), "type": "work"}],
              "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User": {"organization": p["company"]}}
             for p in people[start - 1:start - 1 + min(count, store.page)]]
    return {"schemas": ["urn:ietf:params:scim:api:messages:2.0:ListResponse"], "totalResults": len(people), "startIndex": start,
            "itemsPerPage": len(items), "Resources": items}, "Resources", None


# ---- tokens ----

def unpad(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def check_jwt(jwt):
    """RSASSA-PKCS1-v1_5 by hand: the public exponent is 65537."""
    header, claims, signature = jwt.split(".")
    n = int(OAUTH["modulus"], 16)
    size = (n.bit_length() + 7) // 8
    info = bytes.fromhex("3031300d060960864801650304020105000420") + hashlib.sha256((header + "." + claims).encode()).digest()
    expected = b"\0\1" + b"\xff" * (size - len(info) - 3) + b"\0" + info
    good = pow(int.from_bytes(unpad(signature), "big"), 65537, n).to_bytes(size, "big") == expected
    claims = json.loads(unpad(claims))
    if not good or json.loads(unpad(header))["alg"] != "RS256" or not claims["iat"] - 5 <= time.time() <= claims["exp"] <= claims["iat"] + 3600:
        raise Refused(400, {"error": "invalid_grant", "error_description": "Invalid JWT Signature."})
    OAUTH["claims"] = claims


def token(request):
    form = dict(urllib.parse.parse_qsl(request.body.decode()))
    if OAUTH["error"]:
        status, code = OAUTH["error"]
        raise Refused(status, {"error": code, "error_description": "secret words about somebody"})
    answer = {"token_type": "Bearer"}
    grant = form.get("grant_type")
    if grant == "refresh_token":
        if form.get("refresh_token") != OAUTH["refresh"]:
            raise Refused(400, {"error": "invalid_grant", "error_description": "Token has been expired or revoked."})
        if OAUTH["rotate"]:
            OAUTH["refresh"] = answer["refresh_token"] = "r%d" % (OAUTH["count"] + 1)
    elif grant == "client_credentials":
        basic = "Basic " + base64.b64encode(b"id:s%2Fcret").decode()
        if (form.get("client_id"), form.get("client_secret")) != ("id", "s/cret") and request.headers.get("Authorization") != basic:
            raise Refused(401, {"error": "invalid_client"})
    elif grant == "urn:ietf:params:oauth:grant-type:jwt-bearer":
        check_jwt(form["assertion"])
    else:
        raise Refused(400, {"error": "unsupported_grant_type"})
    OAUTH["count"] += 1
    answer["access_token"] = "access%d" % OAUTH["count"]
    OAUTH["live"] = {"tok", answer["access_token"]}
    if OAUTH["expires_in"]:
        answer["expires_in"] = OAUTH["expires_in"]
    return answer


# ---- the control ----

def control(c):
    store = STORES.get(c.get("provider"))
    op = c["op"]
    if op == "reset":
        store.reset(c["count"])
    elif op == "create":
        return {"id": store.create(c["fields"])}
    elif op in ("edit", "delete", "restore", "purge"):
        p = store.people[c["id"]]
        if op == "edit":
            for name, value in c["fields"].items():
                property_of = {"title": "jobtitle", "phone": "phone", "company": "company"}.get(name)
                if property_of:
                    p.setdefault("history", {}).setdefault(property_of, [[p["created"], p[name]]]).append([store.now(), value])
            p.update(c["fields"])
        store.touch(p)
        p["deleted"] = p["modified"] if op in ("delete", "purge") else 0
        p["purged"] = op == "purge"
    elif op == "rename":
        p = store.people[c["id"]]
        p["names"] += 1
        store.touch(p)
    elif op == "expire":
        store.generation += 1
        store.expired = store.now()  # Salesforce: deletes before this moment are not listed, until all is read
    elif op == "set":
        for name in ("page", "skew"):
            if name in c:
                setattr(store, name, c[name])
    elif op == "mode":
        assert c["mode"] is None or c["mode"].split(":")[0] in [m.split(":")[0] for m in MODES], c["mode"]
        store.mode = c["mode"] and {"mode": c["mode"], "skip": c.get("skip", 0), "times": c.get("times", 1000000)}
    elif op == "oauth":
        OAUTH.update({k: v for k, v in c.items() if k in OAUTH})
    elif op == "revoke":
        OAUTH["live"] = {"tok"}
    elif op == "people":
        name = {"google": lambda p: "people/c%d%s" % (p["id"], "x" * p["names"]), "graph": lambda p: "AAMk%d=" % p["id"],
                "hubspot": lambda p: str(p["id"]), "salesforce": salesforce_id, "scim": lambda p: "u-%d" % p["id"]}[c["provider"]]
        return {"people": [[name(p), p["first"], p["last"], p["email"], p["title"]] for p in store.live()]}
    elif op == "log":
        seen = LOG[:]
        LOG.clear()
        return {"requests": seen, "claims": OAUTH.get("claims"), "refresh": OAUTH["refresh"], "count": OAUTH["count"]}
    return {}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or headers and body, written apart, cost 40 ms

    def log_message(self, *args):
        pass

    def date_time_string(self, timestamp=None):
        return super().date_time_string((timestamp or time.time()) + getattr(self, "skew", 0))

    def send(self, status, body, kind="application/json", headers=(), announce=None):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(announce or len(body)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def misbehave(self, store, mode, body, items, following):
        """Answer as the mode has it; False if the answer is then to be sent as it stands."""
        name, _, rest = mode.partition(":")
        raw = json.dumps(body).encode()
        if name == "status":
            status, _, more = rest.partition(":")
            after, _, text = more.partition(":")
            self.send(int(status), (text or '{"error": "fault"}').encode(), headers=[("Retry-After", after)] if after else [])
        elif name == "html":
            self.send(200, b"<html>Sign in</html>", "text/html")
        elif name == "truncated":
            self.send(200, raw[:len(raw) // 2], announce=len(raw))
            self.close_connection = True
        elif name == "half":
            self.send(200, raw[:len(raw) // 2])
        elif name == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
        elif name == "stall":
            time.sleep(3600)
        elif name == "drip":
            self.send(200, b"", announce=len(raw))
            for i in range(len(raw)):
                time.sleep(0.2)
                self.wfile.write(raw[i:i + 1])
        elif name == "redirect":
            self.send(302, b"", headers=[("Location", rest)])
        elif name == "big":
            self.send(200, b"", announce=100 << 20)
            for _ in range(100):
                self.wfile.write(b" " * (1 << 20))
        elif name == "bomb":
            self.send(200, gzip.compress(b"[" + b" " * (64 << 20) + b"]", 1), headers=[("Content-Encoding", "gzip")])
        else:
            if name == "empty":
                body[items] = []
                for member in (following, "totalResults", "total"):
                    body.pop(member, None)
            elif name == "missing":
                # the page is there, and nothing is on it
                body[items] = []
            elif name == "loop" and following:
                body[following] = {"next": {"after": "1"}} if following == "paging" else \
                    self.url if "Link" in following or "Url" in following else "0.0"
            elif name == "other_origin" and following:
                body[following] = "http://127.0.0.2:%d/steal" % self.server.server_address[1]
            elif name == "duplicate" and items and body.get(items):
                body[items] = body[items] + body[items]
            return False
        return True

    def answer(self):
        raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        url = urllib.parse.urlparse(self.path)
        request = type("Request", (), {})()
        request.method, request.path, request.body, request.headers = self.command, url.path, raw, self.headers
        request.query = dict(urllib.parse.parse_qsl(url.query))
        self.url = "http://%s%s" % (self.headers.get("Host"), self.path)
        provider = "salesforce" if url.path.startswith("/services/data/") else url.path.split("/")[1]
        request.base = "http://%s/%s" % (self.headers.get("Host"), provider)
        if url.path == "/control":
            with LOCK:
                return self.send(200, json.dumps(control(json.loads(raw))).encode())
        store = STORES.get(provider)
        with LOCK:
            self.skew = store.skew if store else 0
            LOG.append("%s %s%s" % (self.command, self.path, " " + raw.decode() if provider == "hubspot" and raw else ""))
            mode, body, items, following = None, None, None, None
            try:
                if url.path in ("/oauth/token", "/services/oauth2/token"):
                    return self.send(200, json.dumps(token(request)).encode())
                key = request.query.pop("api_key", self.headers.get("X-Emulator-Key"))
                if store is None or (self.headers.get("Authorization", "").removeprefix("Bearer ") not in OAUTH["live"] and key != "k&y"):
                    raise Refused(401, {"error": "unauthorized"})
                if store.mode:
                    if store.mode["skip"] > 0:
                        store.mode["skip"] -= 1
                    else:
                        mode = store.mode["mode"]
                        store.mode["times"] -= 1
                        if store.mode["times"] <= 0:
                            store.mode = None
                body, items, following = globals()[provider](store, request)
            except Refused as r:
                return self.send(r.status, json.dumps(r.body).encode(), headers=r.headers)
        if mode and self.misbehave(store, mode, body, items, following):
            return
        headers = getattr(request, "extra", []) + ([("X-RateLimit-Remaining", "0"), ("X-RateLimit-Reset", "1")] if mode == "limit" else [])
        self.send(200, json.dumps(body).encode(), "application/scim+json" if provider == "scim" else "application/json", headers)

    def do_GET(self):
        try:
            self.answer()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    do_POST = do_GET


serve(Handler, PORT_FILE, PARENT)
