"""Five APIs, as we read their documentation: what each provider answers to a request.

A function takes a store and a request and returns the body, the name of the member that holds the items,
and the name of the one that leads to the next page (None: the caller makes the position).
It proves agreement with our reading, no more.
"""
import bisect
import hashlib
import json
import re
import urllib.parse

from provider_store import Refused, from_iso, iso


def page_of(store, since, position, upto, size, among=None):
    """Of who is there, or of what changed after since: how many, those after a position, and the next position."""
    people = [p for p in store.changed_since(since) if p["change"] <= upto] if since else store.live()
    if among:
        people = [p for p in people if among(p)]
    key = "change" if since else "id"
    first = bisect.bisect_right(people, position, key=lambda p: p[key]) if position else 0
    page = people[first:first + size]
    return len(people), page, page[-1][key] if first + size < len(people) else None


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
    one = re.fullmatch(r"/google/v1/people/c(\d+)x*", request.path)
    if one:
        # by a name that it had before, too
        p = store.people.get(int(one[1]))
        if p is None or p["deleted"]:
            raise google_error(404, "NOT_FOUND", "Requested entity was not found.")
        return google_person(p), None, None
    # all else has to be the same from page to page, and from token to token
    same = hashlib.md5(repr(sorted((k, v) for k, v in q.items() if k not in ("pageToken", "syncToken", "pageSize"))).encode()).hexdigest()[:8]
    since, position, upto = 0, 0, store.change
    if "syncToken" in q:
        generation, since, digest = q["syncToken"].split("-")
        since = int(since)
        if int(generation) != store.generation:
            raise google_error(400, "FAILED_PRECONDITION",
                               "Sync token is expired. Clear local cache and retry call without the sync token.", "EXPIRED_SYNC_TOKEN")
        if digest != same:
            raise google_error(400, "INVALID_ARGUMENT", "Request parameters differ from those of the sync token.")
    if "pageToken" in q:
        position, upto = (int(x) for x in q["pageToken"].split("~")[0].split("."))
    total, people, following = page_of(store, since, position, upto, min(int(q.get("pageSize", 100)) or 100, 1000, store.page))
    body = {"totalItems": total}
    if people:
        body["connections"] = [google_person(p) for p in people]
    if following:
        body["nextPageToken"] = "%d.%d" % (following, upto)
    elif q.get("requestSyncToken") == "true":
        body["nextSyncToken"] = "%d-%d-%s" % (store.generation, upto, same)
    return body, "connections", "nextPageToken"


def graph_contact(p):
    return {"@odata.etag": 'W/"%d"' % p["change"], "id": "AAMk%d=" % p["id"], "createdDateTime": iso(p["created"]),
            "lastModifiedDateTime": iso(p["modified"]), "changeKey": str(p["change"]), "categories": [], "givenName": p["first"],
            "surname": p["last"], "middleName": None, "emailAddresses": [{"name": p["first"], "address": p["email"]}],
            "businessPhones": [p["phone"]], "homePhones": [], "mobilePhone": None, "companyName": p["company"], "jobTitle": p["title"]}


def graph_folders(store, folder, request):
    """The folders in a folder, two on a page."""
    inside = [f for f, parent in store.folders.items() if parent == folder]
    skip = int(request.query.get("$skip", 0))
    body = {"value": [{"id": f, "parentFolderId": folder, "displayName": f} for f in inside[skip:skip + 2]]}
    if skip + 2 < len(inside):
        body["@odata.nextLink"] = request.base + request.path.removeprefix("/graph") + "?$skip=%d" % (skip + 2)
    return body, None, "@odata.nextLink"


