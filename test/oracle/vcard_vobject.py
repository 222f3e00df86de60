"""vCards read by from_vcard() and by python3-vobject: where do they differ, and why?

usage: vcard_vobject.py [-v] FOLDER... [-- psql arguments]

Every .vcf below the folders is cut into cards; each card is read by both.  The
database has the extension.  What is legitimately spelled otherwise is made
alike first: NFC and blanks, the domain of a mail, type words, mailto: and tel:.
Every difference gets a cause; -v prints each one.  The status is 1 if there is
one whose cause is not known.
"""
import collections
import json
import logging
import pathlib
import re
import subprocess
import sys
import unicodedata

import vobject

logging.disable(logging.CRITICAL)

MARK = re.compile(rb"[\s\xef\xbb\xbf]*(BEGIN|END)\s*:\s*VCARD\s*$", re.I)
AGENT = re.compile(rb"\s*AGENT[^:]*:\s*$", re.I)
IDLE = {"", "pref", "voice", "text", "msg", "video", "textphone", "internet", "dom", "intl", "postal", "parcel"}
LABELS = {"homefax": "home fax", "workfax": "work fax", "otherfax": "other fax"}
FIELDS = ("FN", "N", "NICKNAME", "EMAIL", "TEL", "ADR", "URL", "ORG", "TITLE", "CATEGORIES", "NOTE", "UID")


# ---- files ----

def cards_of(data):
    """The cards of a file, as UTF-8 or as they are, without what is between them."""
    for bom, codec in ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"), (b"\0B", "utf-16-be"), (b"B\0", "utf-16-le")):
        if data.startswith(bom):
            data = data.decode(codec, "replace").encode()
            break
    cards, lines, depth, agent = [], [], 0, False
    for line in re.findall(rb"[^\r\n]*(?:\r\r?\n|\r|\n)|[^\r\n]+\Z", data):
        mark = MARK.match(line)
        kind = mark and mark[1].upper()
        if kind == b"BEGIN" and depth and not agent:    # the END is missing
            cards.append(b"".join(lines))
            depth = 0
        if kind == b"BEGIN":
            lines = lines if depth else []
            depth += 1
        if depth:
            lines.append(line)
        if kind == b"END" and depth:
            depth -= 1
            if not depth:
                cards.append(b"".join(lines))
        if line.strip():
            agent = bool(AGENT.match(line))
    if depth:
        cards.append(b"".join(lines))
    return cards


def read_folders(folders):
    for folder in folders:
        for path in sorted(pathlib.Path(folder).rglob("*")):
            if path.suffix.lower() in (".vcf", ".vcard") and path.is_file():
                for n, card in enumerate(cards_of(path.read_bytes()), 1):
                    yield f"{path.relative_to(folder)}#{n}", card


def text_of(card):
    """What vobject is given: it takes text, not bytes."""
    try:
        return card.decode("utf-8-sig")
    except UnicodeDecodeError:
        return card.decode("cp1252", "replace")


def options_of(text):
    """vobject unfolds far faster where it need not look for quoted-printable."""
    return {"ignoreUnreadable": True, "allowQP": "quoted-printable" in text.lower()}


def parse(text, options):
    return next(vobject.readComponents(text, **options))


# ---- one model of both ----

def clean(s):
    if isinstance(s, (list, tuple)):
        s = ",".join(s)
    if isinstance(s, bytes):
        s = s.decode("utf-8", "replace")
    s = unicodedata.normalize("NFC", s.replace("\r\n", "\n").replace("\r", "\n"))
    return " ".join(s.split())


def mail(s):
    s = re.sub("^(mailto:)+", "", clean(s), flags=re.I).strip()
    local, at, domain = s.rpartition("@")
    return local + at + domain.lower()


def phone(s):
    """The number without its punctuation, and its extension."""
    s = re.sub("^(tel:)+", "", clean(s), flags=re.I).strip()
    found = re.match(r"(.*?)[\s;,]*(?:ext(?:ension)?|x)[.:= ]*(\d+)$", s, flags=re.I)
    number, extension = found.groups() if found else (s, "")
    return re.sub(r"[\s().\-/]", "", number).lower() + (" x" + extension if extension else "")


def words(types):
    found = {w for t in types for w in re.split(r"[\s,]+", clean(t).lower())}
    return " ".join(sorted({"mobile" if w == "cell" else w for w in found} - IDLE))


def label_words(s):
    s = clean(s)
    while s.startswith("_$!<") and s.endswith(">!$_"):
        s = s[4:-4].strip()
    return words([LABELS.get(s.lower(), s)])


def elements(found):
    """[(value, type)] without what says nothing, and each value once."""
    out = {}
    for value, kind in found:
        if value:
            out.setdefault(value, kind)
    return sorted(out.items())


