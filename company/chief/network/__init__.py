"""The chief among other companies: what it offers, whom it finds, how others reach it."""
