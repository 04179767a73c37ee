"""Contracts with other companies: journals, receipt halves, proofs of forks."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Four tables; nothing that was there changes."""
    op.create_table(
        "contract",
        sa.Column("peer", sa.LargeBinary, primary_key=True),
        sa.Column("nonce", sa.LargeBinary, primary_key=True),
        sa.Column("role", sa.Integer, nullable=False),
        sa.Column("is_over", sa.Boolean, nullable=False),
        sa.Column("offer_expires", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "contract_record",
        sa.Column("peer", sa.LargeBinary, primary_key=True),
        sa.Column("nonce", sa.LargeBinary, primary_key=True),
        sa.Column("ordinal", sa.Integer, primary_key=True),
        sa.Column("record", sa.LargeBinary, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "receipt_half",
        sa.Column("author", sa.LargeBinary, primary_key=True),
        sa.Column("chain_sequence", sa.BigInteger, primary_key=True),
        sa.Column("contract", sa.LargeBinary, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("signature", sa.LargeBinary, nullable=False),
        sa.UniqueConstraint("author", "contract"),
    )
    op.create_table(
        "fork_proof",
        sa.Column("digest", sa.LargeBinary, primary_key=True),
        sa.Column("author", sa.LargeBinary, nullable=False),
        sa.Column("proof", sa.LargeBinary, nullable=False),
    )
