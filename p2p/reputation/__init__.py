"""What a chief makes of receipts: trust, limits, order, favours, and how foreign results are checked (pure)."""
