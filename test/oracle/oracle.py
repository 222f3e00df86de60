"""A second opinion on what contactsync computes.

State is what was said and what was decided; all else is computed.  Here it is
computed again, plainly and from nothing, by rules taken from the design and not
from the extension's code: sets of facts in, records, contacts and conflicts out.
No database, no clock, no randomness.  Times are integers (microseconds).

Not covered: ties between different observations at one version (the extension
orders them by a digest that nobody else can know), addresses, urls.
"""
from collections import namedtuple

NEVER = float("-inf")

SCALARS = ["first_name", "middle_name", "last_name", "prefix", "suffix", "nickname",
           "company", "department", "title", "birthday", "note", "photo"]
LISTS = ["emails", "phones", "addresses", "urls", "tags", "metadata"]
GROUPS = {"name": ["first_name", "middle_name", "last_name", "prefix", "suffix"],
          "job": ["company", "department", "title"]}
LEAD = {"name": "last_name", "job": "company"}
GROUP_OF = {m: g for g, ms in GROUPS.items() for m in ms}
DEFAULT_GROUPS, DEFAULT_LEAD = dict(GROUPS), dict(LEAD)
WITH_PRIMARY = ("emails", "phones")
SPELLING = {"emails": "address", "phones": "number"}

def regroup(declared):
    """Groups of a policy's own, {name: members, the leading one first}; what is left of the others stays one."""
    taken = {m for ms in declared.values() for m in ms}
    left = {g: [m for m in ms if m not in taken] for g, ms in DEFAULT_GROUPS.items() if g not in declared}
    GROUPS.clear()
    GROUPS.update({g: ms for g, ms in {**left, **declared}.items() if ms})
    LEAD.clear()
    LEAD.update({g: DEFAULT_LEAD[g] if g not in declared and DEFAULT_LEAD[g] in ms else ms[0] for g, ms in GROUPS.items()})
    GROUP_OF.clear()
    GROUP_OF.update({m: g for g, ms in GROUPS.items() for m in ms})


# kind: snapshot, patch, delete, undelete.  coverage: None = everything.
# clamp: (received_at, tolerance), or None where the stamp cannot lie ahead.
# into: of a delete, the record that the source merged this one into.
# changed: since when fields have their values, as the source knows it: {field or metadata.<key>: time}.
Obs = namedtuple("Obs", "source source_id kind version seq created coverage payload inferred sighted clamp into changed",
                 defaults=(0, None, None, None, False, None, None, None, None))
# A source was read completely, from "start"; seen: the ids that it showed.
Certificate = namedtuple("Certificate", "source start seen")
# Its place among all, the records it is about, the cell (unit: a field, a group, or one member of it),
# the value (None = none), whose candidate it was (None = a new value), and the candidates that it knew.
# kind: resolve, override; release and undo: of the decisions whose places are in targets, ("link", place) for a Link's.
Decision = namedtuple("Decision", "order at records unit key value source seen kind targets",
                      defaults=("", "", None, None, frozenset(), "resolve", frozenset()))
# On who is who: kind is merge, split (of contacts), link or unlink; records and others: the two sides.
Link = namedtuple("Link", "order kind records others")
# before: what a cell that is empty now held last, as a cell of its own; None if it never held anything


def score(x):
    """How much speaks for one person, up to how it is stored; the shift keeps what the weights give off the edge."""
    return round(x + 0.0000137, 4)


Cell = namedtuple("Cell", "value changed as_of estimate before", defaults=(None,))


# ---- what an observation says ----

def effective(o):
    if o.clamp and o.version > o.clamp[0] + o.clamp[1]:
        return o.clamp[0]
    return o.version


def position(o):
    return (effective(o), o.version, o.seq)


def element(field, raw):
    """(key, attributes) of an element; the attributes are what is compared."""
    if field == "tags":
        return raw.lower(), {"value": raw}
    e = dict(raw) if isinstance(raw, dict) else {SPELLING[field]: raw}
    key = e[SPELLING[field]].lower()
    if field == "emails":
        local, _, domain = e["address"].rpartition("@")
        e["address"] = local + "@" + domain.lower()
    if e.get("extension"):
        key += ";ext=" + e["extension"]
    if not e.get("primary"):
        e.pop("primary", None)
    return key, e


def elements(field, raw):
    return dict(element(field, r) for r in raw or [])


def bare(o):
    # DESIGN is silent on an empty payload of an undelete; chosen: it is none
    return o.kind == "undelete" and not o.payload and not o.coverage


def says(o):
    """What an observation speaks about: (whole, single).  whole: fields of which it tells
    everything, with their value; single: elements that it tells of, None = not there."""
    whole, single = {}, {}
    if o.payload is None or bare(o):
        return whole, single
    for f, v in o.payload.items():
        if v in ("", [], {}):
            v = None
        if f == "metadata":
            if v is None or o.kind != "patch":
                whole[f] = {k: x for k, x in (v or {}).items() if x is not None}
            else:
                single.update({(f, k): x for k, x in v.items()})
        elif f in LISTS:
            if isinstance(v, dict):
                single.update({(f, element(f, r)[0]): None for r in v.get("remove", [])})
                single.update({(f, k): e for k, e in elements(f, v.get("add")).items()})
            else:
                whole[f] = elements(f, v)
        else:
            whole[f] = v
    if o.kind != "patch":
        if o.coverage is None:
            covered = SCALARS + LISTS
        else:
            covered = [c for c in o.coverage if not c.startswith("metadata.")]
            for c in o.coverage:
                # a key adds nothing to all of them
                if c.startswith("metadata.") and "metadata" not in covered:
                    k = c[len("metadata."):]
                    single[("metadata", k)] = whole.get("metadata", {}).get(k)
        whole = {f: whole.get(f, {} if f in LISTS else None) for f in covered}
    return whole, single


# ---- one record ----

