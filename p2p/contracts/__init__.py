"""Contracts between companies: signed messages, the one machine of both sides, the book, receipts, offline verification (pure)."""
