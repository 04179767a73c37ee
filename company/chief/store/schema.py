"""The tables (pure). Rows are the only truth: what is not here, or in a file that a row names, did not happen.

Times are Unix seconds as float, digests are raw bytes, job and worker ids are text. Nothing is stored per fragment except
exceptions (`failure`). The same metadata is meant for PostgreSQL later, so: no SQLite-only types.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)  # fmt: skip

REVISIONS = (
    "0001",
    "0002",
)  # every schema there ever was, oldest first; the last is what `metadata` says. One file each in migrations/versions
MAX_INPUT_BYTES = 1 << 20  # of a failed fragment's input kept in its row; larger ones lie in jobs/<id>/fragments

metadata = MetaData()


def _of_job() -> Column[str]:
    return Column("job", Text, ForeignKey("job.id", ondelete="CASCADE"), primary_key=True)


meta = Table("meta", metadata, Column("key", Text, primary_key=True), Column("value", LargeBinary, nullable=False))

principal = Table(
    "principal", metadata,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("pubkey", LargeBinary),
    Column("created", Float, nullable=False),
    Column("revoked", Float),
)  # fmt: skip

token = Table(
    "token", metadata,
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),  # join | access | login | session
    Column("secret_hash", LargeBinary, nullable=False),
    Column("role", Text, nullable=False),
    Column("label", Text, nullable=False),
    Column("principal", Text),
    Column("created", Float, nullable=False),
    Column("created_by", Text, nullable=False),
    Column("expires", Float),
    Column("uses_left", Integer),
    Column("revoked", Float),
    Column("last_used", Float),
)  # fmt: skip

worker = Table(
    "worker", metadata,
    Column("id", Text, primary_key=True),
    Column("pubkey", LargeBinary, nullable=False),
    Column("name", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", LargeBinary),
    Column("machine", LargeBinary, nullable=False),
    Column("rate", Float),
    Column("rate_n", Integer, nullable=False),
    Column("suspicions", Integer, nullable=False),
    Column("transport", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("via", Text),
    Column("joined", Float, nullable=False),
    Column("last_seen", Float, nullable=False),
    UniqueConstraint("pubkey"),
)  # fmt: skip

package = Table(
    "package", metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("name", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("processor", LargeBinary, nullable=False),
    Column("manifest", LargeBinary, nullable=False),
    Column("signer", LargeBinary, nullable=False),
    Column("signature", LargeBinary, nullable=False),
    Column("signed_for", Text, nullable=False),
    Column("uploaded", Float, nullable=False),
    Column("uploaded_by", Text, nullable=False),
    Index("package_processor", "processor"),
)  # fmt: skip

dataset = Table(
    "dataset", metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("kind", Text, nullable=False),  # file | tree
    Column("name", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("files", Integer, nullable=False),
    Column("manifest_digest", LargeBinary),
    Column("private", Boolean, nullable=False),
    Column("uploaded", Float, nullable=False),
    Column("uploaded_by", Text, nullable=False),
)  # fmt: skip

upload = Table(
    "upload", metadata,
    Column("id", Text, primary_key=True),
    Column("principal", Text, nullable=False),
    Column("meta", LargeBinary, nullable=False),
    Column("length", BigInteger),
    Column("offset", BigInteger, nullable=False),
    Column("created", Float, nullable=False),
    Column("expires", Float, nullable=False),
    Column("made", Text),  # what it became, or why it was refused: JSON
)  # fmt: skip

job = Table(
    "job", metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("package", LargeBinary, ForeignKey("package.digest"), nullable=False),
    Column("dataset", LargeBinary, ForeignKey("dataset.digest"), nullable=False),
    Column("owner", Text, nullable=False),
    Column("params", LargeBinary, nullable=False),
    Column("options", LargeBinary, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("paused", Boolean, nullable=False),
    Column("reason", LargeBinary),
    Column("created", Float, nullable=False),
    Column("started", Float),
    Column("first_result", Float),
    Column("finished", Float),
    Column("fragments_total", BigInteger),
    Column("split_digest", LargeBinary),
    Column("split_runs", Integer, nullable=False),
    Column("merge_attempt", Integer, nullable=False),
    Column("cpu_us", BigInteger, nullable=False),
    Column("result_name", Text),
    Column("result_size", BigInteger),
    Column("result_digest", LargeBinary),
    Index("job_package", "package"),
    Index("job_dataset", "dataset"),
)  # fmt: skip

outcome = Table(
    "outcome", metadata,
    _of_job(),
    Column("first", BigInteger, primary_key=True),
    Column("count", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("token", BigInteger, nullable=False),
    Column("worker", Text, nullable=False),
    Column("segment", Integer, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("length", BigInteger, nullable=False),
    Column("input_digest", LargeBinary, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("run_us", BigInteger, nullable=False),
    Column("cpu_us", BigInteger, nullable=False),
    Column("at", Float, nullable=False),
    Column("log_offset", BigInteger),
    Column("log_len", Integer, nullable=False),
    sqlite_with_rowid=False,
)  # fmt: skip

failure = Table(
    "failure", metadata,
    _of_job(),
    Column("fragment", BigInteger, primary_key=True),
    Column("tries", Integer, nullable=False),
    Column("infra_tries", Integer, nullable=False),
    Column("final", Boolean, nullable=False),
    Column("cause", Text, nullable=False),
    Column("exc_type", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("traceback", Text, nullable=False),
    Column("signal", Integer, nullable=False),
    Column("exit_code", Integer, nullable=False),
    Column("log_tail", LargeBinary, nullable=False),
    Column("preview", Text, nullable=False),
    Column("worker", Text, nullable=False),
    Column("at", Float, nullable=False),
    Column("input_file", Text),
    Column("input", LargeBinary),  # last: reading the columns before it does not touch its overflow pages
)  # fmt: skip

artifact = Table(
    "artifact", metadata,
    _of_job(),
    Column("fragment", BigInteger, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("digest", LargeBinary, nullable=False),
)  # fmt: skip

# Only leases older than 5 s: after a restart their ranges are held back for the grace, so that a nine-minute fragment is not run twice.
lease = Table(
    "lease", metadata,
    Column("token", BigInteger, primary_key=True, autoincrement=False),
    Column("job", Text, ForeignKey("job.id", ondelete="CASCADE"), nullable=False),
    Column("first", BigInteger, nullable=False),
    Column("count", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("worker", Text, nullable=False),
    Column("slot", Integer, nullable=False),
    Column("at", Float, nullable=False),
    Index("lease_job", "job"),
)  # fmt: skip

# ``ordinal`` counts within a job, so that keeping the newest n is a range delete and not a count.
story = Table(
    "story", metadata,
    _of_job(),
    Column("ordinal", BigInteger, primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("at", Float, nullable=False),
    Column("kind", Text, nullable=False),
    Column("cause_seq", BigInteger),
    Column("body", LargeBinary, nullable=False),
    Index("story_seq", "seq"),
    sqlite_with_rowid=False,
)  # fmt: skip

# Contracts with other companies: journals are appended to and never changed, and kept for ever.
contract = Table(
    "contract", metadata,
    Column("peer", LargeBinary, primary_key=True),
    Column("nonce", LargeBinary, primary_key=True),
    Column("role", Integer, nullable=False),
    Column("is_over", Boolean, nullable=False),
    Column("offer_expires", BigInteger, nullable=False),
)  # fmt: skip

contract_record = Table(
    "contract_record", metadata,
    Column("peer", LargeBinary, primary_key=True),
    Column("nonce", LargeBinary, primary_key=True),
    Column("ordinal", Integer, primary_key=True),
    Column("record", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)  # fmt: skip

receipt_half = Table(
    "receipt_half", metadata,
    Column("author", LargeBinary, primary_key=True),
    Column("chain_sequence", BigInteger, primary_key=True),
    Column("contract", LargeBinary, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("signature", LargeBinary, nullable=False),
    UniqueConstraint("author", "contract"),
)  # fmt: skip

fork_proof = Table(
    "fork_proof", metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("author", LargeBinary, nullable=False),
    Column("proof", LargeBinary, nullable=False),
)  # fmt: skip
