"""Random graphs of records, keys, merges and decisions: who is who, by the extension and by the oracle.

usage: identity.py SEED GRAPHS [psql arguments]

Some graphs at a time share a database and a transaction that is rolled back; the
events arrive in 6 orders, some twice, in batches of any size, with the decisions
in between.  After each order the clusters and the refused links are what the
oracle computes from the facts alone; after one of them verify() finds nothing.
On a difference, the facts of the graph are printed, and the status is 1.
"""
import json
import random
import sys

import oracle
from compare import CLASSES, DAY, Psql, quote, record_id, stamp
from oracle import Link, Obs

AT_A_TIME = 25
ORDERS = 6
SOURCES = ["crm", "mkt", "phone", "tab"]

READ = """SELECT json_build_object(
	'contacts', (SELECT json_agg(m) FROM (SELECT json_agg(ARRAY[source, source_id]) AS m FROM contactsync.records GROUP BY contact_id) x),
	'refused', (SELECT json_agg(json_build_array(a.source, a.source_id, b.source, b.source_id, f.reason, f.score))
		FROM contactsync.refused_links f JOIN contactsync.records a ON a.id = f.record_id JOIN contactsync.records b ON b.id = f.other_id),
	'astray', (SELECT count(*) FROM contactsync.contact_aliases WHERE contactsync._current_contact(id) IS NULL),
	'unnamed', (SELECT count(*) FROM contactsync.contacts c WHERE NOT EXISTS (SELECT FROM contactsync.contact_aliases a WHERE a.id = c.id)));"""


class Graph:
    def __init__(self, rng, n):
        """The facts.  Graphs have no record and no key in common."""
        self.n = n
        people = [(rng.choice(["Ann", "A.", "Bob", "Cleo", "", "Dan"]), rng.choice(["Lee", "Lee", "Roe", "Kay", ""])) for _ in range(rng.randint(1, 5))]
        self.keys = sorted({(s, f"g{n}r{i}") for s in SOURCES for i in range(rng.randint(0, 3))}) or [("crm", f"g{n}r0")]
        mails = [f"p{i}@g{n}.org" for i in range(4)] + [f"info@g{n}.org", f"noreply@g{n}.org"]
        phones = [f"+1650253{n % 1000:03d}{i}" for i in range(3)]
        self.obs = [Obs(s, i, "snapshot", 0, payload={}) for s, i in self.keys]
        for t in range(rng.randint(len(self.keys), 3 * len(self.keys))):
            s, i = rng.choice(self.keys)
            r = rng.random()
            if r < .08:
                self.obs.append(Obs(s, i, "delete", (t + 1) * DAY))
            elif r < .12:
                self.obs.append(Obs(s, i, "undelete", (t + 1) * DAY))
            elif r < .18:
                into = rng.choice([k for k in self.keys if k[0] == s])[1]
                if into != i:
                    self.obs.append(Obs(s, i, "delete", (t + 1) * DAY, into=into))
            else:
                first, last = rng.choice(people)
                p = {"first_name": first or None, "last_name": last or None}
                if rng.random() < .8:
                    p["emails"] = rng.sample(mails, rng.randint(1, 2))
                if rng.random() < .3:
                    p["phones"] = [{"number": rng.choice(phones), "type": rng.choice(["mobile", "work"])}]
                if rng.random() < .3:
                    p["metadata"] = {"no": rng.choice([f"G{n}-1", f"g{n}-2", "n/a"])}
                created = t * DAY + DAY // 2 if rng.random() < .1 else None
                self.obs.append(Obs(s, i, rng.choice(["snapshot", "patch"]), (t + 1) * DAY, payload=p, created=created))
        self.links = []
        for _ in range(rng.choice([0, 0, 1, 2, 3])):
            some = rng.sample(self.keys, min(len(self.keys), rng.randint(2, 4)))
            if len(some) < 2:
                continue
            cut = rng.randint(1, len(some) - 1)
            kind = rng.choice(["merge", "split", "link", "unlink"])
            if kind in ("link", "unlink"):
                some, cut = some[:2], 1
            self.links.append((kind, some[:cut], some[cut:]))

    def expected(self):
        links = [Link(i, kind, frozenset(a), frozenset(b)) for i, (kind, a, b) in enumerate(self.links)]
        records, contacts, refused = oracle.compute(self.obs, [], CLASSES, {}, [], links)
        return {tuple(sorted(m)) for m in contacts}, {frozenset(tuple(sorted(m)) for m in pair): what for pair, what in refused.items()}

    def show(self):
        return [str({k: v for k, v in o._asdict().items() if v}) for o in self.obs] + [str(x) for x in self.links]


def event(o):
    return {"source_id": o.source_id, "payload": {"into": o.into} if o.into else o.payload, "version": stamp(o.version),
            "kind": "merge" if o.into else o.kind, "created": stamp(o.created)}


