"""Ways to answer badly, for any server here: a mode is a name, some with a value after a colon.

Whatever the answer is made of:
  status:NNN[:RETRY_AFTER[:BODY]]    another status
  html         a page to sign in at, with status 200
  type         the answer as application/octet-stream
  truncated    half of the body, and the connection closed
  half         half of the body, as if that were all
  reset        the connection reset
  stall        no answer
  drip         a byte each fifth of a second
  hold         no answer until it is let go (op "release"), and then a good one
  redirect:URL elsewhere
  big          100 MB
  bomb         64 MB that travel as 64 kB
  nested       100,000 arrays in each other, or as many elements
  utf8         a byte that is no UTF-8
  nul          a zero byte
  skew:SECONDS the header Date off by that
"""
import gzip
import http.server
import socket
import struct
import threading
import time

RAW_MODES = "status html type truncated half reset stall drip hold redirect big bomb nested utf8 nul skew".split()


class Mode:
    """How to misbehave: after skip requests, and times times."""

    def __init__(self, name, skip=0, times=1000000):
        self.name, self.skip, self.times = name, skip, times

    def next(self):
        """The mode of this request; None if it is not its turn."""
        if self.skip > 0:
            self.skip -= 1
            return None
        self.times -= 1
        return self.name if self.times >= 0 else None


class Hold:
    """Requests that wait until they are let go."""

    def __init__(self):
        self.waiting, self.round, self.condition = 0, 0, threading.Condition()

    def wait(self):
        with self.condition:
            self.waiting += 1
            until = self.round + 1
            while self.round < until:
                self.condition.wait()

    def release(self):
        with self.condition:
            self.waiting = 0
            self.round += 1
            self.condition.notify_all()


HOLD = Hold()


class FaultyHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or headers and body, written apart, cost 40 ms
    skew = 0

    def log_message(self, *args):
        pass

    def date_time_string(self, timestamp=None):
        return super().date_time_string((timestamp or time.time()) + self.skew)

    def send(self, status, body, kind="application/json", headers=(), announce=None):
        self.send_response(status)
        if kind:
            self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(announce or len(body)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def send_badly(self, mode, status, body, kind, headers=()):
        """Answer as a mode of RAW_MODES has it."""
        name, _, value = mode.partition(":")
        middle = len(body) // 2
        if name == "status":
            status, _, more = value.partition(":")
            after, _, text = more.partition(":")
            self.send(int(status), (text or '{"error": "fault"}').encode(), headers=[("Retry-After", after)] if after else [])
        elif name == "html":
            self.send(200, b"<html>Sign in</html>", "text/html")
        elif name == "type":
            self.send(status, body, "application/octet-stream", headers)
        elif name == "truncated":
            self.send(status, body[:middle], kind, headers, announce=len(body) + 1)
            self.close_connection = True
        elif name == "half":
            self.send(status, body[:middle], kind, headers)
        elif name == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
        elif name == "stall":
            time.sleep(3600)
        elif name == "drip":
            self.send(status, b"", kind, headers, announce=len(body))
            for i in range(len(body)):
                time.sleep(0.2)
                self.wfile.write(body[i:i + 1])
        elif name == "hold":
            HOLD.wait()
            self.send(status, body, kind, headers)
        elif name == "redirect":
            self.send(302, b"", headers=[("Location", value)])
        elif name == "big":
            self.send(status, b"", kind, headers, announce=100 << 20)
            for _ in range(100):
                self.wfile.write(b" " * (1 << 20))
        elif name == "bomb":
            self.send(status, BOMB, kind, [*headers, ("Content-Encoding", "gzip")])
        elif name == "nested":
            self.send(status, b"<a>" * 100000 + b"</a>" * 100000 if b"<" in body[:1] else b"[" * 100000 + b"]" * 100000, kind, headers)
        elif name == "utf8":
            self.send(status, body[:middle] + b"\xff\xfe" + body[middle:], kind, headers)
        elif name == "nul":
            self.send(status, body[:middle] + b"\0" + body[middle:], kind, headers)
        elif name == "skew":
            self.skew += int(value)
            self.send(status, body, kind, headers)
        else:
            raise AssertionError(mode)


BOMB = gzip.compress(b"[" + b" " * (64 << 20) + b"]", 1)
