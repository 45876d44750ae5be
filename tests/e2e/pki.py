"""A public key infrastructure for one run of the tests, made with openssl(1) in about a second."""

import datetime
import fcntl
import subprocess
import tempfile
from pathlib import Path

DAY = datetime.timedelta(days=1)

LOCAL_NAMES = "DNS:localhost,DNS:server.test,IP:127.0.0.1,IP:::1"

# name: (subject, issuer, what differs from a good certificate of its kind)
AUTHORITIES = {
    "root": ("Test Root", None, {}),
    "intermediate": ("Test Intermediate", "root", {}),
    # Carries the good root's name, so that only its signatures tell it from that.
    "impostor-root": ("Test Root", None, {}),
    "impostor-intermediate": ("Test Intermediate", "impostor-root", {}),
    # Ends of the chain as they should be, and the link between them too old.
    "old-intermediate": ("Old Intermediate", "root", {"end": -1}),
}

SERVERS = {
    "server": ("server", "intermediate", {}),
    "server-p384": ("server", "intermediate", {"key": "P-384"}),
    "server-rsa": ("server", "intermediate", {"key": "RSA"}),
    "server-rsa-1024": ("server", "intermediate", {"key": "RSA-1024"}),
    "server-localhost-only": ("server", "intermediate", {"names": "DNS:localhost"}),
    "server-ip-only": ("server", "intermediate", {"names": "IP:127.0.0.1"}),
    # The common name does not count beside a subjectAltName (RFC 6125 section 6.4.4).
    "server-other-name": ("localhost", "intermediate", {"names": "DNS:other.test"}),
    # Text that looks like an address is not an iPAddress name.
    "server-ip-as-text": ("127.0.0.1", "intermediate", {"names": "DNS:127.0.0.1"}),
    "server-wildcard": ("server", "intermediate", {"names": "DNS:*.server.test"}),
    "server-wrong-ca": ("server", "impostor-intermediate", {}),
    "server-old-intermediate": ("server", "old-intermediate", {}),
    "server-self-signed": ("server", None, {}),
    "server-expired": ("server", "intermediate", {"end": -1}),
    "server-not-yet-valid": ("server", "intermediate", {"start": 1}),
    "server-client-auth": ("server", "intermediate", {"usage": "clientAuth"}),
    # No subjectAltName: the common name counts only where the certificate says that it is a server's.
    "server-common-name": ("localhost", "intermediate", {"names": None}),
    "server-common-name-any-usage": ("localhost", "intermediate",
                                     {"names": None, "usage": "anyExtendedKeyUsage"}),
    "server-common-name-alone": ("localhost", "intermediate", {"names": None, "usage": None}),
    # What another device's owner holds, at its worst: it even names itself like the server.
    "other-device": ("localhost", "intermediate", {"usage": "clientAuth", "names": None}),
}

DEVICES = {
    "device": ("device", "intermediate", {}),
    "device-p384": ("device-p384", "intermediate", {"key": "P-384"}),
    "device-rsa": ("device-rsa", "intermediate", {"key": "RSA"}),
    "device-expired": ("device", "intermediate", {"end": -1, "same_key_as": "device"}),
    "device-not-yet-valid": ("device", "intermediate", {"start": 1}),
    "device-unknown": ("device", "impostor-intermediate", {}),
    # Its own CA, good for everything: what trusts it trusts whoever holds this device's key.
    "device-self-signed": ("device", None, {"also_ca": True, "usage": "clientAuth,serverAuth"}),
}

CA_CONFIG = """
[ca]
default_ca = here
[here]
database = {scratch}/index.txt
new_certs_dir = {scratch}
default_md = sha256
policy = anything
rand_serial = yes
[anything]
commonName = supplied
[extensions]
{extensions}
"""