class Record:
    def __init__(self, key):
        self.key = key                      # (source, source_id)
        self.alive = self.zombie = False
        self.span = []                      # the observations that its state is made of
        self.created = NEVER                # least creation time given
        self.version = NEVER                # of the newest observation of its state
        self.last = NEVER                   # of the newest observation of all
        self.cells = {}                     # (field, element key or "") -> Cell
        self.covered = {}                   # lists that were ever told of as a whole -> Cell of its first time
        self.uncovered = []                 # what the newest snapshot does not speak about, but others did
        self.names = set()                  # every name it ever had
        self.keys = {}                      # key -> version at which it was first shown
        self.into = None                    # the record that its source merged it into
        self.mobiles = set()                # those of its keys that it called a mobile number


def life(obs, seen, gone=NEVER):
    """(alive, zombie, span) of a record with these observations, in version order; seen and gone are the starts of
    the newest runs that showed it, and showed it as deleted."""
    deletes = [i for i, o in enumerate(obs) if o.kind == "delete"]
    if not deletes:
        return True, False, obs
    cut = deletes[-1]
    stamp = effective(obs[cut])
    after = [o for o in obs[cut + 1:] if position(o) > position(obs[cut])]
    # DESIGN is silent on a creation time that comes with an observation from before the delete (chosen: it
    # is proof too) and on sightings in a run without certificate (the same). A tombstone proves the record gone
    # at the start of the run that showed it, however old its stamp is.
    sighted = seen > max(stamp, gone)
    if not any(o.kind == "undelete" for o in after) and not any((o.created or NEVER) > stamp for o in obs if o.kind != "delete") \
            and not sighted:
        return False, bool(after), []
    # An undelete without payload restores; so does (DESIGN is silent) a sighting of a record that says nothing new
    if any(bare(o) for o in after) or (sighted and not any(speaks(o) for o in after)):
        # restores what was there, and what was held meanwhile counts from now on
        return True, False, before(obs[:cut]) + after
    return True, False, after


def reuse(obs, seen, gone):
    """The delete after which the source gave the id to a new record: what was asserted before it proves nothing of
    that one.  DESIGN is silent on evidence; chosen: only a creation shows that, other proofs of life are of the same."""
    cut = None
    deletes = [i for i, o in enumerate(obs) if o.kind == "delete"]
    for n, i in enumerate(deletes):
        last = n + 1 == len(deletes)
        end = len(obs) if last else deletes[n + 1]
        after = [o for o in obs[i + 1:end] if position(o) > position(obs[i])]
        restored = any(bare(o) for o in after) or (last and seen > max(effective(obs[i]), gone)
                                                   and not any(speaks(o) for o in after))
        created = any((o.created or NEVER) > effective(obs[i]) for o in obs[:end] if o.kind != "delete")
        if created and not restored:
            cut = obs[i]
    return cut


def speaks(o):
    whole, single = says(o)
    return bool(whole or single)


def before(obs):
    """What an undelete restores: the last state that the record had alive.  DESIGN is silent on sightings between
    two deletes; chosen: only the newest delete is answered by a sighting."""
    alive, _, span = life(obs, NEVER)
    if alive or not obs:
        return span
    cut = max(i for i, o in enumerate(obs) if o.kind == "delete")
    return before(obs[:cut]) + obs[cut + 1:]


def fold(key, observations, seen=NEVER):
    r = Record(key)
    seen = max([seen] + [o.sighted for o in observations if o.sighted is not None and o.kind != "delete"])
    r.seen = seen
    gone = max([NEVER] + [o.sighted for o in observations if o.sighted is not None and o.kind == "delete"])
    # a delete wins a tie: it is the later of the two
    obs = sorted(set_of(observations), key=lambda o: (position(o), o.kind == "delete"))
    r.last = max(effective(o) for o in obs)
    said = obs
    # an inferred delete loses to a later sighting, as if it had never been; DESIGN is silent on what that is:
    # a run that showed the record, or any newer snapshot
    shown = max((position(o) for o in obs if o.kind == "snapshot"), default=None)
    obs = [o for o in obs if not (o.kind == "delete" and o.inferred and
                                  (seen > effective(o) or (shown is not None and shown > position(o))))]
    r.alive, r.zombie, r.span = life(obs, seen, gone)
    merged = None
    for o in obs:
        if o.kind == "delete" and o.into:
            merged = o
        elif merged and o.kind != "delete" and ((o.created or NEVER) > effective(merged) or
                                                o.kind == "undelete" and position(o) > position(merged)):
            merged = None
    if merged and not r.alive:
        r.into = merged.into
    cut = reuse(obs, seen, gone)
    if cut is not None:
        # somebody else, if the names say so
        old, new = Record(key), Record(key)
        evidence(old, [o for o in said if position(o) <= position(cut)])
        evidence(new, [o for o in said if position(o) > position(cut)])
        if names_agree(old, new):
            cut = None
    evidence(r, [o for o in said if cut is None or position(o) > position(cut)])
    r.created = min((o.created for o in r.span if o.created is not None), default=NEVER)
    r.version = max((effective(o) for o in r.span), default=NEVER)
    r.cells = cells(r.span)
    r.covered = covered(r.span)
    r.uncovered = uncovered(r.span)
    # when asked: whether it lived, and of what, after each of its observations
    r.past = lambda: [(effective(o), life(obs[:n + 1], *((seen, gone) if n + 1 == len(obs) else (NEVER, NEVER))))
                      for n, o in enumerate(obs)]
    return r


def set_of(observations):
    """Duplicates, which differ in their receipt alone (when, and in which run), are one: the first received."""
    out = {}
    for o in observations:
        k = repr((o._replace(clamp=None, sighted=None, payload=repr(o.payload and sorted(o.payload.items())),
                             changed=repr(sorted((o.changed or {}).items())))))
        if k not in out or (o.clamp and o.clamp < out[k].clamp):
            out[k] = o
    return list(out.values())


