"""A real object store that speaks S3: OpenStack Swift with its s3api, all four servers of it on
this host, in a folder that is the test's.

    /usr/bin/python3 server.py FOLDER PORT [tls]

Accounts are of tempauth: the access key is `test:tester`, the secret `testing`; `test:reader` with the
secret `reading` may do nothing. Buckets are made by whoever uses it. It ends with its parent, or when its
standard input is closed; started again in the same folder, what was written is there. With `tls` it speaks TLS alone, by a
certificate of its own, FOLDER/cert.pem, for 127.0.0.1."""

import ctypes
import os
import signal
import sys

from swift.common import utils

PR_SET_PDEATHSIG = 1


def conf(folder, name, port, pipeline, sections, more=""):
    path = os.path.join(folder, name + ".conf")
    user = __import__("pwd").getpwuid(os.getuid()).pw_name
    with open(path, "w") as out:
        out.write(
            f"[DEFAULT]\nbind_ip = 127.0.0.1\nbind_port = {port}\nworkers = 0\nuser = {user}\n"
            f"swift_dir = {folder}\ndevices = {folder}/node\nmount_check = false\n"
            f"log_level = ERROR\nlog_address = {folder}/log\n{more}\n[pipeline:main]\npipeline = {pipeline}\n"
        )
        for section, text in sections.items():
            out.write(f"\n[{section}]\n{text}")
    return path


def rings(folder, ports):
    """One device, one replica, one partition of each."""
    from swift.common.ring import RingBuilder

    for name, port in ports.items():
        builder = RingBuilder(0, 1, 0)
        builder.add_dev(
            {
                "id": 0,
                "region": 1,
                "zone": 1,
                "weight": 1,
                "ip": "127.0.0.1",
                "port": port,
                "device": "d1",
            }
        )
        builder.rebalance()
        builder.get_ring().save(os.path.join(folder, name + ".ring.gz"))


def certificate(folder):
    """Makes one, and gives what Swift is to know of it."""
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "kcap's tests")])
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    now = datetime.datetime.utcnow()
    day = datetime.timedelta(days=1)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    cert, secret = os.path.join(folder, "cert.pem"), os.path.join(folder, "key.pem")
    with open(cert, "wb") as out:
        out.write(made.public_bytes(serialization.Encoding.PEM))
    with open(secret, "wb") as out:
        out.write(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
    return f"cert_file = {cert}\nkey_file = {secret}\n"


def serve(path, section):
    """Runs one server in a child of this process's that ends with it."""
    pid = os.fork()
    if pid:
        return pid
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    from swift.common.wsgi import run_wsgi

    sys.exit(run_wsgi(path, section))


def main():
    folder, port = os.path.abspath(sys.argv[1]), int(sys.argv[2])
    os.makedirs(os.path.join(folder, "node", "d1"), exist_ok=True)
    with open(os.path.join(folder, "swift.conf"), "w") as out:
        out.write("[swift-hash]\nswift_hash_path_suffix = kcap\nswift_hash_path_prefix = kcap\n")
    utils.set_swift_dir(folder)
    ports = {"account": port + 1, "container": port + 2, "object": port + 3}
    rings(folder, ports)
    pids = [
        serve(
            conf(
                folder,
                name,
                ports[name],
                f"{name}-server",
                {f"app:{name}-server": f"use = egg:swift#{name}\n"},
            ),
            f"{name}-server",
        )
        for name in ports
    ]
    filters = {
        "filter:catch_errors": "use = egg:swift#catch_errors\n",
        # Tempauth asks for one; S3's requests need none.
        "filter:cache": "use = egg:swift#memcache\nmemcache_servers = 127.0.0.1:1\n",
        "filter:s3api": "use = egg:swift#s3api\ns3_acl = false\nlocation = us-east-1\n",
        "filter:tempauth": "use = egg:swift#tempauth\n"
        "user_test_tester = testing .admin\nuser_test_reader = reading\n",
        "app:proxy-server": "use = egg:swift#proxy\nallow_account_management = true\n"
        "account_autocreate = true\n",
    }
    pipeline = "catch_errors cache s3api tempauth proxy-server"
    tls = certificate(folder) if sys.argv[3:] == ["tls"] else ""
    proxy = conf(folder, "proxy-server", port, pipeline, filters, tls)
    pids.append(serve(proxy, "proxy-server"))

    def end(*_):
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
                # Nobody answers once this is over.
                os.waitpid(pid, 0)
            except (ProcessLookupError, ChildProcessError):
                pass
        os._exit(0)

    signal.signal(signal.SIGTERM, end)
    sys.stdin.buffer.read()
    end()


main()
