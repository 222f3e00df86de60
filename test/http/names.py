#!/usr/bin/env python3
"""A name server on 127.0.0.1:53, for names that mean different things: names.py READY-FILE

public.test is 93.184.216.34, private.test 127.0.0.1, mixed.test both, and rebind.test the
first when it is asked for the first time and the second from then on. silent.test gets no
answer. Addresses of IPv6: mapped.test is ::ffff:127.0.0.1. Everything else does not exist.
"""
import socket
import struct
import sys

PUBLIC, PRIVATE = "93.184.216.34", "127.0.0.1"
asked = {}


def addresses(name, kind):
    if name == "mapped.test":
        return [socket.inet_pton(socket.AF_INET6, "::ffff:127.0.0.1")] if kind == 28 else []
    if name == "rebind.test" and kind == 1:
        asked[name] = asked.get(name, 0) + 1
        return [socket.inet_aton(PUBLIC if asked[name] == 1 else PRIVATE)]
    known = {"public.test": [PUBLIC], "private.test": [PRIVATE], "mixed.test": [PUBLIC, PRIVATE], "rebind.test": []}
    if name not in known:
        return None
    return [socket.inet_aton(a) for a in known[name]] if kind == 1 else []


server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 53))
open(sys.argv[1], "w").close()
while True:
    query, client = server.recvfrom(4096)
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1:at + 1 + query[at]].decode())
        at += 1 + query[at]
    name, question = ".".join(labels).lower(), query[12:at + 5]
    kind = struct.unpack(">H", query[at + 1:at + 3])[0]
    if name == "silent.test":
        continue
    found = addresses(name, kind)
    answer = query[:2] + struct.pack(">HHHHH", 0x8180 if found is not None else 0x8183, 1, len(found or []), 0, 0) + question
    for a in found or []:
        answer += b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, 0, len(a)) + a
    server.sendto(answer, client)