def cells(span):
    """Every cell with its value and stamps."""
    said = [(o, *says(o)) for o in span]
    universe = {c for _, _, single in said for c in single}
    for _, whole, _ in said:
        for f, v in whole.items():
            universe |= {(f, k) for k in v} if f in LISTS else {(f, "")}
    cells = {}
    for f, k in universe:
        points, runs, known = [], [], []
        for o, whole, single in said:
            if (f, k) in single:
                v = single[(f, k)]
            elif f in whole:
                v = whole[f].get(k) if f in LISTS else whole[f]
            else:
                # a list has one primary: when another element is named, this one stops to be it
                if runs and isinstance(runs[-1][1], dict) and runs[-1][1].get("primary") and names_primary(f, whole, single):
                    runs[-1] = (runs[-1][0], {a: x for a, x in runs[-1][1].items() if a != "primary"}, runs[-1][2])
                continue
            points.append((effective(o), v, o.kind))
            if not runs or runs[-1][1] != v:
                runs.append((effective(o), v, o.kind))
                known.append(None)
            if known[-1] is None and (t := dated(o, f, k)) is not None:
                known[-1] = min(t, runs[-1][0])
        # only the first sight of a cell can be unwitnessed, and not if a patch brought it; nor if the source knows
        if runs[0][2] != "patch" and known[0] is not None:
            runs[0] = (known[0], runs[0][1], "patch")
        at, v, kind = runs[-1]
        before = None
        if v is None and len(runs) > 1:
            b, value, how = runs[-2]
            if isinstance(value, dict):
                value = {a: x for a, x in value.items() if a != "primary"}
            # it was last seen at the last of its points before the clear
            last = len(points) - next(i for i, p in enumerate(reversed(points)) if p[1] is not None) - 1
            before = Cell(value, b, points[last][0], len(runs) == 2 and how != "patch")
        cells[(f, k)] = Cell(v, at, points[-1][0], len(runs) == 1 and kind != "patch", before)
    return cells


def dated(o, f, k):
    """Since when the source says that a cell is as it is."""
    return (o.changed or {}).get(f"{f}.{k}", (o.changed or {}).get(f))


def uncovered(span):
    """What snapshots spoke about once, and the newest does not."""
    masks = [{c.replace("metadata.", "metadata:") for c in (SCALARS + LISTS if o.coverage is None else o.coverage)}
             for o in span if o.kind != "patch" and (speaks(o) or o.kind == "snapshot")]
    if not masks:
        return []
    ever, newest = set.union(*masks), masks[-1]
    return sorted(c for c in ever - newest if ":" not in c or not {"metadata"} & (ever | newest))


def covered(span):
    out = {}
    for o in span:
        for f in says(o)[0]:
            if f in LISTS:
                first = out.get(f) or Cell(None, effective(o), None, o.kind != "patch")
                if first.estimate and (t := dated(o, f, "")) is not None:
                    first = first._replace(changed=min(t, first.changed), estimate=False)
                out[f] = first._replace(as_of=effective(o))
    return out


def names_primary(field, whole, single):
    said = list(whole.get(field, {}).values()) if field in LISTS else []
    said += [v for (f, _), v in single.items() if f == field]
    return field in WITH_PRIMARY and any(v and v.get("primary") for v in said)


# ---- identity ----

def name_key(s):
    return " ".join((s or "").lower().split())


def evidence(r, obs):
    """Names and mail addresses that the record ever asserted, deleted or not."""
    state = {}
    for o in obs:
        whole, single = says(o)
        if "first_name" in whole or "last_name" in whole:
            state.update({m: whole[m] for m in ("first_name", "last_name") if m in whole})
            pair = (name_key(state.get("first_name")), name_key(state.get("last_name")))
            # DESIGN is silent on a first name alone; chosen: no name, it neither agrees nor disagrees
            if pair[1]:
                r.names.add(pair)
        for k, _ in said_elements("emails", whole, single):
            show(r, "email:" + k, o)
        for k, e in said_elements("phones", whole, single):
            # only what is a number in E.164, of a line of its own
            if k.startswith("+") and ";" not in k:
                show(r, "tel:" + k, o)
                if e.get("type") == "mobile":
                    r.mobiles.add("tel:" + k)
        for k in EXCLUSIVE:
            v = whole.get("metadata", {}).get(k, single.get(("metadata", k)))
            if isinstance(v, str) and v.strip() or isinstance(v, int):
                show(r, f"id:{k}:{str(v).lower()}", o)


def said_elements(field, whole, single):
    return [*whole.get(field, {}).items(), *((k, e) for (f, k), e in single.items() if f == field and e is not None)]


def show(r, key, o):
    r.keys[key] = min(r.keys.get(key, effective(o)), effective(o))


def initial_of(a, b):
    return len(a.rstrip(".")) == 1 and b[:1] == a[0]


def pair_agrees(a, b):
    first_a, last_a = a
    first_b, last_b = b
    if last_a != last_b:
        return False
    return first_a == first_b or not first_a or not first_b or initial_of(first_a, first_b) or initial_of(first_b, first_a)


def names_agree(a, b):
    return not a.names or not b.names or any(pair_agrees(x, y) for x in a.names for y in b.names)


GENERIC_NAMES, MAX_RECORDS = 8, 100
EXCLUSIVE = []                              # metadata keys that are ids
ROLES, NOBODY = {"all", "info"}, {"noreply"}
WEIGHT = {1: .5, 2: .8, 3: .95}


def people(names):
    """How many people these names are of, at least."""
    n = 0
    for last in {l for _, l in names}:
        firsts = {f.rstrip(".") for f, l in names if l == last and f}
        full = {f for f in firsts if len(f) > 1}
        n += max(len(full) + len({f for f in firsts - full if not any(x.startswith(f) for x in full)}), 1)
    return n