def ids(keys):
    return "ARRAY[" + ", ".join(map(record_id, keys)) + "]"


def arrive(psql, rng, graphs):
    """One order of arrival."""
    first = [o for g in graphs for o in g.obs[:len(g.keys)]]
    rest = [o for g in graphs for o in g.obs[len(g.keys):]]
    rest += rng.sample(rest, len(rest) // 4)
    rng.shuffle(rest)
    # decisions name records: those have to be known; and they are made one after the other
    batches = [first] if rng.random() < .5 else [[o] for o in first]
    if len(batches) > 1:
        rng.shuffle(batches)
        batches = [sum(batches, [])]
    known = len(batches)
    while rest:
        n = rng.choice([2, 20, 50, 100, 300])
        batches.append(rest[:n])
        rest = rest[n:]
    decisions = [[g.n, x] for g in graphs for x in g.links]
    when = sorted(rng.randint(known, len(batches)) for _ in decisions)
    for i, batch in enumerate(batches + [[]]):
        while when and when[0] == i:
            when.pop(0)
            kind, a, b = decisions.pop(0)[1]
            psql.send(f"SELECT contactsync._apply_links(ARRAY[contactsync._decide({quote(kind)}, {ids(a)}, others => {ids(b)})], 1);")
        for source in SOURCES:
            events = [event(o) for o in batch if o.source == source]
            if events:
                psql.send(f"SELECT cardinality(contactsync.ingest_batch({quote(source)}, {quote(json.dumps(events))}));")
        if batch:
            psql.send("SELECT contactsync.process();")


def received(psql, graphs):
    got = json.loads(psql.run(READ))
    contacts = [tuple(sorted(map(tuple, m))) for m in got["contacts"]]
    of = {k: m for m in contacts for k in m}
    refused = {}
    for s, i, t, j, reason, score in got["refused"] or []:
        refused[frozenset((of[(s, i)], of[(t, j)]))] = (reason, oracle.score(score))
    out = {}
    for g in graphs:
        mine = set(g.keys)
        out[g.n] = {m for m in contacts if m[0] in mine}, {p: w for p, w in refused.items() if next(iter(p))[0] in mine}
    return out, got["astray"], got["unnamed"]


def differences(want, got):
    a, b = want
    c, d = got
    return [f"{'expected' if m in a else 'got'} contact {' '.join('/'.join(k) for k in m)}" for m in sorted(a ^ c)] + \
        [f"refused {' and '.join(sorted(' '.join('/'.join(k) for k in m) for m in p))}: expected {b.get(p)}, got {d.get(p)}"
         for p in b.keys() | d.keys() if b.get(p) != d.get(p)]


def main():
    seed, total = int(sys.argv[1]), int(sys.argv[2])
    psql = Psql(sys.argv[3:])
    psql.run("".join(f"SELECT contactsync.add_source({quote(s)}, 'canonical', {quote({'class': c})});" for s, c in CLASSES.items()))
    counts = [0, 0, 0]
    done = 0
    while done < total:
        rng = random.Random(f"{seed} {done}")
        names, size = rng.choice([(8, 100), (2, 100), (2, 100), (3, 5)])
        oracle.GENERIC_NAMES, oracle.MAX_RECORDS, oracle.EXCLUSIVE = names, size, ["no"]
        graphs = [Graph(rng, n) for n in range(done, min(done + AT_A_TIME, total))]
        wanted = {g.n: g.expected() for g in graphs}
        for order in range(ORDERS):
            psql.send("BEGIN; SELECT contactsync.set_identity_policy(" +
                      quote({"generic_names": names, "max_records": size, "metadata.no": "exclusive"}) + ");")
            psql.send(f"SET LOCAL contactsync.batch_size = {rng.choice([4, 25, 500])};")
            try:
                arrive(psql, rng, graphs)
                got, _, unnamed = received(psql, graphs)
                faults = {g: differences(wanted[g.n], got[g.n]) for g in graphs}
                problems = psql.run("SELECT problem FROM contactsync.verify();") if order == 0 else ""
            finally:
                psql.run("ROLLBACK;")
            for g, d in faults.items():
                if d:
                    print(f"graph {g.n} of seed {seed}, order {order}, {names} names, {size} records:", *g.show(), "differs in", *d, sep="\n    ")
            if problems or unnamed or any(faults.values()):
                print(problems, f"{unnamed} contacts without an id" if unnamed else "")
                return 1
        counts[0] += sum(len(w[0]) for w in wanted.values())
        counts[1] += sum(len(w[1]) for w in wanted.values())
        counts[2] += sum(len(g.links) for g in graphs)
        done += len(graphs)
        # what was rolled back is in the way of the next
        psql.run("VACUUM;")
    print(f"{done} graphs in {ORDERS} orders, {counts[0]} contacts, {counts[1]} refused links, {counts[2]} decisions")
    return 0


if __name__ == "__main__":
    sys.exit(main())
