"""The first schema. Databases begin with it (made from the metadata), so there is nothing to do: it is the root of the chain."""

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Nothing is older."""