def generic(key, holders):
    kind, _, value = key.partition(":")
    return (len(holders) > MAX_RECORDS or people(set().union(*(r.names for r in holders))) > GENERIC_NAMES
            or kind == "email" and value.partition("@")[0] in NOBODY or kind == "id" and value.endswith(":n/a"))


def ids_differ(a, b):
    """Both have ids of a kind, and none of it in common."""
    kinds = {k.split(":")[1] for k in a} & {k.split(":")[1] for k in b}
    return any(not {k for k in a & b if k.split(":")[1] == kind} for kind in kinds)


def cluster(records, links=()):
    """Sets of records that are one person, and the pairs of sets of which evidence could not decide:
    {(set, set): (reason, score)}."""
    by_key = {r.key: r for r in records}
    home = {r.key: {r.key} for r in records}
    apart = set()

    def put_together(a, b):
        joined = home[a] | home[b]
        for k in joined:
            home[k] = joined

    def kept_apart(a, b):
        return any((x, y) in apart for x in home[a] for y in home[b])

    # decisions, the latest first: each as far as the later ones allow
    for d in sorted(links, key=lambda d: -d.order):
        ours, others = sorted(k for k in d.records if k in home), sorted(k for k in d.others if k in home)
        if d.kind in ("merge", "link"):
            wanted = [(a, b) for a in ours for b in others]
        else:
            apart |= {p for a in ours for b in others if home[a] is not home[b] for p in ((a, b), (b, a))}
            wanted = []
        if d.kind == "split":
            wanted = [(a, b) for side in (ours, others) for a in side for b in side if a < b]
        for a, b in wanted:
            if home[a] is not home[b] and not kept_apart(a, b):
                put_together(a, b)
    decided = set(apart)

    # then what a source merged itself
    for r in sorted(records, key=lambda r: r.key):
        into = (r.key[0], r.into)
        if r.into and into in home and home[r.key] is not home[into] and not kept_apart(r.key, into):
            put_together(r.key, into)

    # what is together has its names, and its ids, in common
    names = {k: set().union(*(by_key[m].names for m in home[k])) for k in home}
    generics = {k for k in {k for r in records for k in r.keys} if generic(k, [r for r in records if k in r.keys])}
    ids = {k: {i for m in home[k] for i in by_key[m].keys if i.startswith("id:") and i not in generics} for k in home}
    edges, doubts = [], []
    for key in {k for r in records for k in r.keys}:
        holders = sorted((r for r in records if key in r.keys), key=lambda r: r.key)
        if key in generics:
            continue
        kind, _, value = key.partition(":")
        strength = 2
        if kind == "id":
            strength = 3
        elif kind == "email" and value.partition("@")[0] in ROLES or kind == "tel" and not any(key in r.mobiles for r in holders):
            strength = 1
        pairs = [(a, b) for i, a in enumerate(holders) for b in holders[i + 1:] if home[a.key] is not home[b.key]]
        agree = {p: any(pair_agrees(x, y) for x in names[p[0].key] for y in names[p[1].key]) if names[p[0].key] and names[p[1].key] else None
                 for p in pairs}
        for (a, b), same in agree.items():
            if same is False:
                apart |= {(a.key, b.key), (b.key, a.key)}
                doubts.append((a.key, b.key, key, "names_disagree", WEIGHT[strength] * .5))
        # people of different names share it
        if strength == 2 and False in agree.values():
            strength = 1
        for (a, b), same in agree.items():
            if same or (same is None and strength > 1):
                edges.append((-strength, max(a.keys[key], b.keys[key]), key, a.key, b.key, same))
            elif same is None:
                doubts.append((a.key, b.key, key, "names_unknown", WEIGHT[strength] * .75))

    for strength, _, key, a, b, same in sorted(edges, key=lambda e: e[:5]):
        if home[a] is home[b]:
            continue
        alive = [k[0] for k in home[a] | home[b] if by_key[k].alive]
        both = {k[0] for k in home[a] if by_key[k].alive} & {k[0] for k in home[b] if by_key[k].alive}
        weight = WEIGHT[-strength] * (1 if same else .75)
        if kept_apart(a, b):
            doubts.append((a, b, key, "names_disagree", WEIGHT[-strength] * .5))
        elif any(ids_differ(ids[x], ids[y]) for x in home[a] for y in home[b]):
            doubts.append((a, b, key, "ids_differ", WEIGHT[-strength] * .5))
        elif both:
            doubts.append((a, b, key, "same_source", weight))
        elif len(home[a]) + len(home[b]) > MAX_RECORDS:
            doubts.append((a, b, key, "oversize", weight))
        else:
            put_together(a, b)

    refused = {}
    for a, b, key, reason, weight in doubts:
        if home[a] is not home[b] and not any((x, y) in decided for x in home[a] for y in home[b]):
            refused.setdefault(frozenset((frozenset(home[a]), frozenset(home[b]))), []).append((key, -weight, a, b, reason))
    out = {}
    for pair, found in refused.items():
        rest, per_key = 1, {}
        for key, weight, a, b, reason in sorted(found):
            per_key.setdefault(key, (weight, key, reason))
        for weight, _, _ in per_key.values():
            rest *= 1 + weight
        out[pair] = (min(per_key.values())[2], score(1 - rest))
    return {frozenset(s) for s in home.values()}, out


# ---- rules ----

class Rule:
    def __init__(self, spec, default, classes):
        spec = spec or {}
        self.kind = spec.get("rule", default)
        self.sources = spec.get("sources") or []
        self.only = spec.get("only", False)
        self.clear = spec.get("clear") or "withdraw"
        self.classes = classes

    def rank(self, source):
        # a source that is listed by its name and by its class stands where its name does
        for wanted in (source, self.classes[source]):
            if wanted in self.sources:
                return self.sources.index(wanted)
        return len(self.sources)

    def clear_of(self, source):
        if isinstance(self.clear, str):
            return self.clear
        return self.clear.get(source, self.clear.get(self.classes[source], "withdraw"))

    def admits(self, source):
        return not self.only or self.rank(source) < len(self.sources)


