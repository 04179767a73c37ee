"""A package on this machine as the zip that is uploaded, signed with the client's own key (I/O).

Checked here first, with the same code that the chief uses, so that a fault is found before anything travels.
"""

from __future__ import annotations

from pathlib import Path

from company.package import PackageInfo, archive_of, check_package, claim_of, read_package, sign_package
from p2p.base.record import record

_ENDINGS = (".zip", ".tar", ".tgz", ".tar.gz")


@record
class Bundle:
    """A checked package ready to travel. ``name``: what it is called where package.toml gives no name."""

    name: str
    content: bytes
    info: PackageInfo

    def signature_headers(self, key_file: Path) -> dict[str, str]:
        """The signature by the key in ``key_file``, which is made on first use."""
        from p2p.net.identity_file import load_or_create_identity

        identity = load_or_create_identity(key_file)
        return {"Company-Signer": identity.public.hex(), "Company-Signature": sign_package(identity, claim_of(self.info)).hex()}


def bundle_of(path: Path, name: str | None = None) -> Bundle:
    """Read, check and pack a package directory or archive. Raises what `company.package` raises for a faulty one."""
    found = read_package(path)
    called = name or path.resolve().name
    for ending in _ENDINGS if name is None and path.is_file() else ():
        called = called.removesuffix(ending)
    return Bundle(called, archive_of(found.files), check_package(found.files, default_name=called, warnings=found.warnings))
