"""Random small histories, through the extension and through the oracle: do they agree?

usage: compare.py SEED ROUNDS [psql arguments]

The database has the extension, and no worker.  Each history is one transaction
that is rolled back.  On a difference the history is shrunk to the steps that
matter and printed with what was expected and what came; the status is then 1.
"""
import datetime
import json
import random
import subprocess
import sys

import oracle
from oracle import Certificate, Decision, Link, Obs

SOURCES = ["crm", "mkt", "phone", "tab"]
# what is done to the directory is said by "app"
CLASSES = {"crm": "office", "mkt": "office", "phone": "device", "tab": "crm", "app": "app"}
EPOCH = datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)
DAY = 86400 * 1000000
MAX_REPORTS = 3


# ---- the database ----

class Psql:
    def __init__(self, args):
        self.p = subprocess.Popen(["psql", "-X", "-q", "-A", "-t", *args], stdin=subprocess.PIPE,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.run("SET client_min_messages = error; SET TimeZone = 'UTC'; SET jit = off;")

    def send(self, sql):
        """Without waiting: faults show at the next run()."""
        self.p.stdin.write(sql + "\n")

    def run(self, sql):
        self.p.stdin.write("\\echo :start:\n" + sql + "\n\\echo :end:\n")
        self.p.stdin.flush()
        out = []
        for line in self.p.stdout:
            if line == ":end:\n":
                break
            if "ERROR:" in line or "FATAL:" in line or "server closed" in line:
                if "server closed" not in line:
                    out += [line, *iter(self.p.stdout.readline, ":end:\n")]
                raise RuntimeError("".join(out) + "\n" + sql)
            out = [] if line == ":start:\n" else out + [line]
        return "".join(out)


def quote(x):
    if x is None:
        return "NULL"
    if isinstance(x, list):
        return "ARRAY[" + ", ".join(map(quote, x)) + "]::text[]"
    if not isinstance(x, str):
        x = json.dumps(x)
    return "'" + x.replace("'", "''") + "'"


def record_id(key):
    return f"(SELECT id FROM contactsync.records WHERE source = {quote(key[0])} AND source_id = {quote(key[1])})"


def stamp(t):
    return None if t is None else (EPOCH + datetime.timedelta(microseconds=t)).isoformat()


def unstamp(s):
    if s is None:
        return None
    if s == "-infinity":
        return oracle.NEVER
    return (datetime.datetime.fromisoformat(s.replace("Z", "+00:00")) - EPOCH) // datetime.timedelta(microseconds=1)


READ = """SELECT json_build_object(
	'problems', CASE WHEN $1 THEN (SELECT json_agg(problem ORDER BY problem) FROM contactsync.verify()) END,
	'records', (SELECT json_agg(json_build_object('key', ARRAY[source, source_id], 'alive', alive, 'zombie', zombie, 'state', state::text,
			'uncovered', uncovered))
		FROM contactsync.records),
	'contacts', (SELECT json_agg(json_build_object(
			'members', (SELECT json_agg(ARRAY[r.source, r.source_id]) FROM contactsync.records r WHERE r.contact_id = c.id),
			'id', c.id, 'live', c.live, 'contact', d.contact::text, 'naming', ARRAY[d.source, d.source_id],
			'open', d.open_conflicts))
		FROM contactsync.contacts c LEFT JOIN contactsync.directory d ON d.id = c.id
		WHERE EXISTS (SELECT FROM contactsync.records r WHERE r.contact_id = c.id)),
	'conflicts', (SELECT json_agg(json_build_object(
			'members', (SELECT json_agg(ARRAY[r.source, r.source_id]) FROM contactsync.records r WHERE r.contact_id = k.contact_id),
			'id', k.id, 'field', k.field, 'element', k.element, 'reason', k.reason, 'candidates', k.candidates, 'seen', k.seen))
		FROM contactsync.conflicts k WHERE k.state = 'open'),
	'refused', (SELECT json_agg(json_build_object('reason', f.reason, 'score', f.score, 'members', (
			SELECT json_agg(m.members) FROM unnest(ARRAY[f.record_id, f.other_id]) WITH ORDINALITY u (id, i)
			JOIN contactsync.records x ON x.id = u.id CROSS JOIN LATERAL (SELECT json_agg(ARRAY[r.source, r.source_id]) AS members
				FROM contactsync.records r WHERE r.contact_id = x.contact_id) m)))
		FROM contactsync.refused_links f),
	'astray', (SELECT json_agg(a.id) FROM contactsync.contact_aliases a LEFT JOIN contactsync.records r ON r.id = a.record_id
		LEFT JOIN contactsync.contacts c ON c.id = r.contact_id WHERE c.id IS NULL),
	'clamped', (SELECT json_agg(json_build_array(r.source, r.source_id, o.version, o.seq, o.received_at, extract(epoch FROM o.tolerance)))
		FROM contactsync.observations o JOIN contactsync.records r ON r.id = o.record_id WHERE o.version > now() - interval '1 day'));"""


def people(members):
    return " ".join("/".join(m) for m in sorted(map(tuple, members)))


def received(got):
    """What the database holds, as {what: value}."""
    out = {}
    for r in got["records"] or []:
        who = "record " + "/".join(r["key"])
        out[who] = ("alive" if r["alive"] else "zombie" if r["zombie"] else "dead")
        if r["alive"]:
            out[who + " uncovered"] = sorted(oracle.SCALARS + oracle.LISTS if r["uncovered"] == ["*"] else r["uncovered"])
            state = json.loads(r["state"])
            for field, p in state.get("_provenance", {}).items():
                flags = p["flags"]
                if "tombstone" not in flags:
                    out[f"{who} {field}"] = (unstamp(p["changed_at"]), unstamp(p["as_of"]), "estimate" in flags)
    for c in got["contacts"] or []:
        who = "contact " + people(c["members"])
        out[who] = "live" if c["live"] else "dead"
        if c["live"]:
            value = json.loads(c["contact"])
            prov = value.pop("_provenance", {})
            out[who + " named by"] = "/".join(c["naming"])
            for f, v in value.items():
                out[f"{who} {f}"] = v
            for f, p in prov.items():
                out[f"{who} {f} from"] = (p["source"],) if "overridden" in p["flags"] else (p["source"], unstamp(p["changed_at"]), unstamp(p["as_of"]), "estimate" in p["flags"])
    for k in got["conflicts"] or []:
        who = f"conflict {people(k['members'])} {k['field']}" + (":" + k["element"] if k["element"] else "")
        out[who] = [(c["value"], c["source"], c.get("source_id"), unstamp(c["changed_at"])) for c in k["candidates"]]
    for f in got["refused"] or []:
        out["refused " + " and ".join(sorted(map(people, f["members"])))] = (f["reason"], oracle.score(f["score"]))
    for a in got["astray"] or []:
        out[f"id {a} leads nowhere"] = True
    return out


def shown(unit, key, value):
    """A candidate's value as conflicts.candidates shows it."""
    if value is None:
        return {}
    if unit in oracle.GROUPS:
        return value
    if unit in oracle.LISTS and unit != "metadata":
        elements = [value] if key else [value[k] for k in sorted(value)]
        return {unit: [e["value"] if unit == "tags" else e for e in elements]}
    return {"metadata": {key: value}} if unit == "metadata" else {unit: value}


def expected(records, contacts, refused):
    out = {}
    for r in records.values():
        who = "record " + "/".join(r.key)
        out[who] = ("alive" if r.alive else "zombie" if r.zombie else "dead")
        if r.alive:
            out[who + " uncovered"] = r.uncovered
            for (f, k), c in r.cells.items():
                if c.value is not None:
                    out[f"{who} {f}" + (":" + k if k else "")] = (c.changed, c.as_of, c.estimate)
    for c in contacts.values():
        who = "contact " + people(c.members)
        out[who] = "live" if c.live else "dead"
        if c.live:
            out[who + " named by"] = "/".join(c.naming)
            for f, v in c.value.items():
                out[f"{who} {f}"] = v
            for f, p in c.provenance.items():
                out[f"{who} {f} from"] = p
        for k in c.conflicts:
            name = f"conflict {people(k.members)} {k.unit}" + (":" + k.key if k.key else "")
            out[name] = [(shown(k.unit, k.key, x.value), *((x.record.key[0], x.record.key[1]) if hasattr(x, "record") else ("decision", None)), x.changed)
                         for x in k.candidates]
    for pair, what in refused.items():
        out["refused " + " and ".join(sorted(map(people, pair)))] = what
    return out


# ---- one history ----

class History:
    """Plays steps on both sides."""
    def __init__(self, psql, batch):
        self.psql, self.batch = psql, batch
        self.obs, self.certificates, self.decisions, self.policy, self.ids, self.links = [], [], [], {}, {}, []
        self.clamps = {}
        oracle.regroup({})

    def play(self, steps):
        """None, or the difference as {what: (expected, got)}."""
        self.psql.send(f"BEGIN; SET LOCAL contactsync.batch_size = {self.batch};")
        try:
            for step in steps:
                d = getattr(self, step[0])(*step[1:])
                if d:
                    return d
            self.process()
            return self.compare(True)
        except RuntimeError as e:
            return {"error": ("none", str(e))}
        finally:
            self.psql.run("ROLLBACK;")

    def event(self, e):
        o = Obs(**e)
        self.obs.append(o)
        args = [o.source, o.source_id, o.payload, stamp(o.version), o.kind, o.seq, None, o.coverage, stamp(o.created),
                {f: stamp(t) for f, t in o.changed.items()} if o.changed is not None else None]
        if o.sighted is None and not o.inferred and not o.clamp:
            self.psql.send("SELECT contactsync.ingest(" + ", ".join(map(quote, args)) + ");")
        else:
            # as ingest() puts it there
            args[7] = o.coverage and [c.replace("metadata.", "metadata:") for c in o.coverage]
            args[9] = args[9] and {f.replace("metadata.", "metadata:"): t for f, t in args[9].items()} or None
            receipt = [stamp(o.clamp[0]), f"{o.clamp[1]} us"] if o.clamp else [None, None]
            self.psql.send("INSERT INTO contactsync.inbox (source, source_id, payload, version, kind, seq, coverage, created, changed, sighted, inferred, received_at, tolerance) VALUES ("
                          + ", ".join(map(quote, args[:6] + args[7:] + [stamp(o.sighted), bool(o.inferred)])) + ", "
                          + ", ".join(quote(r) if r else "DEFAULT" for r in receipt) + ");")

    def process(self):
        self.psql.send("SELECT contactsync.process();")

    def declare(self, group, members):
        """A group of the policy's own."""
        oracle.regroup({group: members})
        self.policy[group] = {}
        self.psql.send(f"SELECT contactsync.set_policy({quote(group)}, 'last_write_wins', options => {quote({'members': members})});")

    def set_policy(self, field, rule, sources, options):
        target = oracle.GROUP_OF.get(field, field)
        self.policy[target] = dict(options, rule=rule, sources=sources)
        self.psql.send(f"SELECT contactsync.set_policy({', '.join(map(quote, [field, rule, sources, options]))});")

    def unset_policy(self, field):
        # with its rule the group itself would go
        if oracle.GROUP_OF.get(field) not in (None, *oracle.DEFAULT_GROUPS):
            return
        self.policy.pop(oracle.GROUP_OF.get(field, field), None)
        self.psql.send(f"SELECT contactsync.unset_policy({quote(field)});")

    def certify(self, source, start, seen):
        """A run that showed these records ends, and with it a certificate."""
        self.process()
        d = self.compare()
        if d:
            return d
        seen = [s for s in seen if (source, s) in self.records]
        start = max([start] + [c.start + 1 for c in self.certificates if c.source == source])
        c = Certificate(source, start, frozenset(seen))
        self.obs += oracle.absent(self.obs, self.certificates, c)
        self.certificates.append(c)
        # the run is long past the time at which its records became known
        self.psql.send("UPDATE contactsync.records SET first_known_at = '-infinity';")
        self.psql.send(f"""WITH run AS (INSERT INTO contactsync.runs (source, kind, state, stamp, certified, items, last_inbox_id)
				VALUES ({quote(source)}, 'full', 'succeeded', {quote(stamp(start))}, true, {max(len(seen), 1)}, 0) RETURNING id)
			INSERT INTO contactsync.source_items (source, source_id, run) SELECT {quote(source)}, s, run.id FROM run, unnest({quote(seen + ["somebody"])}) s
			ON CONFLICT ON CONSTRAINT source_items_pkey DO UPDATE SET run = excluded.run;""")
        self.process()
        return None

    def resolve(self, which, choice):
        self.process()
        d = self.compare()
        if d:
            return d
        got = self.got["conflicts"] or []
        mine = [k for c in self.contacts.values() for k in c.conflicts]
        if not mine:
            return None
        mine.sort(key=lambda k: (people(k.members), k.unit, k.key))
        k = mine[which % len(mine)]
        g = next(g for g in got if (people(g["members"]), g["field"], g["element"]) == (people(k.members), k.unit, k.key))
        # a list is decided by choice, or to be empty there
        n = choice % (len(k.candidates) + (1 if k.unit in oracle.LISTS and k.unit != "metadata" else 2))
        seen = {oracle.seen_digest(c) for c in k.candidates if hasattr(c, "record")}
        if n < len(k.candidates):
            chosen = k.candidates[n]
            value, source = chosen.value, chosen.record.key[0] if hasattr(chosen, "record") else None
            args = f"{g['id']}, {n + 1}, seen => {quote(g['seen'])}"
        else:
            source = None
            value = None if n > len(k.candidates) or (k.unit in oracle.LISTS and k.unit != "metadata") else {"name": {"last_name": "Ray"}, "job": {"company": "Zap", "title": "Z"},
                                                         "metadata": 9, "birthday": "2001-01-01", "work": {oracle.GROUPS["work"][0]: "w"} if "work" in oracle.GROUPS else None}.get(k.unit, "decided")
            args = f"{g['id']}, value => {quote(json.dumps(value))}"
        self.psql.send(f"SELECT contactsync.resolve_conflict({args});")
        at, made = json.loads(self.psql.run("SELECT json_build_array(max(decided_at), max(id)) FROM contactsync.decisions;"))
        # what settles more than a disagreement of sources is an override
        kind = "resolve" if g["reason"] == "candidates" else "override"
        if kind == "override":
            seen = self.resolver(k.members).seen(k.unit, k.key)
        self.decided(made, at, k.members, unit=k.unit, key=k.key, value=value, source=source, seen=seen, kind=kind)
        return self.compare()

    def resolver(self, members):
        return oracle.Resolver([self.records[k] for k in members], self.policy, CLASSES, self.decisions)

    def decided(self, made, at, records, **what):
        self.ids[made] = len(self.decisions)
        self.decisions.append(Decision(len(self.decisions), unstamp(at), set(records), **what))

    def somebody(self, which):
        """A contact, and how the database finds it; None if there is none."""
        live = sorted((c for c in self.contacts.values()), key=lambda c: people(c.members))
        if not live:
            return None, None
        c = live[which % len(live)]
        source, source_id = min(c.members)
        return c, f"(SELECT contact_id FROM contactsync.records WHERE source = {quote(source)} AND source_id = {quote(source_id)})"

    def decide(self, sql):
        """(id, time, how many) of the decision that a statement made; None if it made none."""
        n = int(self.psql.run("SELECT count(*) FROM contactsync.decisions;"))
        self.psql.run(sql)
        return json.loads(self.psql.run(f"""SELECT json_build_array(id, decided_at, target) FROM contactsync.decisions
			ORDER BY id OFFSET {n} LIMIT 1;""") or "null")

    def override(self, which, cell, value):
        self.process()
        d = self.compare()
        c, found = self.somebody(which)
        if d or c is None:
            return d
        unit, _, key = cell.partition("." if cell.startswith("metadata") else ":")
        seen = self.resolver(c.members).seen(unit, key)
        made = self.decide(f"SELECT contactsync.override_field({found}, {quote(cell)}, {quote(json.dumps(value))});")
        if made:
            if unit in oracle.LISTS and unit != "metadata" and value is not None:
                value = oracle.element(unit, value)[1] if key else oracle.elements(unit, value)
            self.decided(made[0], made[1], c.members, unit=unit, key=key, value=value, seen=seen, kind="override")
        return self.compare()

    def release(self, which, cell):
        self.process()
        d = self.compare()
        c, found = self.somebody(which)
        if d or c is None:
            return d
        unit, _, key = cell.partition("." if cell.startswith("metadata") else ":")
        wide = oracle.GROUPS.get(unit, []) if unit in oracle.GROUPS else []
        targets = {d.order for d in self.resolver(c.members).decisions if d.kind == "override" and
                   ((d.unit, d.key) == (unit, key) or d.unit in wide or (d.unit == unit and unit in oracle.LISTS and not key))}
        made = self.decide(f"SELECT contactsync.release_override({found}, {quote(cell)});")
        if bool(made) != bool(targets):
            return {"release " + cell: (targets, made)}
        if made:
            self.decided(made[0], made[1], c.members, kind="release", targets=frozenset(targets))
        return self.compare()

    def undo(self, which):
        self.process()
        d = self.compare()
        if d or not self.ids:
            return d
        decision, target = sorted(self.ids.items())[which % len(self.ids)]
        made = self.decide(f"SELECT contactsync.undo({decision});")
        if bool(made) != (target not in oracle.undone(self.decisions)):
            return {f"undo {target}": (target not in oracle.undone(self.decisions), made)}
        if made:
            self.decided(made[0], made[1], [], kind="undo", targets=frozenset([target]))
        return self.compare()

    def edit(self, which, columns):
        """An application edits a contact: what "app" says then, and what was decided along with it."""
        self.process()
        d = self.compare()
        live = sorted((c for c in self.contacts.values() if c.live), key=lambda c: people(c.members))
        if d or not live:
            return d
        source, source_id = min(live[which % len(live)].members)
        state = json.loads(self.psql.run("SELECT json_build_array(coalesce((SELECT max(id) FROM contactsync.observations), 0), "
                                         "coalesce((SELECT max(id) FROM contactsync.decisions), 0));"))
        self.psql.run(f"UPDATE contactsync.directory SET {columns} WHERE id = (SELECT contact_id FROM contactsync.records "
                      f"WHERE source = {quote(source)} AND source_id = {quote(source_id)});")
        key = "(SELECT json_agg(ARRAY[r.source, r.source_id]) FROM contactsync.records r WHERE r.id = ANY ({}))"
        said, made = json.loads(self.psql.run(f"""SELECT json_build_array(
			(SELECT json_agg(json_build_array(r.source_id, o.kind, o.version, o.seq, o.payload)) FROM contactsync.observations o
				JOIN contactsync.records r ON r.id = o.record_id WHERE o.id > {state[0]}),
			(SELECT json_agg(json_build_array(id, decided_at, kind, field, element, {key.format("records")}, {key.format("others")}) ORDER BY id)
				FROM contactsync.decisions WHERE id > {state[1]}));"""))
        for source_id, kind, version, seq, payload in said or []:
            self.obs.append(Obs("app", source_id, kind, unstamp(version), seq, None, None, payload))
        made = [(i, at, kind, unit, key, [tuple(r) for r in records], [tuple(r) for r in others or []])
                for i, at, kind, unit, key, records, others in made or []]
        for i, _, kind, _, _, records, others in made:
            if kind == "link":
                self.links.append(Link(len(self.links), kind, frozenset(records), frozenset(others)))
                self.ids[i] = ("link", self.links[-1].order)
        # the removals were decided once the rest was known
        self.records, self.contacts, _ = oracle.compute(self.obs, self.certificates, CLASSES, self.policy, self.decisions, self.links)
        for i, at, kind, unit, key, records, _ in made:
            if kind == "override":
                self.decided(i, at, records, unit=unit, key=key, seen=self.resolver(records).seen(unit, key), kind="override")
        return self.compare()

    def link(self, kind, which, other, pick):
        """Somebody decides who is who."""
        self.process()
        d = self.compare()
        if d:
            return d
        contacts = sorted((c for c in self.got["contacts"] or []), key=lambda c: people(c["members"]))
        if not contacts:
            return None
        a = contacts[which % len(contacts)]
        mine = sorted(map(tuple, a["members"]))
        kept = a["id"]
        if kind == "merge":
            b = contacts[other % len(contacts)]
            if a is b:
                return None
            made = self.decide(f"SELECT contactsync.merge_contacts({quote(a['id'])}, {quote(b['id'])});")
            sides = mine, sorted(map(tuple, b["members"]))
        elif kind == "split":
            listed = [k for i, k in enumerate(mine) if pick >> i & 1]
            if not listed or len(listed) == len(mine):
                return None
            made = self.decide(f"SELECT contactsync.split_contact({quote(a['id'])}, ARRAY[{', '.join(map(record_id, listed))}]);")
            sides = [k for k in mine if k not in listed], listed
        else:
            x, y = sorted(self.records)[which % len(self.records)], sorted(self.records)[other % len(self.records)]
            if x == y:
                return None
            made = self.decide(f"SELECT contactsync.{kind}_records({record_id(x)}, {record_id(y)});")
            sides, kept = ([x], [y]), None
        # what is decided already is not decided again
        if made:
            self.links.append(Link(len(self.links), kind, *map(frozenset, sides)))
            self.ids[made[0]] = ("link", self.links[-1].order)
        d = self.compare()
        if d or not kept:
            return d
        # the id stays with what it was decided to stay with
        now = next(sorted(map(tuple, c["members"])) for c in self.got["contacts"] if sides[0][0] in map(tuple, c["members"]))
        holds = next((sorted(map(tuple, c["members"])) for c in self.got["contacts"] if c["id"] == kept), None)
        return None if now == holds else {f"id kept in a {kind}": (now, holds)}

    def compare(self, verify=False):
        self.got = json.loads(self.psql.run(f"EXECUTE state ({verify});"))
        clamps = {(s, i, unstamp(v), q): (unstamp(at), int(float(tol) * 1000000)) for s, i, v, q, at, tol in self.got["clamped"] or []}
        obs = [o if o.clamp else o._replace(clamp=clamps.get((o.source, o.source_id, o.version, o.seq))) for o in self.obs]
        self.records, self.contacts, refused = oracle.compute(obs, self.certificates, CLASSES, self.policy, self.decisions, self.links)
        want, got = expected(self.records, self.contacts, refused), received(self.got)
        d = {}
        for k in sorted(want.keys() | got.keys()):
            a, b = want.get(k), got.get(k)
            if json.dumps(a, sort_keys=True, default=list) != json.dumps(b, sort_keys=True, default=list):
                d[k] = (a, b)
        # what was kept up to date is what a rebuild gives
        if self.got["problems"]:
            d["verify"] = (None, self.got["problems"])
        return d or None


# ---- random histories ----

def payload(rng, person, kind):
    pick = rng.choice
    p = {}
    null = None
    if rng.random() < .5:
        p["last_name"] = pick(["Lee"] * 12 + ["Roe", null])
    if rng.random() < .4:
        p["first_name"] = pick(["Ann"] * 5 + ["A."] * 4 + ["Bob", null])
    if rng.random() < .15:
        p["suffix"] = pick(["Jr", null])
    if rng.random() < .35:
        p["company"] = pick(["Acme", "Home", null])
    if rng.random() < .35:
        p["title"] = pick(["CTO", "CEO", null])
    if rng.random() < .2:
        p["department"] = pick(["IT", null])
    if rng.random() < .4:
        p["note"] = pick(["a", "b", "c", null])
    if rng.random() < .2:
        p["nickname"] = pick(["x", "y"])
    if rng.random() < .7:
        p["emails"] = mails(rng, person, kind)
    if rng.random() < .3:
        p["phones"] = phones(rng, kind)
    if rng.random() < .3:
        p["tags"] = tags(rng, kind)
    if rng.random() < .3:
        p["metadata"] = {k: pick([1, 2, "z"] + [null] * 1) for k in rng.sample(["k", "j"], rng.randint(1, 2))}
    return p


def edit(rng, kind, make):
    if kind == "patch" and rng.random() < .5:
        out = {}
        keys = make(3)
        n = rng.randint(0, len(keys))
        if keys[:n]:
            out["add"] = keys[:n]
        if keys[n:]:
            out["remove"] = keys[n:]
        return out or None
    return make(rng.randint(0, 2)) or None


def mails(rng, person, kind):
    def make(n):
        pool = [f"p{person}@x.org", f"p{person}@x.org", f"q{person}@x.org"] + (["all@x.org"] if rng.random() < .3 else [])
        out, marked = [], False
        for a in dict.fromkeys(rng.choice(pool) for _ in range(n + 1)):
            if rng.random() < .1:
                a = a.upper()
            e = {"address": a}
            if rng.random() < .2:
                e["type"] = rng.choice(["work", "home"])
            if rng.random() < .15:
                e["verified"] = rng.random() < .8
            if rng.random() < .2 and not marked:
                e["primary"] = marked = True
            out.append(e if len(e) > 1 else a)
        return out
    return edit(rng, kind, make)


def phones(rng, kind):
    def make(n):
        out = []
        for a in rng.sample(["+16502530000", "+16502530001", "555"], n):
            e = {"number": a}
            if rng.random() < .2:
                e["type"] = rng.choice(["work", "mobile"])
            if rng.random() < .2 and not any("primary" in x for x in out):
                e["primary"] = True
            out.append(e)
        return out
    return edit(rng, kind, make)


def tags(rng, kind):
    return edit(rng, kind, lambda n: rng.sample(["a", "B", "b c"], n))


COVERABLE = ["first_name", "last_name", "company", "title", "note", "emails", "phones", "tags", "metadata", "metadata.k", "metadata.j"]

DATABLE = ["first_name", "last_name", "company", "title", "note", "emails", "phones", "tags", "metadata"]


def event(rng, persons, used):
    source = rng.choice(SOURCES)
    person = rng.randrange(persons)
    who = (source, f"r{person}")
    kind = rng.choice(["snapshot"] * 8 + ["patch"] * 12 + ["delete"] * 3 + ["undelete"] * 3)
    e = {"source": source, "source_id": who[1], "kind": kind}
    if kind != "delete" and not (kind == "undelete" and rng.random() < .6):
        e["payload"] = payload(rng, person, kind)
        if kind == "snapshot" and rng.random() < .25:
            e["coverage"] = rng.sample(COVERABLE, rng.randint(1, 4))
            e["payload"] = {f: v for f, v in e["payload"].items() if f in e["coverage"] or f == "metadata"}
            if "metadata" in e["payload"] and "metadata" not in e["coverage"]:
                e["payload"]["metadata"] = {k: v for k, v in e["payload"]["metadata"].items() if "metadata." + k in e["coverage"]}
        if rng.random() < .25:
            e["created"] = rng.randrange(12) * DAY
        if rng.random() < .2:
            e["changed"] = {f: rng.randrange(-3, 12) * DAY for f in rng.sample(DATABLE, rng.randint(1, 5))}
    if rng.random() < .08:
        e["sighted"] = rng.randrange(12) * DAY + DAY // 2
    elif kind == "delete" and rng.random() < .3:
        e["inferred"] = True
    # one version is one observation: see the oracle
    while True:
        e["version"], e["seq"] = rng.randrange(10) * DAY, rng.randrange(3)
        if rng.random() < .02:
            e["version"] += 30000 * DAY
        if (who, e["version"], e["seq"]) not in used:
            break
    used.add((who, e["version"], e["seq"]))
    if e["version"] < 30000 * DAY and rng.random() < .15:
        e["clamp"] = receipt(rng)
    return ("event", e)


def receipt(rng):
    """When it was received, and how far ahead a clock might be then."""
    return (rng.randrange(10) * DAY + DAY // 4, rng.choice([300 * 1000000, 0, 2 * DAY]))


def policy(rng):
    field = rng.choice(["title", "name", "note", "note", "emails", "phones", "tags", "metadata", "metadata.k", "metadata.k",
                        "emails.primary", "phones.primary", "nickname", "job"])
    if rng.random() < .1:
        return ("unset_policy", field)
    rules = ["last_write_wins", "source_priority", "most_frequent", "verified_first", "oldest", "most_complete"]
    if field in ("emails", "phones", "tags", "metadata"):
        rules.append("union")
    if field not in ("emails", "phones", "tags") and not field.endswith(".primary"):
        rules += ["manual_review"] * 3
    rule = rng.choice(rules)
    sources = None
    if rule == "source_priority" or rng.random() < .2:
        sources = rng.sample(["crm", "mkt", "phone", "tab", "office", "device"], rng.randint(1, 3))
    options = {"only": True} if sources and rng.random() < .25 else {}
    if rng.random() < .35 and not field.endswith(".primary"):
        options["clear"] = clears(rng, field)
    return ("set_policy", field, rule, sources, options)


def clears(rng, field):
    """What it means that a source empties the field, for all or by source."""
    means = ["withdraw", "authoritative", "ignore"] + (["review"] * 2 if field not in ("emails", "phones", "tags") else [])
    if rng.random() < .5:
        return rng.choice(means)
    return {s: rng.choice(means) for s in rng.sample(["crm", "mkt", "phone", "tab", "office", "device"], rng.randint(1, 3))}


CELLS = {"note": ["a", "b", "over"], "nickname": ["x", "over"], "title": ["CTO", "Boss"], "first_name": ["Ann", "Over"],
         "job": [{"company": "Acme"}, {"company": "Over", "title": "T"}], "name": [{"last_name": "Over"}],
         "metadata.k": [1, "over"], "metadata.new": [7], "emails:p0@x.org": ["p0@x.org", {"address": "P0@x.org", "type": "home", "primary": True}],
         "emails:own@x.org": ["own@x.org"], "emails": [["p0@x.org"], ["own@x.org", {"address": "q0@x.org", "primary": True}]],
         "phones:+16502530000": ["+16502530000", {"number": "+16502530000", "type": "work"}], "tags:a": ["a", "A"], "tags": [["a", "own"]]}


EDITS = ["note = 'edited'", "note = NULL", "nickname = 'E', title = 'Ed'", "title = NULL", "last_name = 'Lee', first_name = 'Ann'",
         "emails = emails - 0", "emails = emails || '[\"own@x.org\"]'", "emails = '[]'", "tags = '{}'", "tags = tags || 'c'::text",
         "phones = phones - 0", "metadata = metadata - 'k'", "metadata = metadata || '{\"k\": \"edited\"}'", "company = 'Home', tags = '{a}'"]


def decision(rng):
    r = rng.random()
    if rng.random() < .15:
        return ("edit", rng.randrange(100), rng.choice(EDITS))
    if r < .15:
        return ("undo", rng.randrange(100))
    # few cells, so that they meet
    cell = rng.choice(["note", "title", "job"]) if rng.random() < .4 else rng.choice(list(CELLS))
    if r < .3:
        return ("release", rng.randrange(100), cell)
    return ("override", rng.randrange(100), cell, None if rng.random() < .3 else rng.choice(CELLS[cell]))


def random_history(rng):
    steps = [policy(rng) for _ in range(rng.randint(0, 6))]
    persons, used = rng.choice([1, 1, 1, 2, 3]), set()
    if rng.random() < .25:
        steps.insert(0, ("declare", "work", rng.sample(["note", "nickname", "department"], rng.randint(1, 3))))
    n = rng.choice([5, 8, 12, 16, 16, 30])
    more = [event(rng, persons, used) for _ in range(n)]
    # what comes again may come by another run
    again = rng.sample(more, rng.randint(0, len(more) // 3))
    again = [dict(e, clamp=receipt(rng)) if "clamp" in e and rng.random() < .7 else e for _, e in again]
    more += [("event", dict(e, sighted=rng.randrange(12) * DAY + DAY // 2) if rng.random() < .2 else e) for e in again]
    rng.shuffle(more)
    # manual review has most to go wrong
    if rng.random() < .4:
        field = rng.choice(["note", "note", "job", "metadata.k", "name"])
        only = rng.random() < .3
        steps.append(("set_policy", field, "manual_review", rng.sample(["crm", "mkt", "phone", "tab"], 3) if only else None,
                      {"only": True} if only else {}))
    decides = rng.random() < .5
    for s in more:
        # an event may be newer than the decisions before it
        if decides and s[0] == "event" and rng.random() < .1:
            s = ("event", dict(s[1], version=s[1]["version"] + 60000 * DAY))
        steps.append(s)
        if decides and rng.random() < .3:
            steps.append(decision(rng))
        r = rng.random()
        if r < .04:
            steps.append(("certify", rng.choice(SOURCES), rng.randrange(12) * DAY + DAY // 2,
                          [f"r{p}" for p in range(persons) if rng.random() < .7]))
        elif r < .15:
            steps.append(("process",))
        elif r < .19:
            steps.append(policy(rng))
        elif r < .27:
            steps.append(("resolve", rng.randrange(100), rng.randrange(100)))
        elif r < .30:
            steps.append(("link", rng.choice(["merge", "merge", "split", "split", "link", "unlink"]),
                          rng.randrange(100), rng.randrange(100), rng.randrange(1, 63)))
    return steps


def shrink(play, steps):
    """Drop what the difference does not need."""
    size = max(len(steps) // 2, 1)
    while True:
        i = 0
        while i < len(steps):
            fewer = steps[:i] + steps[i + size:]
            if fewer and play(fewer):
                steps = fewer
            else:
                i += size
        if size == 1:
            break
        size //= 2
    # and the members of payloads
    for i, s in enumerate(steps):
        if s[0] == "event" and s[1].get("payload"):
            for f in list(s[1]["payload"]):
                p = {k: v for k, v in s[1]["payload"].items() if k != f}
                fewer = steps[:i] + [("event", dict(steps[i][1], payload=p))] + steps[i + 1:]
                if play(fewer):
                    steps = fewer
    return steps


def readable(t):
    if t == oracle.NEVER:
        return "-infinity"
    return f"day {t / DAY:g}"


def show(steps):
    out = []
    for s in steps:
        if s[0] == "event":
            e = dict(s[1])
            at = f"{readable(e.pop('version'))}+{e.pop('seq')}"
            for k in ("created", "sighted"):
                if e.get(k) is not None:
                    e[k] = readable(e[k])
            if e.get("changed"):
                e["changed"] = {f: readable(t) for f, t in e["changed"].items()}
            if e.get("clamp"):
                e["clamp"] = [readable(t) for t in e["clamp"]]
            who = e.pop("source") + "/" + e.pop("source_id")
            out.append(f"{who} {e.pop('kind')} @ {at} {json.dumps(e)}")
        elif s[0] == "certify":
            out.append(f"certify {s[1]} @ {readable(s[2])} seen {s[3]}")
        else:
            out.append(" ".join(map(str, s)))
    return out


def main():
    seed, rounds = int(sys.argv[1]), int(sys.argv[2])
    psql = Psql(sys.argv[3:])
    # the oracle believes the first certificate that does not show a record
    psql.run("SELECT contactsync.add_connector('once', '{\"driver\": \"canonical\", \"misses\": 1}');")
    psql.run("".join(f"SELECT contactsync.add_source({quote(s)}, {quote('canonical' if s == 'app' else 'once')}, {quote({'class': c})});" for s, c in CLASSES.items()))
    psql.run("PREPARE state (boolean) AS " + READ)
    counts = [0, 0, 0]
    failures = 0
    for i in range(rounds):
        rng = random.Random(f"{seed} {i}")
        steps = random_history(rng)
        batch = rng.choice([1, 2, 5, 500])
        h = History(psql, batch)
        if not h.play(steps):
            counts[0] += len(h.contacts)
            counts[1] += sum(len(c.conflicts) for c in h.contacts.values())
            counts[2] += len(h.decisions)
            continue
        steps = shrink(lambda s: History(psql, batch).play(s), steps)
        print(f"history {i} of seed {seed}, in batches of {batch}, in short:")
        for line in show(steps):
            print("    " + line)
        print("differs in")
        for k, (a, b) in History(psql, batch).play(steps).items():
            print(f"    {k}\n        expected {pretty(a)}\n        got      {pretty(b)}")
        failures += 1
        if failures == MAX_REPORTS:
            return 1
    print(f"{rounds} histories, {counts[0]} contacts, {counts[1]} conflicts, {counts[2]} decisions")
    return failures > 0


def pretty(x):
    if isinstance(x, (tuple, list)) and not isinstance(x, str):
        return "(" + ", ".join(pretty(y) for y in x) + ")"
    if isinstance(x, (int, float)) and not isinstance(x, bool) and (abs(x) >= DAY or x == 0):
        return readable(x)
    return str(x) if not isinstance(x, dict) else json.dumps(x)


if __name__ == "__main__":
    sys.exit(main())
