"""How the emulators serve: on a free port of the loopback, until whoever started them is gone."""
import http.server
import os
import ssl
import threading
import time


def serve(handler, port_file, parent):
    """Write the port to port_file, and end with the process parent."""
    def end_with_parent():
        while os.path.exists("/proc/%d" % parent):
            time.sleep(1)
        os._exit(0)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    if "TLS_CERTIFICATE" in os.environ:
        # a file with a certificate and its key
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(os.environ["TLS_CERTIFICATE"])
        if "TLS_CLIENT_CA" in os.environ:
            # who connects has to show a certificate of this authority
            context.load_verify_locations(os.environ["TLS_CLIENT_CA"])
            context.verify_mode = ssl.CERT_REQUIRED
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=end_with_parent, daemon=True).start()
    with open(port_file + ".new", "w") as f:
        f.write(str(server.server_address[1]))
    os.rename(port_file + ".new", port_file)
    server.serve_forever()
