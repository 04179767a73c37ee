"""A chief's contracts with other companies: the driver of `p2p.contracts.book`, its journals, its commands."""