class Claim:
    """What one record says about one value, element, group or list."""
    def __init__(self, record, kind, value, cells):
        self.record, self.kind, self.value = record, kind, value
        self.cells = cells
        self.version = record.version
        self.changed = max((counted(record, c) for c in cells), default=NEVER)
        self.since = max((known_since(record, c) for c in cells), default=NEVER)
        self.estimate = all(c.estimate for c in cells)
        self.as_of = max(c.as_of for c in cells)
        self.key = None                     # of an element that is claimed to be primary

    def bytes(self):
        return repr(sorted(self.value.items())) if isinstance(self.value, dict) else repr(self.value)

    def agrees(self, other):
        """Do they say the same, as far as both say anything?"""
        if self.value is None or other.value is None:
            return self.value is other.value
        if self.kind == "list":
            return set(self.value) == set(other.value)
        if self.kind == "primary":
            return self.key == other.key
        # whatever else they say of an element, they say that it is there
        if self.kind == "element":
            return True
        if self.kind == "group":
            common = set(self.value) & set(other.value)
            return bool(common) and all(self.value[m] == other.value[m] for m in common)
        return self.value == other.value

    def votes(self, claims):
        return len({c.record.key[0] for c in claims if self.agrees(c)})

    def verified(self):
        # DESIGN is silent on what verifies a single value: a flag of its stamp, which no event can set yet
        elements = (self.value or {}).values() if self.kind == "list" else [self.value]
        return any(isinstance(e, dict) and e.get("verified") is True for e in elements)

    def completeness(self):
        # DESIGN is silent on what is counted; chosen: members or elements, then what is said of the elements
        if self.value is None:
            return 0, 0
        if self.kind in ("list", "group"):
            said = [len([a for a in e if a != "primary"]) if isinstance(e, dict) else 1 for e in self.value.values()]
            return len(said), sum(said)
        return 1, len([a for a in self.value if a != "primary"]) if isinstance(self.value, dict) else 1


def counted(record, cell):
    """The time at which a cell counts as changed."""
    if not cell.estimate:
        return cell.changed
    return min(record.created, cell.changed)


def known_since(record, cell):
    """The same for the question which is the oldest.  What was there at first sight is of unknown age: DESIGN is
    silent on that; chosen: the creation where it is known, else that sight, so that nothing unknown is the oldest."""
    if cell.estimate and record.created == NEVER:
        return cell.changed
    return counted(record, cell)


def ordered(claims, rule):
    """Best first, in the total order of the rule."""
    claims = [c for c in claims if rule.admits(c.record.key[0])]
    witnessed = any(not c.estimate for c in claims)

    def key(c):
        time = c.changed if witnessed else c.version
        since = c.since if witnessed else c.version
        rank = -rule.rank(c.record.key[0])
        return {"source_priority": (rank, time),
                "most_frequent": (c.votes(claims), time, rank),
                "verified_first": (c.verified(), time, rank),
                "oldest": (-since, time, rank),
                "most_complete": (*c.completeness(), time, rank)}.get(rule.kind, (time, rank))
    # DESIGN is silent on which end of the record keys wins; chosen: the least one
    return sorted(sorted(claims, key=lambda c: c.record.key), key=key, reverse=True)


def told_empty(r, field):
    """All that a record says of a list, if that is that it is empty."""
    cells = [c for (f, _), c in r.cells.items() if f == field]
    return cells + [r.covered[field]] if field in r.covered and all(c.value is None for c in cells) else []


def taken(record, cell, clear):
    """A cell as a policy takes it: where a clear is ignored, as it was before."""
    if cell is not None and cell.value is None and clear == "ignore":
        return cell.before
    return cell


def collect(records, kind, cells_of, rule, review, lead=None, field=None):
    """The claims of records; cells_of gives the cells that a claim is made of, by name.  A claim without a value
    says that there is none."""
    out = []
    for r in records:
        clear = rule.clear_of(r.key[0]) if rule else "withdraw"
        clear = review if clear == "review" else clear
        cells = {m: taken(r, c, clear) for m, c in cells_of(r).items()}
        full = {m: c for m, c in cells.items() if c is not None and c.value is not None}
        if full:
            value = {m: c.value for m, c in full.items()}
            # DESIGN is silent on what a cleared member means for the stamp of a group; chosen: nothing. The removal of
            # an element is a change of its list.
            made = [c for c in cells.values() if c is not None] if kind == "list" else list(full.values())
            out.append(Claim(r, kind, value[None] if kind in ("value", "element") else value, made))
            out[-1].of = full
        elif clear == "authoritative":
            # a group is cleared when its lead is, and nothing of it is left; an element with all of its list
            gone = [c for c in cells.values() if c is not None] if cells.get(lead) is not None else told_empty(r, field)
            if gone:
                out.append(Claim(r, kind, None, gone))
                out[-1].of = {}
    return out


def cell_claims(records, field, key="", rule=None, review="ignore"):
    kind = "element" if field in LISTS and field != "metadata" else "value"
    return collect(records, kind, lambda r: {None: r.cells.get((field, key))}, rule, review, None, field)


def group_claims(records, group, rule=None, review="ignore"):
    return collect(records, "group", lambda r: {m: r.cells[(m, "")] for m in GROUPS[group] if (m, "") in r.cells},
                   rule, review, LEAD[group])


def list_claims(records, field, rule=None):
    """Each record's list as a whole; one that has no element has none to offer."""
    return collect(records, "list", lambda r: {k: c for (f, k), c in r.cells.items() if f == field}, rule, "ignore", None, field)


# ---- one contact ----

class Contact:
    def __init__(self, members):
        self.members = members
        self.live = False
        self.value, self.provenance = {}, {}
        self.conflicts = []
        self.naming = None


class Conflict:
    def __init__(self, members, unit, key, candidates):
        self.members, self.unit, self.key, self.candidates = members, unit, key, candidates