def openssl(*arguments):
    """Runs openssl(1), which must succeed; returns what it printed."""
    done = subprocess.run(["openssl", *map(str, arguments)], stdin=subprocess.DEVNULL,
                          capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def timestamp(days):
    """The time so many days from now, as openssl(1) wants it."""
    return (datetime.datetime.now(datetime.timezone.utc) + days * DAY).strftime("%Y%m%d%H%M%SZ")


class Pki:
    """A directory of certificates and keys, found by the names in the tables above."""

    def __init__(self, directory):
        self.directory = Path(directory)

    @classmethod
    def shared(cls, directory):
        """The one in `directory`; the first of several processes to come makes it, the others wait."""
        directory = Path(directory)
        directory.mkdir(exist_ok=True)
        pki = cls(directory)
        with open(directory / "lock", "w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (directory / "complete").exists():
                pki.make()
                (directory / "complete").touch()
        return pki

    def leaf(self, name):
        """The certificate alone."""
        return self.directory / f"{name}.crt"

    def chain(self, name):
        """The certificate, then its intermediate: what a server sends."""
        return self.directory / f"{name}.chain"

    def bundle(self, name):
        """The certificate, its intermediate and its root: what the service hands to a device."""
        return self.directory / f"{name}.bundle"

    def key(self, name):
        """Its private key, PKCS#8 in PEM."""
        return self.directory / f"{name}.key"

    def end_date(self, name):
        """The day on which it expires or expired, like 2026-11-20."""
        text = openssl("x509", "-in", self.leaf(name), "-noout", "-enddate").decode().split("=")[1].strip()
        return datetime.datetime.strptime(text, "%b %d %H:%M:%S %Y %Z").strftime("%Y-%m-%d")

    def start_date(self, name):
        """The day on which it becomes or became valid."""
        text = openssl("x509", "-in", self.leaf(name), "-noout", "-startdate").decode().split("=")[1].strip()
        return datetime.datetime.strptime(text, "%b %d %H:%M:%S %Y %Z").strftime("%Y-%m-%d")

    def der(self, name):
        """The certificate in DER."""
        return openssl("x509", "-in", self.leaf(name), "-outform", "DER")

    def issue_device(self, name, days):
        """Issues one more, good for so many days, or a fraction of one. No two tests may use one name."""
        self._issue(name, "device", "intermediate", self._leaf_extensions("clientAuth", {}), {"end": days})

    def make(self):
        """Issues all of the tables."""
        for name, (subject, issuer, differences) in AUTHORITIES.items():
            self._issue(name, subject, issuer, "basicConstraints=critical,CA:TRUE\n"
                        "keyUsage=critical,keyCertSign,cRLSign", differences)
        for name, (subject, issuer, differences) in SERVERS.items():
            names = differences.get("names", LOCAL_NAMES)
            self._issue(name, subject, issuer, self._leaf_extensions("serverAuth", differences) +
                        (f"\nsubjectAltName={names}" if names else ""), differences)
        for name, (subject, issuer, differences) in DEVICES.items():
            self._issue(name, subject, issuer, self._leaf_extensions("clientAuth", differences), differences)

    @staticmethod
    def _leaf_extensions(usage, differences):
        also_ca = differences.get("also_ca", False)
        usage = differences.get("usage", usage)
        return (f"basicConstraints=critical,CA:{'TRUE' if also_ca else 'FALSE'}\n"
                f"keyUsage=critical,digitalSignature{',keyCertSign' if also_ca else ''}\n" +
                (f"extendedKeyUsage={usage}" if usage else ""))

    def _issue(self, name, subject, issuer, extensions, differences):
        kind = differences.get("key", "P-256")
        if "same_key_as" in differences:
            self.key(name).write_bytes(self.key(differences["same_key_as"]).read_bytes())
            key_options = ["-key", self.key(name)]
        else:
            new_key = {"RSA": ["rsa:2048"], "RSA-1024": ["rsa:1024"]}.get(
                kind, ["ec", "-pkeyopt", f"ec_paramgen_curve:{kind}"])
            key_options = ["-newkey", *new_key, "-nodes", "-keyout", self.key(name)]
        # Long enough ago that a certificate which ends yesterday was valid once.
        start, end = differences.get("start", -30), differences.get("end", 30)
        with tempfile.TemporaryDirectory() as scratch:
            scratch = Path(scratch)
            (scratch / "index.txt").touch()
            config = scratch / "openssl.cnf"
            config.write_text(CA_CONFIG.format(scratch=scratch, extensions=extensions), encoding="ascii")
            openssl("req", "-new", *key_options, "-subj", f"/CN={subject}", "-out", scratch / "request")
            signer = ["-cert", self.leaf(issuer)] if issuer else ["-selfsign"]
            openssl("ca", "-batch", "-notext", "-config", config, "-extensions", "extensions", *signer,
                    "-keyfile", self.key(issuer or name), "-startdate", timestamp(start),
                    "-enddate", timestamp(end), "-in", scratch / "request", "-out", self.leaf(name))
        self._write_chain(name, issuer)

    def _write_chain(self, name, issuer):
        # The tables list every issuer before what it issued, so its own files are there.
        chain = self.leaf(name).read_bytes()
        if issuer and AUTHORITIES[issuer][1]:
            chain += self.leaf(issuer).read_bytes()
        self.chain(name).write_bytes(chain)
        root = issuer
        while root and AUTHORITIES[root][1]:
            root = AUTHORITIES[root][1]
        self.bundle(name).write_bytes(chain + (self.leaf(root).read_bytes() if root else b""))
