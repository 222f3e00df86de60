"""What an emulated provider holds: accounts, each with the people of each provider in the order of their changes.

An account is named by the token that asks: "tok" is that of the account "", "tok.NAME" that of NAME. So that
many sources can be read at a time, each from a provider of its own.
"""
import time
from datetime import datetime, timezone

PROVIDERS = ("google", "graph", "hubspot", "salesforce", "scim")


def iso(ms, colon="Z"):
    t = datetime.fromtimestamp(ms / 1000, timezone.utc)
    return t.strftime("%Y-%m-%dT%H:%M:%S.") + "%03d" % (ms % 1000) + colon


def from_iso(text):
    return int(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1000)


class Refused(Exception):
    """An answer that is an error of the provider's."""

    def __init__(self, status, body, headers=()):
        self.status, self.body, self.headers = status, body, headers


class Store:
    """The people of one provider, and the order of their changes."""

    def __init__(self, name):
        self.name = name
        self.people, self.change, self.generation, self.page, self.skew, self.expired = {}, 0, 0, 1000, 0, 0
        self.mode = None
        self.results = []  # of Salesforce's queries: the ids, which stay what they were
        self.ordered = (None, [])
        self.folders, self.moved = {}, False  # Graph: those besides "contacts", and what each lies in; has anybody moved?

    def now(self):
        return int((time.time() + self.skew) * 1000)

    def touch(self, person, at=None):
        self.change += 1
        # two changes have two stamps, as far as milliseconds go
        person.update(change=self.change, modified=at or max(self.now(), person.get("modified", 0) + 1))

    def reset(self, count, at=None):
        self.__init__(self.name)
        for n in range(1, count + 1):
            self.create({"first": "First%d" % n, "last": self.name.title() + "son%d" % n, "email": "p%d@%s.example" % (n, self.name),
                         "phone": "+44 20 7946 %04d" % (100 * PROVIDERS.index(self.name) + n), "company": "Company%d" % (n % 7), "title": "Title%d" % (n % 5)},
                        (at or 1767225600000) + n * 1000)

    def create(self, fields, at=None):
        person = {"id": 1000 + len(self.people) + 1, "names": 0, "deleted": 0, "created": at or self.now(), **fields}
        self.people[person["id"]] = person
        self.touch(person, at)
        return person["id"]

    def edit(self, person, fields, at=None):
        for name, value in fields.items():
            property_of = {"title": "jobtitle", "phone": "phone", "company": "company"}.get(name)
            if property_of:
                person.setdefault("history", {}).setdefault(property_of, [[person["created"], person[name]]]).append([at or self.now(), value])
        person.update(fields)
        self.touch(person, at)
        person.update(deleted=0, purged=False)

    def delete(self, person, at=None, purged=False):
        self.touch(person, at)
        person.update(deleted=person["modified"], purged=purged)

    def move(self, person, folder):
        """To another folder, which changes nothing of the person."""
        self.moved = True
        self.touch(person, person["modified"])
        person.setdefault("left", {})[person.get("folder", "contacts")] = person["change"]
        person["folder"] = folder

    def remove_folder(self, folder):
        """With all that is in it."""
        gone = [folder]
        for f in gone:
            gone += [g for g, parent in self.folders.items() if parent == f]
        self.folders = {f: parent for f, parent in self.folders.items() if f not in gone}
        for p in self.people.values():
            if p.get("folder") in gone and not p["deleted"]:
                self.delete(p)

    def live(self):
        """Who is there, by id; a position is the id of the last one that was shown."""
        if self.ordered[0] != self.change:
            self.ordered = (self.change, [p for p in self.people.values() if not p["deleted"]])
        return self.ordered[1]

    def changed_since(self, change):
        return sorted((p for p in self.people.values() if p["change"] > change), key=lambda p: p["change"])


class Account:
    """One customer of all the providers."""

    def __init__(self, name):
        self.name = name
        self.stores = {provider: Store(provider) for provider in PROVIDERS}
        self.oauth = {"rotate": False, "expires_in": 3600, "error": None, "modulus": None, "refresh": "r0", "count": 0, "claims": None}
        self.live = set()  # access tokens

    def revoke(self):
        for token in self.live:
            OWNERS.pop(token, None)
        self.live = set()


ACCOUNTS = {}
OWNERS = {}  # of access tokens that live


def account(name):
    if name not in ACCOUNTS:
        ACCOUNTS[name] = Account(name)
    return ACCOUNTS[name]


def account_of(token, key):
    """Whose an access token or an API key is; None if it is nobody's."""
    if token in OWNERS:
        return OWNERS[token]
    for secret, known in ((token, "tok"), (key, "k&y")):
        if secret and (secret == known or secret.startswith(known + ".")):
            return account(secret[len(known) + 1:])
    return None
