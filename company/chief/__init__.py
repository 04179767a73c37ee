"""The chief: takes jobs, cuts, sends, survives, merges, serves."""
