"""What a static program must not do: see the comment in src/system/resolve.c."""

import subprocess

import pytest

from client import PROGRAM, WRAPPER, environment

pytestmark = pytest.mark.smoke

TRAP = """
#include <stdlib.h>
__attribute__((constructor)) static void loaded(void) { abort(); }
"""


def is_static():
    """Whether the program is, and a module built here fits it."""
    described = subprocess.run(["readelf", "-l", PROGRAM], capture_output=True, text=True, check=True).stdout
    return not WRAPPER and "INTERP" not in described


def can_mount():
    """Whether files can be put in the place of the machine's, for one process."""
    return subprocess.run(["unshare", "--mount", "--map-root-user", "true"], capture_output=True,
                          check=False).returncode == 0


@pytest.mark.skipif(not is_static(), reason="for static programs of this machine's own kind")
@pytest.mark.skipif(not can_mount(), reason="no mount namespaces here")
def test_a_look_up_loads_no_module_of_the_name_service(inboxd, credentials, tmp_path):
    """As Raspberry Pi OS names one (mDNS) in /etc/nsswitch.conf."""
    (tmp_path / "trap.c").write_text(TRAP, encoding="ascii")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", tmp_path / "libnss_trap.so.2", tmp_path / "trap.c"],
                   check=True)
    (tmp_path / "nsswitch.conf").write_text("hosts: trap files dns\n", encoding="ascii")
    (tmp_path / "hosts").write_text("127.0.0.1 localhost\n", encoding="ascii")
    server = inboxd()
    done = subprocess.run(
        ["unshare", "--mount", "--map-root-user", "sh", "-c",
         f"for file in nsswitch.conf hosts; do mount --bind {tmp_path}/$file /etc/$file || exit; done; exec \"$@\"",
         "-", PROGRAM,
         "--timeout", "10", "--server", server.named("localhost"), *credentials, "--wait", "0", "x"],
        env=environment({"LD_LIBRARY_PATH": str(tmp_path)}), capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    server.wait_for_payloads(b"x")
