"""The line that an administrator copies to a second machine: fetch and run the chief's installer over a pinned channel (pure).

Only Python's standard library is there. The line opens TLS 1.3 to the chief's RPC port, walks the certificate (DER) to its public
key and goes on only if that is the chief's; searching the bytes for the key would not do, because a forged certificate may carry
the chief's key in its subject. Tags must be the expected single bytes and lengths definite: OpenSSL also reads BER, and a walk that
disagreed with it could be led to another place. TLS itself proves that the server holds the key that stands in the right place.
"""

from __future__ import annotations

from p2p.base.errors import UsageError

_SPKI_PREFIX = "302a300506032b6570032100"  # RFC 8410: SubjectPublicKeyInfo of Ed25519, up to the 32 bytes of the key

# n(i, t): (start, end) of the content of the DER element at i, which must have tag t. Certificate > TBSCertificate > [0] version?,
# serial, algorithm, issuer, validity, subject, then the key. No "!", "$", backtick or double quote: it must survive a shell's
# double quotes, and cmd.exe's.
_LINE = (
    "import ssl,socket,sys;"
    "c=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT);c.check_hostname=False;c.verify_mode=ssl.CERT_NONE;c.minimum_version=ssl.TLSVersion.TLSv1_3;"
    "s=c.wrap_socket(socket.create_connection(('@HOST@',@PORT@),30));d=s.getpeercert(True);"
    "q=lambda:sys.exit('This is not the chief that made this line. Nothing was installed.');"
    "l=lambda i,k:(i+2+k,i+2+k+(int.from_bytes(d[i+2:i+2+k],'big') if k else d[i+1]));"
    "n=lambda i,t:l(i,max(0,d[i+1]-128)) if d[i]==t and d[i+1]-128 else q();"
    "i=n(n(0,48)[0],48)[0];i=n(i,160)[1] if d[i]==160 else i;i=[i:=n(i,t)[1] for t in (2,48,48,48,48)][4];"
    "d[i:i+44].hex()=='@SPKI@' or q();"
    "s.sendall(b'GET /install.py HTTP/1.1\\r\\n\\r\\n');b=s.makefile('rb').read().partition(b'\\r\\n\\r\\n')[2];"
    "exec(b,{'__name__':'install','CHIEF':('@HOST@',@PORT@),'KEY':'@KEY@','ARGV':sys.argv[1:]})"
)


def install_line(key: bytes, host: str, port: int, *, python: str = "python3", arguments: str = "") -> str:
    """The command for the other machine. ``key``: the chief's 32-byte public key; ``arguments``: for install_remote.py.

    Raises `UsageError` for a host that is none.
    """
    if len(key) != 32 or not host or not all(c.isascii() and (c.isalnum() or c in ".-:_") for c in host) or not 0 < port < 65536:
        raise UsageError("bad-address", f"{host[:100]!r}:{port} with a key of {len(key)} bytes is no address of a chief")
    code = _LINE
    for mark, text in (("@HOST@", host), ("@PORT@", str(port)), ("@SPKI@", _SPKI_PREFIX + key.hex()), ("@KEY@", key.hex())):
        code = code.replace(mark, text)
    return f'{python} -c "{code}"' + (f" {arguments}" if arguments else "")


def install_script(fingerprint_hex: str, address: str, python_tag: str = "python3") -> str:
    """`install_line` from texts: the key in hex and "host:port"."""
    host, _, port = address.rpartition(":")
    try:
        key, number = bytes.fromhex(fingerprint_hex), int(port)
    except ValueError:
        raise UsageError("bad-address", f"{address[:100]!r} and {fingerprint_hex[:80]!r} are no address and key of a chief") from None
    return install_line(key, host.strip("[]"), number, python=python_tag)
