"""The discrete-event simulator of this network; it drives the shipped machines of `p2p` and `company` (issue 6 builds it)."""
