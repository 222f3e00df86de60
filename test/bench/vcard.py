"""Cards per second: from_vcard(bytea) in one backend beside python3-vobject.

usage: vcard.py FOLDER... [-- psql arguments]

Both read the cards that vobject can read, one card at a time, in turn, and the
median of three runs of each counts.  vobject is spared what it need not do: it
gets text that is decoded already, and looks for quoted-printable only in cards
that have it.  from_vcard also makes the contact: canonical, and as it is stored.
"""
import gc
import pathlib
import statistics
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "oracle"))
from vcard_vobject import options_of, parse, read_folders, text_of

RUNS = 3
REPEAT = 20                             # of the cards in the table


def readable(folders):
    for _, card in read_folders(folders):
        text = text_of(card)
        try:
            parse(text, options_of(text))
        except Exception:
            continue
        yield card, text, options_of(text)


class Psql:
    def __init__(self, args):
        self.p = subprocess.Popen(["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", *args],
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def send(self, sql):
        self.p.stdin.write(sql)

    def row(self, sql):
        """The one line that comes back."""
        self.send(sql + ";\n")
        self.p.stdin.flush()
        return self.p.stdout.readline().strip() or sys.exit("psql has failed")


def load(psql, cards):
    psql.send("SET client_min_messages = error; SET jit = off; SET enable_memoize = off;\n"
              "SET max_parallel_workers_per_gather = 0; CREATE TEMP TABLE cards (id integer, card bytea);\n"
              "COPY cards FROM stdin;\n")
    for i, (card, _, _) in enumerate(cards):
        psql.send(f"{i}\t\\\\x{card.hex()}\n")
    psql.send("\\.\nINSERT INTO cards SELECT id, card FROM cards, generate_series(2, %d);\nANALYZE cards;\n" % REPEAT)


def run_contact(psql, n):
    began = float(psql.row("SELECT extract(epoch FROM clock_timestamp())"))
    count = int(psql.row("SELECT count(c) FROM cards, contactsync.from_vcard(card) c"))
    seconds = float(psql.row("SELECT extract(epoch FROM clock_timestamp())")) - began
    if count != n * REPEAT:
        sys.exit(f"from_vcard made {count} contacts of {n * REPEAT} cards")
    return count / seconds


def run_vobject(cards):
    gc.collect()
    began = time.perf_counter()
    for _, text, options in cards:
        parse(text, options)
    return len(cards) / (time.perf_counter() - began)


def main(argv):
    at = argv.index("--") if "--" in argv else len(argv)
    cards = list(readable(argv[:at]))
    if not cards:
        sys.exit("no card that vobject can read")
    size = sum(len(card) for card, _, _ in cards)
    psql = Psql(argv[at + 1:])
    load(psql, cards)
    run_contact(psql, len(cards))       # warm
    runs = [(run_contact(psql, len(cards)), run_vobject(cards)) for _ in range(RUNS)]
    ours, theirs = (statistics.median(side) for side in zip(*runs))
    print(f"{len(cards)} cards, {size // len(cards)} bytes on average")
    print(f"from_vcard(bytea)  {ours:10,.0f} cards/s  {ours * size / len(cards) / 1e6:8.1f} MB/s")
    print(f"python3-vobject    {theirs:10,.0f} cards/s  {theirs * size / len(cards) / 1e6:8.1f} MB/s")
    print(f"times faster       {ours / theirs:10.1f}")


if __name__ == "__main__":
    main(sys.argv[1:])