def address(a):
    street = ", ".join(p for p in (clean(a.box), clean(a.extended), clean(a.street)) if p)
    parts = [street, *(clean(p) for p in (a.city, a.region, a.code, a.country))]
    return "; ".join(parts) if any(parts) else ""


def of_vobject(component):
    lines = collections.defaultdict(list)
    labels = {}
    for line in component.lines():
        lines[line.name].append(line)
        if line.name == "X-ABLABEL" and line.group and clean(line.value):
            labels.setdefault(line.group.lower(), label_words(line.value))

    def first(name):
        return next((v for v in (clean(x.value) for x in lines[name]) if v), "")

    def typed(name, value):
        return elements((value(x.value), labels.get((x.group or "").lower()) or words(
            [t for p in ("TYPE",) for t in x.params.get(p, [])] + x.singletonparams)) for x in lines[name])

    out = {name: first(name) for name in ("FN", "NICKNAME", "TITLE", "NOTE", "UID")}
    out.update(N=[""] * 5, ORG=["", ""], EMAIL=typed("EMAIL", mail), TEL=typed("TEL", phone), ADR=typed("ADR", address),
               URL=typed("URL", clean))
    for x in lines["N"]:
        parts = [clean(getattr(x.value, p)) for p in vobject.vcard.NAME_ORDER]
        if any(parts):
            out["N"] = parts
            break
    for x in lines["ORG"]:
        units = [clean(u) for u in x.value]
        if any(units):
            out["ORG"] = [units[0], ", ".join(u for u in units[1:] if u)]
            break
    tags = [t for x in lines["CATEGORIES"] for t in (x.value if isinstance(x.value, list) else [x.value])]
    out["CATEGORIES"] = sorted({clean(t) for t in tags} - {""})
    return out


def of_contact(c, other):
    """A contact in the same model.  FN has no field: it is there if it can be shown."""
    name = [clean(c.get(k, "")) for k in ("last_name", "first_name", "middle_name", "prefix", "suffix")]
    metadata = c.get("metadata", {})
    emails = elements((mail(e["address"]), words([e.get("type", "")])) for e in c.get("emails", []))
    phones = elements((phone(re.sub(r"[\s;,]*(?:ext(?:ension)?|x)[.:= ]*" + re.escape(p["extension"]) + "$", "", p["number"], flags=re.I)
                             + ";ext=" + p["extension"] if p.get("extension") else p["number"]), words([p.get("type", "")]))
                      for p in c.get("phones", []))
    whole = clean(" ".join(name[i] for i in (3, 1, 2, 0, 4)))
    shown = metadata.get("formatted_name") or whole
    spelled = [clean(shown), clean(c.get("company", "")), clean(c.get("nickname", ""))]
    if not metadata.get("formatted_name") and not whole and (other["FN"] in spelled or mail(other["FN"]) in dict(emails)
                                                             or phone(other["FN"]) in dict(phones)):
        shown = other["FN"]
    if not other["FN"] and not metadata.get("formatted_name"):
        shown = ""                       # made of N
    if not any(other["N"]) and clean(shown) == whole:
        name = [""] * 5                  # made of FN
    return {"FN": clean(shown), "N": name, "EMAIL": emails, "TEL": phones,
            "NICKNAME": clean(c.get("nickname", "")), "NOTE": clean(c.get("note", "")),
            "URL": elements((clean(u["url"]), words([u.get("type", "")])) for u in c.get("urls", [])),
            "ADR": elements(("; ".join(clean(a.get(k, "")) for k in ("street", "city", "region", "postal_code", "country")),
                             words([a.get("type", "")])) for a in c.get("addresses", [])),
            "ORG": [clean(c.get("company", "")), clean(c.get("department", ""))], "TITLE": clean(c.get("title", "")),
            "CATEGORIES": sorted({clean(t) for t in c.get("tags", [])}), "UID": clean(metadata.get("uid", ""))}


# ---- the database ----

def read_contacts(cards, psql):
    sql = ["SET client_min_messages = error; SET bytea_output = hex; CREATE TEMP TABLE cards (id integer, card bytea);\n",
           "COPY cards FROM stdin;\n", *(f"{i}\t\\\\x{card.hex()}\n" for i, card in enumerate(cards)), "\\.\n",
           "SELECT id, array_to_json(ARRAY(SELECT c::jsonb FROM contactsync.from_vcard(card) c)) FROM cards ORDER BY id;\n"]
    out = subprocess.run(["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", *psql], input="".join(sql),
                         text=True, encoding="utf-8", stdout=subprocess.PIPE, check=True).stdout
    return [json.loads(line.split("|", 1)[1]) for line in out.splitlines()]


# ---- why ----

def raw_lines(card, name):
    """The unfolded lines of a property, as text."""
    text = re.sub(r"(?:\r\r?\n|\r|\n)[ \t]", "", text_of(card))
    return re.findall(r"(?im)^[ \t]*(?:[\w-]+\.)?" + name + r"[;:][^\r\n]*", text)