def plain(value):
    """Without what says which element is primary: that is no part of what is decided about it."""
    return {k: plain(v) for k, v in value.items() if k != "primary"} if isinstance(value, dict) else value


def seen_digest(claim):
    return (claim.record.key, repr(sorted(plain(claim.value).items())) if isinstance(claim.value, dict) else repr(claim.value))


def undone(decisions):
    """What is not in force: an undo takes its targets out of it, unless it is undone itself; only what is later can undo."""
    out = set()
    for d in sorted(decisions, key=lambda d: -d.order):
        if d.kind == "undo" and d.order not in out:
            out |= d.targets
    return out


class Resolver:
    def __init__(self, records, policy, classes, decisions):
        self.records = sorted(records, key=lambda r: r.key)
        self.live = [r for r in self.records if r.alive]
        self.policy, self.classes = policy, classes
        names = {r.key for r in records}
        past = undone(decisions)
        mine = [d for d in decisions if d.order not in past and names & d.records]
        released = {t for d in mine if d.kind == "release" for t in d.targets}
        self.decisions = [d for d in mine if d.kind in ("resolve", "override") and d.order not in released]
        self.c = Contact(frozenset(names))

    def seen(self, unit, key):
        """All that is said of a cell now, for a decision to know."""
        rule = self.rule("metadata." + key if "metadata." + key in self.policy else GROUP_OF.get(unit, unit))
        review = "authoritative" if rule.kind == "manual_review" else "ignore"
        if unit in GROUPS:
            claims = group_claims(self.live, unit, rule, review)
        elif unit in LISTS and not key:
            claims = [c for k in {k for r in self.live for (f, k) in r.cells if f == unit} for c in cell_claims(self.live, unit, k, rule)]
        else:
            claims = cell_claims(self.live, unit, key, rule, review)
        return {seen_digest(c) for c in claims}

    def rule(self, target, default="last_write_wins"):
        return Rule(self.policy.get(target), default, self.classes)

    def put(self, field, claim):
        cell = claim.of.get(field, claim.of.get(None))
        self.c.value[field] = cell.value
        self.c.provenance[field] = (claim.record.key[0], counted(claim.record, cell), cell.as_of, cell.estimate)

    def run(self):
        self.c.live = bool(self.live)
        if not self.live:
            return self.c
        for g in GROUPS:
            self.group(g)
        for f in SCALARS:
            if f not in GROUP_OF:
                self.scalar(f)
        for f in ("emails", "phones", "tags"):
            self.list(f)
        self.metadata()
        if self.c.naming is None:
            self.c.naming = self.live[0].key
        return self.c

    def scalar(self, field):
        rule = self.rule(field)
        best = self.decide(field, "", lambda review: cell_claims(self.live, field, "", rule, review), rule,
                           lambda r: history(r, [(field, "")], lambda v: v[0]), [field])
        if best is None:
            return
        if best.record is None:
            self.put_decided(field, best.value, best)
        else:
            self.put(field, best)

    def put_decided(self, field, value, best):
        self.c.value[field] = value
        self.c.provenance[field] = (best.source,)

    def group(self, group):
        rule = self.rule(group)
        claims = [c for c in group_claims(self.live, group, rule, review_as(rule)) if rule.admits(c.record.key[0])]
        leading = leaders(claims, group)
        best = self.decide(group, "", lambda review: leaders(
            [c for c in group_claims(self.live, group, rule, review) if rule.admits(c.record.key[0])], group), rule, lambda r: history(
            r, [(m, "") for m in GROUPS[group]],
            lambda v: {m: x for m, x in zip(GROUPS[group], v) if x is not None} or None), GROUPS[group])
        self.group_of_claims(group, best, claims, leading, rule)
        # a single member that was decided stands in for what the group has there, unless the group was decided since
        for m in GROUPS[group]:
            d, whole = self.decision(m, ""), self.decision(group, "")
            if d is None or (whole is not None and not self.apart(whole) and whole.order > d.order):
                continue
            if not self.apart(d):
                self.c.value.pop(m, None)
                self.c.provenance.pop(m, None)
            self.question(m, "", ordered(cell_claims(self.live, m, "", rule, review_as(rule)), rule), d, rule, withdrawn(self.live, [m], m))
            if d.value is not None and not self.apart(d):
                self.put_decided(m, d.value, Decided(d, []))

    def group_of_claims(self, group, best, claims, leading, rule):
        if best is None:
            return
        # DESIGN is silent on the order in which gaps are filled (chosen: claims that compete first, then the
        # others), and on gaps in what is disputed or decided (chosen: candidates do not fill them, decisions have none)
        rest = ordered(leading, rule) if not self.disputed else []
        rest += ordered([c for c in claims if c not in leading], rule)
        rest = [] if best.record is None else [c for c in rest if c.record is not best.record and c.value is not None]
        filled = dict.fromkeys(best.value, best)
        result = dict(best.value)
        for c in rest:
            common = set(c.value) & set(result)
            if all(c.value[m] == result[m] for m in common):
                for m, v in c.value.items():
                    if m not in result:
                        result[m] = v
                        filled[m] = c
        for m in result:
            if filled[m].record is None:
                self.put_decided(m, result[m], best)
            else:
                self.put(m, filled[m])
        named = best.record or best.claimed
        if "last_name" in GROUPS[group] and named is not None:
            self.c.naming = named.key

    # -- lists --

    def list(self, field):
        rule = self.rule(field, "union")
        live = [r for r in self.live if rule.admits(r.key[0])]
        if rule.kind != "union":
            best = ordered(list_claims(live, field, rule), rule)
            live = [best[0].record] if best and best[0].value is not None else []
        whole = self.decision(field, "")
        keys = {k for r in self.live for (f, k), c in r.cells.items() if f == field}
        keys |= {d.key for d in self.decisions if d.unit == field and d.key} | set(whole.value or {} if whole else {})
        if whole is not None:
            self.question(field, "", [], whole, rule, [])
            whole = None if self.apart(whole) else whole
        out, age, decided = {}, {}, {}
        for k in sorted(keys):
            claims = ordered(cell_claims(self.live, field, k, rule), rule)
            d = self.standing(self.decision(field, k), claims)
            of_whole = None if whole is None else whole._replace(key=k, value=(whole.value or {}).get(k))
            if whole is not None and (d is None or whole.order > d.order):
                d = of_whole
            apart = d is not None and self.apart(d)
            if apart:
                self.question(field, k, claims, d, rule, withdrawn(self.live, [field], field, k))
                d = of_whole
            if d is not None:
                if not apart:
                    self.question(field, k, claims, d, rule, withdrawn(self.live, [field], field, k), whole=d.order == whole.order if whole else False)
                if d.value is not None:
                    out[k] = dict(d.value)
                    if out[k].pop("primary", None):
                        decided[k] = d.order
                    age[k] = d.at
                    self.c.provenance[field + ":" + k] = (d.source or "decision",)
                continue
            best = ordered(cell_claims(live, field, k, rule), rule)
            # that there is no such element may be the last word
            if not best or best[0].value is None:
                continue
            best = best[0]
            e = dict(best.value)
            if any(c.value.get("verified") for c in claims if c.value is not None):
                e["verified"] = True
            e.pop("primary", None)
            out[k] = e
            cell = best.of[None]
            # DESIGN is silent on how old an element is; chosen: as old as the claim that gives its attributes
            age[k] = counted(best.record, cell)
            self.c.provenance[field + ":" + k] = (best.record.key[0], age[k], cell.as_of, cell.estimate)
        if not out:
            return
        if field in WITH_PRIMARY:
            primary = max(decided, key=lambda k: decided[k]) if decided else self.primary(field, out, age)
            out[primary]["primary"] = True
        self.c.value[field] = [out[k]["value"] if field == "tags" else out[k] for k in sorted(out)]

    def primary(self, field, out, age):
        rule = self.rule(field + ".primary")
        claims = []
        for k in out:
            for c in cell_claims(self.live, field, k):
                if c.value.get("primary"):
                    c.kind, c.key = "primary", k
                    claims.append(c)
        best = ordered(claims, rule)
        if best:
            return best[0].key
        return min(out, key=lambda k: (not out[k].get("verified"), age[k], k))

    def metadata(self):
        # DESIGN counts metadata among the lists, whose best source is taken whole; chosen: a rule for all of
        # metadata holds for each key by itself
        out = {}
        decided = {d.key for d in self.decisions if d.unit == "metadata"}
        for k in sorted({k for r in self.live for (f, k) in r.cells if f == "metadata"} | decided):
            target = "metadata." + k if "metadata." + k in self.policy else "metadata"
            rule = self.rule(target, "union")
            best = self.decide("metadata", k, lambda review: cell_claims(self.live, "metadata", k, rule, review), rule,
                               lambda r: history(r, [("metadata", k)], lambda v: v[0]), ["metadata"])
            if best is None:
                continue
            out[k] = best.value
            if best.record is None:
                self.c.provenance["metadata:" + k] = (best.source,)
            else:
                cell = best.of[None]
                self.c.provenance["metadata:" + k] = (best.record.key[0], counted(best.record, cell), cell.as_of, cell.estimate)
        if out:
            self.c.value["metadata"] = out

    # -- one value among claims --

    def decision(self, unit, key):
        return max((d for d in self.decisions if (d.unit, d.key) == (unit, key)), key=lambda d: d.order, default=None)

    def rivals(self, unit, key):
        """Decisions that no later one knew of, the latest first, if they say different things."""
        cell = [d for d in self.decisions if (d.unit, d.key) == (unit, key)]
        tops = [d for d in cell if not any(e.order > d.order and e.records & d.records for e in cell)]
        return sorted(tops, key=lambda d: -d.order) if any(plain(d.value) != plain(tops[0].value) for d in tops) else []

    def standing(self, d, claims):
        """A steward's removal of an element falls to an assertion that is later."""
        if d is not None and d.kind == "override" and d.key and d.value is None and any(c.changed > d.at for c in claims if c.value is not None):
            return None
        return d

    def question(self, unit, key, claims, d, rule, withdrawn, whole=False):
        """A conflict, if an override has gone stale or stands against another decision."""
        rivals = [] if whole else self.rivals(unit, key)
        tombstone = d.kind == "override" and d.key and d.value is None and not whole
        # what settled a question about a clear stands only until something new is said
        reviewed = rule.kind != "manual_review" and "review" in ([rule.clear] if isinstance(rule.clear, str) else rule.clear.values())
        stale = (d.kind == "override" or reviewed) and not tombstone and (
            any(unseen(c, d) and plain(c.value) != plain(d.value) for c in claims) or
            (d.value is not None and any(at > d.at for r, at in withdrawn if rule.admits(r.key[0]) and rule.clear_of(r.key[0]) == "withdraw")))
        parted = self.parted(d, claims) and not whole
        if rivals or stale or parted:
            self.conflict(unit, key, rivals or [d] * parted, claims)

    def apart(self, d):
        """It was decided about records of which some are another contact's by now."""
        return not d.records <= self.c.members

    def parted(self, d, claims):
        """It is in force on neither side, and those that are left do not say so."""
        if not self.apart(d):
            return False
        if d.unit in LISTS and d.unit != "metadata" and not d.key:
            return True
        return any(plain(c.value) != plain(d.value) for c in claims) if claims else d.value is not None

    def conflict(self, unit, key, rivals, claims):
        self.c.conflicts.append(Conflict(self.c.members, unit, key, [DecidedClaim(d) for d in rivals] + claims))

    def decide(self, unit, key, collect, rule, runs_of, fields):
        """The claim that stands, or None; one without a record is a decision's."""
        claims = ordered(collect(review_as(rule)), rule)
        # a clear that is to be reviewed is asked about where it would win if it counted
        asked = []
        if rule.kind != "manual_review" and claims and claims[0].value is not None:
            counting = ordered(collect("authoritative"), rule)
            if counting and counting[0].value is None and rule.clear_of(counting[0].record.key[0]) == "review":
                asked = counting[:1]
        distinct = {c.bytes() for c in claims}
        decision = self.standing(self.decision(unit, key), claims)
        self.disputed = rule.kind == "manual_review" and len(distinct) > 1
        if decision is None:
            if self.disputed or asked:
                self.conflict(unit, key, [], claims + asked)
        elif asked:
            rivals = self.rivals(unit, key)
            parted = self.parted(decision, claims + asked)
            if rivals or parted or any(unseen(c, decision) for c in claims + asked):
                self.conflict(unit, key, rivals or [decision] * parted, claims + asked)
        elif self.disputed or (rule.kind == "manual_review" and claims and claims[0].value != decision.value):
            # what it did not see re-opens it, unless all say by now what was decided
            rivals = self.rivals(unit, key)
            parted = self.parted(decision, claims)
            if rivals or parted or any(unseen(c, decision) for c in claims):
                self.conflict(unit, key, rivals or [decision] * parted, claims)
        else:
            self.question(unit, key, claims, decision, rule, withdrawn(self.live, fields, LEAD.get(unit, fields[0]), key))
        # "Exact unmerge gives back what was there, and what cannot be attributed goes to review"
        if decision is not None and self.apart(decision):
            decision = None
        # DESIGN is silent on a decision whose rule has changed since; chosen: it stands
        if decision is not None:
            return None if decision.value is None else Decided(decision, claims)
        if not claims:
            return None
        if self.disputed:
            value = established([(r, runs_of(r)) for r in self.live if rule.admits(r.key[0])], LEAD.get(unit))
            # DESIGN is silent on an established value that nobody holds any more, and reads "the least in the tie
            # order" where there never was one; chosen: in both cases the first in the order of the claims
            best = next((c for c in claims if value is not None and c.value == value), claims[0])
        else:
            best = claims[0]
        return best if best.value is not None else None


