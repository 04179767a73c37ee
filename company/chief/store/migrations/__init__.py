"""Alembic's folder: one file per schema revision in ``versions``. Imported only for a database with an older schema."""