def graph(store, request):
    if 'IdType="ImmutableId"' not in request.headers.get("Prefer", ""):
        raise Refused(400, {"error": {"code": "ErrorEmulator", "message": "ids would change"}})
    one = re.fullmatch(r"/graph/me/contacts/AAMk(\d+)(?:=|%3D)", request.path)
    if one:
        p = store.people.get(int(one[1]))
        if p is None or p["deleted"]:
            raise Refused(404, {"error": {"code": "ErrorItemNotFound", "message": "The specified object was not found in the store."}})
        return graph_contact(p), None, None
    path = request.path.removeprefix("/graph/me/contactFolders")
    if path == "":
        return graph_folders(store, "contacts", request)
    match = re.fullmatch(r"/([^/]+)/(childFolders|contacts/delta|contacts/AAMk(\d+)(?:=|%3D))", path)
    folder = match and urllib.parse.unquote(match[1])
    if not match or (folder != "contacts" and folder not in store.folders):
        raise Refused(404, {"error": {"code": "ErrorItemNotFound", "message": "The specified object was not found in the store."}})
    if match[2] == "childFolders":
        return graph_folders(store, folder, request)
    if match[3]:
        p = store.people.get(int(match[3]))
        if p is None or p["deleted"] or p.get("folder", "contacts") != folder:
            raise Refused(404, {"error": {"code": "ErrorItemNotFound", "message": "The specified object was not found in the store."}})
        return graph_contact(p), None, None
    base = request.base + "/me/contactFolders/" + urllib.parse.quote(folder, safe="") + "/contacts/delta?"
    q, since, position, upto = request.query, 0, 0, store.change
    token = q.get("$skiptoken") or q.get("$deltatoken")
    if token:
        generation, since, position, at = (int(x) for x in token.split("~")[0].split("."))
        upto = at or upto
        if generation != store.generation:
            raise Refused(410, {"error": {"code": "SyncStateNotFound", "message": "The sync state generation is not found.",
                                          "innerError": {"date": "2026-01-01T00:00:00"}}}, [("Location", base + "$deltatoken=")])
    size = min(int(re.search(r"maxpagesize=(\d+)", request.headers["Prefer"])[1]), store.page)
    # who is in the folder, and who has left it since
    among = (lambda p: p.get("folder", "contacts") == folder or 0 < since < p.get("left", {}).get(folder, 0)) if store.moved or store.folders else None
    _, people, following = page_of(store, since, position, upto, size, among)
    items = []
    for p in people:
        items.append({"id": "AAMk%d=" % p["id"], "@removed": {"reason": "deleted"}} if p["deleted"] or p.get("folder", "contacts") != folder else graph_contact(p))
        if request.mode == "partial" and since and "@removed" not in items[-1]:
            items[-1] = {k: v for k, v in items[-1].items() if k in ("@odata.etag", "id", "changeKey", "jobTitle", "lastModifiedDateTime")}
    link = "$%s=%d.%d.%d.%d"
    body = {"value": items}
    if following:
        body["@odata.nextLink"] = base + link % ("skiptoken", store.generation, since, following, upto)
    else:
        body["@odata.deltaLink"] = base + link % ("deltatoken", store.generation, upto, 0, 0)
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
    one = re.fullmatch(r"/hubspot/crm/v3/objects/contacts/(\d+)", request.path)
    if one:
        p, q = store.people.get(int(one[1])), request.query
        if p is None or bool(p["deleted"]) != (q.get("archived") == "true"):
            raise Refused(404, {"status": "error", "message": "resource not found", "category": "OBJECT_NOT_FOUND"})
        history = [h for h in q.get("propertiesWithHistory", "").split(",") if h]
        return hubspot_contact(p, q.get("properties", "firstname,lastname,email").split(","), history), None, None
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
        # what a query found stays found: a locator leads into that
        number, position = (int(x) for x in locator.split("~")[0].split("-"))
        if number > len(store.results):
            raise refuse(400, "INVALID_QUERY_LOCATOR")
    else:
        if "FROM Contact" not in request.query["q"]:
            raise refuse(400, "MALFORMED_QUERY")
        since, position = 0, 0
        where = re.search(r"WHERE SystemModstamp >= (\S+)", request.query["q"])
        one = re.search(r"WHERE Id = '(\w+)'", request.query["q"])
        if where:
            since = from_iso(where[1])
        elif not one:
            store.expired = 0
        people = [p for p in store.people.values() if p["modified"] >= since and (kind == "queryAll" or not p["deleted"]) and not p.get("purged")]
        if since:
            people.sort(key=lambda p: (p["modified"], p["id"]))
        if one:
            people = [p for p in people if salesforce_id(p) == one[1]]
        store.results.append([p["id"] for p in people])
        number = len(store.results)
    ids, size = store.results[number - 1], min(2000, store.page)
    body = {"totalSize": len(ids), "done": position + size >= len(ids),
            "records": [salesforce_contact(store.people[i]) for i in ids[position:position + size]]}
    if not body["done"]:
        body["nextRecordsUrl"] = "/services/data/v60.0/query/%d-%d" % (number, position + size)
    return body, "records", "nextRecordsUrl"


def scim_user(p):
    return {"schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"], "id": "u-%d" % p["id"], "userName": p["email"], "active": True,
            "meta": {"resourceType": "User", "created": iso(p["created"]), "lastModified": iso(p["modified"])},
            "name": {"givenName": p["first"], "familyName": p["last"]}, "title": p["title"],
            "emails": [{"value": p["email"], "type": "work", "primary": True}], "phoneNumbers": [{"value": "tel:" + p["phone"].replace(" ", "-"), "type": "work"}],
            "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User": {"organization": p["company"]}}


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
    one = re.fullmatch(r"/scim/Users/u-(\d+)", request.path)
    if one and int(one[1]) in store.people and not store.people[int(one[1])]["deleted"]:
        return scim_user(store.people[int(one[1])]), None, None
    if request.path != "/scim/Users":
        raise Refused(404, {"schemas": ["urn:ietf:params:scim:api:messages:2.0:Error"], "status": "404"})
    start, count = max(int(request.query.get("startIndex", 1)), 1), int(request.query.get("count", 100))
    people = store.live()
    items = [scim_user(p) for p in people[start - 1:start - 1 + min(count, store.page)]]
    return {"schemas": ["urn:ietf:params:scim:api:messages:2.0:ListResponse"], "totalResults": len(people), "startIndex": start,
            "itemsPerPage": len(items), "Resources": items}, "Resources", None