def review_as(rule):
    """What a clear that is to be reviewed counts as: under manual_review it is a candidate like any other."""
    return "authoritative" if rule.kind == "manual_review" else "ignore"


def leaders(claims, group):
    """Those that fill the lead member, if any does; that there is no value says so of the lead, too."""
    if not any(c.value is not None and LEAD[group] in c.value for c in claims):
        return claims
    return [c for c in claims if c.value is None or LEAD[group] in c.value]


def unseen(c, decision):
    return seen_digest(c) not in decision.seen or c.changed > decision.at


def withdrawn(records, fields, lead, key=""):
    """[(record, time)] of those that say that they have nothing there."""
    out = []
    for r in records:
        cells = [r.cells[(f, key)] for f in fields if (f, key) in r.cells]
        if (lead, key) in r.cells and all(c.value is None for c in cells):
            out.append((r, max(counted(r, c) for c in cells)))
    return out


class DecidedClaim:
    """A decision among the candidates of a conflict."""
    def __init__(self, d):
        self.decision, self.value, self.changed = d, d.value, d.at


class Decided:
    record = None

    def __init__(self, decision, claims):
        self.value = decision.value
        self.source = decision.source or "decision"
        # of the records that say what was decided, the one that was chosen names the contact
        same = [c for c in claims if c.value == decision.value]
        chosen = [c for c in same if c.record.key[0] == decision.source] or same
        self.claimed = chosen[0].record if chosen else None


