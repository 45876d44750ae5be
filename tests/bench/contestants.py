"""Those that are compared: for each, the flags that a careful user would choose, so that it presents its
certificate and checks the server's chain and, where it can, name."""

import shutil
from dataclasses import dataclass

from measure import run
from client import PROGRAM

PAYLOAD, DOWNLINK = b"0123456789", b"9876543210"


@dataclass
class Contestant:
    """One row. `words` may hold {port}, {payload}, {limit}, {dir}, and the PKI's {chain}, {bundle}, {key},
    {root}."""

    name: str
    words: str
    fed: bool = False      # takes its payload from standard input, and ends when that does
    server: str = "plain"  # the one that speaks its language: plain, coap; or silent: coap, a 2.04 without body
    on_disk: bool = False  # keeps its session on a disk, where no association is kept: it is resumed
    seed: str = None       # what has to be run before, once for a server's address
    shown: bool = True     # in the table of costs, or in that of loss alone
    lossy: bool = False    # in the table of loss
    why: str = ""          # a word on its flags

    @property
    def program(self):
        """Where it is; None: not installed."""
        return str(PROGRAM) if self.ours else shutil.which(self.words.split()[0])

    @property
    def answer(self):
        """What it prints."""
        return b"" if self.server == "silent" else DOWNLINK

    @property
    def ours(self):
        """Whether it is the program under test."""
        return self.words.startswith("dtls-send")

    def command(self, pki, port, scratch, payload=PAYLOAD, limit=60, words=None):
        """The command that sends the payload to that port of 127.0.0.1. `scratch` keeps its sessions."""
        values = {"port": port, "payload": payload.decode(), "limit": limit, "dir": scratch,
                  "chain": pki.chain("device"), "bundle": pki.bundle("device"), "key": pki.key("device"),
                  "root": pki.leaf("root"), "leaf": pki.leaf("device"),
                  "intermediate": pki.leaf("intermediate")}
        return [self.program, *(word.format(**values) for word in (words or self.words).split()[1:])]

    def prepare(self, pki, port, scratch):
        """Makes the run that leaves a session behind."""
        if self.seed:
            done = run(self.command(pki, port, scratch, words=self.seed), **self.feeding())
            assert done.status == 0, f"{self.name}: {done}"

    def feeding(self, payload=PAYLOAD):
        """How its standard input is treated: closed at the answer, as by a script that waits for it."""
        return {"feed": payload, "until": DOWNLINK} if self.fed else {}

    def printed(self):
        """Its command for people."""
        names = {"port": "PORT", "payload": "PAYLOAD", "limit": "LIMIT", "dir": ".", "chain": "chain.pem",
                 "bundle": "cert.crt", "key": "key.pem", "root": "root.crt", "leaf": "device.crt",
                 "intermediate": "intermediate.crt"}
        return self.words.format(**names)


OURS = ("dtls-send --server 127.0.0.1:{port} --server-name localhost --cert {bundle} --key {key} "
        "--count 1 {payload}")
RESUMED, REPEAT = OURS + " --session {dir}/resumed", OURS + " --confirm --session {dir}/repeat"
COAPS = ("dtls-send --server coaps://127.0.0.1:{port}/s --server-name localhost --cert {bundle} --key {key} "
         "{payload}")
COAPS_KEPT = COAPS + " --session {dir}/coaps"
OPENSSL = ("openssl s_client -dtls1_2 -connect 127.0.0.1:{port} -servername localhost "
           "-verify_hostname localhost -CAfile {root} -verify_return_error -cert {leaf} "
           "-cert_chain {intermediate} -key {key} -quiet -no_ign_eof -nocommands")
GNUTLS = ("gnutls-cli --udp --port {port} --sni-hostname localhost --verify-hostname localhost "
          "--x509cafile {root} --x509certfile {chain} --x509keyfile {key} 127.0.0.1")
SOCAT = ("socat -t 1 - OPENSSL-DTLS-CLIENT:127.0.0.1:{port},cert={chain},key={key},cafile={root},verify=1,"
         "commonname=localhost,cipher=ECDHE+CHACHA20:ECDHE+AESGCM")
COAP_GNUTLS = ("coap-client-gnutls -m post -c {chain} -j {key} -C {root} -e {payload} "
               "coaps://127.0.0.1:{port}/s")
COAP_OPENSSL = ("coap-client-openssl -m post -c {leaf} -j {key} -R {bundle} -e {payload} "
                "coaps://127.0.0.1:{port}/s")

FIRST_ROW = Contestant("dtls-send, first run", OURS)
RESUMED_ROW = Contestant("dtls-send --session, resumed", RESUMED, seed=RESUMED)
REPEAT_ROW = Contestant("dtls-send --session --confirm, repeat", REPEAT, seed=REPEAT)
COAPS_FIRST_ROW = Contestant("dtls-send coaps, first run", COAPS, server="coap")
COAPS_RESUMED_ROW = Contestant("dtls-send coaps --session, resumed", COAPS_KEPT, server="coap", seed=COAPS_KEPT,
                               on_disk=True, why="the session on a disk")
COAPS_REPEAT_ROW = Contestant("dtls-send coaps --session, repeat", COAPS_KEPT, server="coap", seed=COAPS_KEPT)
COAPS_SILENT_ROW = Contestant("dtls-send coaps --session, repeat, answered without body", COAPS_KEPT,
                              server="silent", seed=COAPS_KEPT)
CONTESTANTS = [
    FIRST_ROW,
    RESUMED_ROW,
    REPEAT_ROW,
    COAPS_FIRST_ROW,
    COAPS_RESUMED_ROW,
    COAPS_REPEAT_ROW,
    Contestant("dtls-send", OURS + " --timeout {limit}", shown=False, lossy=True),
    Contestant("dtls-send --confirm", OURS + " --confirm --timeout {limit}", shown=False, lossy=True),
    Contestant("dtls-send coaps", COAPS + " --timeout {limit}", server="coap", shown=False, lossy=True),
    Contestant("openssl s_client", OPENSSL, fed=True, lossy=True),
    Contestant("openssl s_client -sess_in", OPENSSL + " -sess_in {dir}/openssl", fed=True,
               seed=OPENSSL + " -sess_out {dir}/openssl"),
    Contestant("gnutls-cli --udp", GNUTLS, fed=True, lossy=True),
    Contestant("socat", SOCAT, fed=True, lossy=True,
               why="its default cipher list makes a ClientHello of two fragments, which mbed TLS refuses"),
    Contestant("coap-client-gnutls", COAP_GNUTLS, server="coap", lossy=True, why="checks no name"),
    Contestant("coap-client-openssl", COAP_OPENSSL, server="coap", lossy=True,
               why="checks no name; takes its intermediate from among the trust anchors"),
]