def skips(line):
    try:
        vobject.base.parseLine(line)
        return False
    except vobject.base.ParseError:
        return True


def is_utf8(data):
    try:
        data.decode()
        return True
    except UnicodeDecodeError:
        return False


def cause(card, field, theirs, ours):
    """Who is right where they differ, and why; "?" where that is for a person to say."""
    lines = raw_lines(card, field)
    theirs, ours = theirs[field], ours[field]
    value = "\n".join(lines)
    if field in ("FN", "N") and any(map(skips, raw_lines(card, "FN") + raw_lines(card, "N"))) or any(map(skips, lines)):
        return "vobject: skips a line that its grammar lacks"
    if re.search(r"(?im)^BEGIN:(?!VCARD)", text_of(card)):
        return "choice: what another component inside the card holds is read (BEGIN:PROFILE)"
    if any(re.match(r"[^:]*;CHARSET=(?!utf-?8)(?![^:]*quoted-printable)", x, re.I) for x in lines):
        return "vobject: ignores a CHARSET without quoted-printable"
    if not is_utf8(card):
        return "vobject: takes text, so one line that is not UTF-8 spoils the card"
    if isinstance(ours, str) and isinstance(theirs, str):
        plain = ours.replace('\\"', '"')
        if theirs.replace("\\:", ":") in (ours, plain) and "\\:" in theirs:
            return "vobject: keeps the backslash of \\:"
        if ours != plain and plain == theirs:
            return "choice: the backslash of \\\" is text"
        if plain.startswith(theirs + ",") or plain.startswith(theirs + " ,"):
            return "vobject: ends text at a comma without a backslash"
        if b"VERSION:2.1" in card and re.sub(r"\s", "", ours) == re.sub(r"\s", "", theirs):
            return "vobject: drops the blank at a fold of 2.1, which is text"
    elif "\\:" in value and [(v.replace("\\:", ":"), t) for v, t in theirs] == ours:
        return "vobject: keeps the backslash of \\:"
    elif field == "ADR" and [(re.sub(",(?=;)", "", v), t) for v, t in ours] == theirs:
        return "choice: a comma in an address is text, also at the end"
    elif field == "TEL" and re.search(r";\w+=[;:]", value) and [v for v, _ in theirs] == [v for v, _ in ours]:
        return "choice: the name of a parameter is no type (TEL;CELL=:)"
    return "?"


def refusal(e):
    """Why vobject raised what it raised."""
    text = str(e)
    if "closed" in text:
        return "a card without its END"
    if "base64" in text:
        return "base64 that is cut off, or none (data: URIs)"
    if isinstance(e, UnicodeDecodeError):
        return "quoted-printable in a charset that is not declared"
    if isinstance(e, LookupError):
        return "an unknown CHARSET"
    if "PROFILE" in text:
        return "PROFILE:VCARD"
    if isinstance(e, AttributeError):
        return "BEGIN:VCARD with a blank behind it"
    return f"{type(e).__name__}: {text[:60]}"


def main(argv):
    psql = argv[argv.index("--") + 1:] if "--" in argv else []
    argv = argv[:argv.index("--")] if "--" in argv else argv
    verbose = "-v" in argv
    found = list(read_folders([a for a in argv if a != "-v"]))
    contacts = read_contacts([card for _, card in found], psql)
    refused, causes, alike, differ, unread = collections.Counter(), collections.defaultdict(list), 0, 0, 0
    for (where, card), got in zip(found, contacts):
        text = text_of(card)
        try:
            theirs = of_vobject(parse(text, options_of(text)))
        except Exception as e:
            refused[refusal(e)] += 1
            unread += len(got) != 1
            if verbose:
                print("refused:", where, repr(e)[:150])
            continue
        if len(got) != 1:
            causes["? cards: %d" % len(got)].append((where, "", "", ""))
            continue
        ours = of_contact(got[0], theirs)
        same = True
        for field in FIELDS:
            if theirs[field] != ours[field]:
                same = False
                causes[cause(card, field, theirs, ours)].append((where, field, theirs[field], ours[field]))
        alike, differ = alike + same, differ + (not same)
    print(f"{len(found)} cards: {alike} alike, {differ} differ, {sum(refused.values())} vobject cannot read, {unread} of those from_vcard cannot")
    for why, n in refused.most_common():
        print(f"{n:6}  vobject raises: {why}")
    for why, hits in sorted(causes.items(), key=lambda x: -len(x[1])):
        print(f"{len(hits):6}  {why}")
        for where, field, theirs, ours in hits if verbose or why.startswith("?") else ():
            print(f"        {where} {field}\n          vobject  {theirs!r}\n          contact  {ours!r}")
    return any(why.startswith("?") for why in causes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