def history(record, wanted, join):
    """[(version, value)] of several cells taken as one; nothing while the record was deleted."""
    out = []
    for at, (alive, _, span) in record.past():
        was = cells(span) if alive else {}
        out.append((at, join([was[c].value if c in was else None for c in wanted])))
    return out


def established(histories, lead):
    """The fold over the claims in version order: what is unanimous, kept through disagreement."""
    value, current = None, {}
    for t in sorted({at for _, runs in histories for at, _ in runs}):
        for r, runs in histories:
            for at, v in runs:
                if at == t:
                    current[r.key] = v
        claims = [v for v in current.values() if v is not None]
        if lead and any(lead in v for v in claims):
            claims = [v for v in claims if lead in v]
        if claims and all(v == claims[0] for v in claims):
            value = claims[0]
    return value


# ---- all of it ----

def compute(observations, certificates, classes, policy, decisions, links=()):
    """records: {key: Record}, contacts: {members: Contact}, and what could not be decided: {(members, members): (reason, score)}"""
    by = {}
    for o in observations:
        by.setdefault((o.source, o.source_id), []).append(o)
    records = {}
    for k, obs in by.items():
        seen = max((c.start for c in certificates if c.source == k[0] and k[1] in c.seen), default=NEVER)
        records[k] = fold(k, obs, seen)
    contacts = {}
    past = undone(decisions)
    links = [d for d in links if ("link", d.order) not in past]
    clusters, refused = cluster(sorted(records.values(), key=lambda r: r.key), links)
    for members in clusters:
        contacts[members] = Resolver([records[k] for k in members], policy, classes, decisions).run()
    return records, contacts, refused


def absent(observations, certificates, certificate):
    """The deletes that a certificate implies for what is known when it is issued."""
    out = []
    by = {}
    for o in observations:
        by.setdefault((o.source, o.source_id), []).append(o)
    for k, obs in by.items():
        if k[0] != certificate.source or k[1] in certificate.seen:
            continue
        seen = max((c.start for c in certificates if c.source == k[0] and k[1] in c.seen), default=NEVER)
        r = fold(k, obs, seen)
        if r.alive and r.seen < certificate.start and r.last < certificate.start:
            out.append(Obs(k[0], k[1], "delete", certificate.start, inferred=True))
    return out
