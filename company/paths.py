"""Where everything lies: $COMPANY_HOME and its three subtrees, which share nothing (I/O only in `make_private`).

The command line imports this for every command, so it imports nothing heavy; platformdirs comes only when neither ``--home``
nor ``$COMPANY_HOME`` says where.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from p2p.base.errors import UsageError
from p2p.base.record import record

ROOT_HOME = "/var/lib/company"  # for uid 0: a system service has no use for a user's data directory
KEPT_ENVIRONMENTS = "COMPANY_ENVIRONMENTS"
MAX_NAME_CHARS = 100
OWN_NAME = "local"  # of the worker that a chief runs itself
_NAME_CHARS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


def make_private(directory: Path) -> Path:
    """Create ``directory`` (and parents), the last one with mode 0700 whatever the umask says; return it."""
    return _make(directory, 0o700)


def make_passable(directory: Path) -> Path:
    """The same with mode 0711: a sandbox's uid, for which it is bound elsewhere, may reach what it knows by name.

    Nobody else can: the subtree's root above it is 0700.
    """
    return _make(directory, 0o711)


def _make(directory: Path, mode: int) -> Path:
    directory.mkdir(mode=mode, parents=True, exist_ok=True)
    if directory.stat().st_mode & 0o777 != mode:
        directory.chmod(mode)
    return directory


def check_name(name: str, what: str) -> str:
    """Return ``name`` when it can be one path component. Raises `UsageError`."""
    if not name or len(name) > MAX_NAME_CHARS or not _NAME_CHARS.issuperset(name) or name.startswith("."):
        raise UsageError(
            "bad-name", f"{what} must be 1..{MAX_NAME_CHARS} of a-z A-Z 0-9 . _ - and not begin with a dot, got {name[:120]!r}"
        )
    return name


@record
class JobDirs:
    """The directories of one job."""

    root: Path

    @property
    def fragments(self) -> Path:
        return self.root / "fragments"

    @property
    def results(self) -> Path:
        return self.root / "results"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def artifacts(self) -> Path:
        return self.root / "artifacts"

    @property
    def output(self) -> Path:
        return self.root / "output"

    def create(self) -> JobDirs:
        """Make all of them."""
        make_passable(self.root)
        make_passable(self.fragments)
        make_passable(self.output)
        for path in (self.results, self.logs, self.artifacts):
            make_private(path)
        return self


@record
class ChiefHome:
    """The chief's subtree."""

    root: Path

    @property
    def identity(self) -> Path:
        return self.root / "identity"

    @property
    def database(self) -> Path:
        return self.root / "company.sqlite"

    @property
    def packages(self) -> Path:
        return self.root / "packages"

    @property
    def datasets(self) -> Path:
        return self.root / "datasets"

    @property
    def jobs(self) -> Path:
        return self.root / "jobs"

    @property
    def blanks(self) -> Path:
        return self.root / "blanks"

    @property
    def uploads(self) -> Path:
        return self.root / "uploads"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def environments(self) -> Path:
        """What packages require, for their split and merge."""
        return self.cache / "environments"

    @property
    def staged(self) -> tuple[Path, ...]:
        """Folders whose contents sandboxed children may see."""
        return self.datasets, self.jobs, self.blanks, self.environments

    @property
    def scratch(self) -> Path:
        return self.root / "scratch"

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def address_file(self) -> Path:
        """0600 JSON of the running chief: http, rpc, dht, token, pid, started."""
        return self.run / "address.json"

    @property
    def socket(self) -> Path:
        """Where the chief's own worker reaches it without TLS (`p2p.net.local`); 0600."""
        return self.run / "rpc.sock"

    def job(self, job_id: str) -> JobDirs:
        """The directories of one job; not created here."""
        return JobDirs(self.jobs / check_name(job_id, "job id"))

    def create(self) -> ChiefHome:
        """Make every directory. The root is private to this user, and so is all below it."""
        make_private(self.root)
        for path in (self.identity, self.uploads, self.cache, self.run):
            make_private(path)
        for path in (self.packages, self.datasets, self.jobs, self.scratch):
            make_passable(path)
        return self


@record
class WorkerHome:
    """One worker's subtree."""

    root: Path

    @property
    def identity(self) -> Path:
        return self.root / "identity"

    @property
    def packages(self) -> Path:
        return self.root / "packages"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def environments(self) -> Path:
        """What packages require; ``$COMPANY_ENVIRONMENTS`` is where `company.local()` keeps it from one company to the next."""
        return Path(os.environ.get(KEPT_ENVIRONMENTS) or self.cache / "environments")

    @property
    def scratch(self) -> Path:
        return self.root / "scratch"

    @property
    def run(self) -> Path:
        return self.root / "run"

    def create(self) -> WorkerHome:
        """Make every directory. The root is private to this user, and so is all below it."""
        make_private(self.root)
        for path in (self.identity, self.cache, self.run):
            make_private(path)
        for path in (self.packages, self.scratch):
            make_passable(path)
        return self


@record
class Home:
    """One $COMPANY_HOME. Nothing is created until a subtree's ``create`` is called."""

    root: Path

    @classmethod
    def locate(cls, given: str | os.PathLike[str] | None = None, environ: Mapping[str, str] | None = None) -> Home:
        """``--home``, else $COMPANY_HOME, else the platform's data directory (uid 0: /var/lib/company); always absolute."""
        environ = os.environ if environ is None else environ
        chosen = os.fspath(given) if given is not None else environ.get("COMPANY_HOME", "")
        if given is not None and not chosen:
            raise UsageError("bad-home", "--home must not be empty")
        if not chosen:
            chosen = _platform_home()
        return cls(Path(os.path.abspath(os.path.expanduser(chosen))))

    @property
    def chief(self) -> ChiefHome:
        return ChiefHome(self.root / "chief")

    @property
    def client(self) -> Path:
        return self.root / "client"

    @property
    def workers(self) -> Path:
        return self.root / "workers"

    def worker(self, name: str) -> WorkerHome:
        """The subtree of the worker called ``name``. Raises `UsageError` for a name that is no path component."""
        return WorkerHome(self.workers / check_name(name, "worker name"))


def _platform_home() -> str:
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        return ROOT_HOME
    import platformdirs

    return platformdirs.user_data_dir("company", appauthor=False)


def is_plain_file_name(name: str) -> bool:
    """Whether this is one file name of ordinary characters, at most 200 bytes: what an artifact may be called."""
    size = len(name.encode("utf-8", "replace"))
    return 0 < size <= 200 and name.isprintable() and not set(name) & set("/\\:") and not name.startswith(".")
