"""Slots of the shared page beyond those of `wire`: how the parent finds the guilty fragment's last lines (pure).

A fragment that prints nothing must not be shown its neighbour's lines, and raw writes of C code are known only by where
our own ended.
"""

PAGE_LOG_INDEX = 5  # the fragment that printed last; PAGE_LOGGED is where its lines begin
PAGE_LOG_END = 6  # where the last line of ours ended; behind it lies what C code wrote
PAGE_STAGE = 7  # how far the child has come:
STAGE_NONE, STAGE_BOOTED, STAGE_LOADED = 0, 1, 2
PAGE_SPAN = 8  # of how many fragments, from the page's index on, one is being run; 0: of that one
PAGE_SLOTS = 9
