"""Contract path 5/8 - what happens once a contract is signed: workers are lent and borrowed, checked, counted, withdrawn (pure and I/O)."""
