"""Message codes on the pipes between a daemon and its sandboxed child (pure; copied into the sandbox, imports nothing).

Every message is a frame (`p2p.base.frames`): header array first, then byte strings. Indices are the job's fragment numbers.

Parent to child
    LOAD     [role, options]           items: params (codec), then path, content, path, content, … of the package's files
                                       role "split" | "process" | "merge"; options: map (data, output, preview_bytes, flush_us …)
    RUN      [token, first, blobs, quick?]  items: fragments (codec). blobs: [[offset in this batch, size], …], their items are empty;
                                       quick: where fragments are tiny the page may name a few hundred at a time, not the one that runs
    RESULTS  [first, blobs]            items: results in fragment order, failed ones left out (merge only)
    END      []                        no more RESULTS (merge), or: leave
    CHUNK    [blob, last]              one item: the next bytes of blob number ``blob`` (0, 1, … per following message)
Child to parent
    READY    [functions, python]       the package is imported; names found among split count process merge same
    COUNT    [total | nil]             split only, right after READY: what count(data) said
    FRAGS    [first, costs | nil, blobs]   items: fragments; costs: list of float, one per fragment
    SPLIT_END [total]
    OUTCOME  [token, first, count, last, run_us, cpu_us, peak_bytes, log_dropped, blobs]
             items: status u8[count] (0 ok, 1 raised), duration_us u32[count], logs, then ``count`` results (codec);
             a failed fragment's item is codec({"type", "message", "traceback", "preview"})
             logs: msgpack arrays [index, stream 1|2, bytes] one after the other
    FAILED   [where, type, message, traceback]   where: "load" | "split" | "count" | "merge"; the child can do no more
    STATUS   [token, index, text, fraction | nil]
    ARTIFACT [token, index, name, last]          one item: the next bytes
    MERGED   [has_value]                         one item: codec(value); files lie in the output directory
Shared page (u64 each): index being run, token, started at (CLOCK_MONOTONIC ns), bytes logged before this fragment,
1 = in user code; more of them in `page_slots`.
"""

LOAD, RUN, RESULTS, END, CHUNK = 1, 2, 3, 4, 5
READY, COUNT, FRAGS, SPLIT_END, OUTCOME, FAILED, STATUS, ARTIFACT, MERGED = 16, 17, 18, 19, 20, 21, 22, 23, 24

FD_IN, FD_OUT, FD_PAGE, FD_LOG = 3, 4, 5, 6
PAGE_BYTES = 4096
PAGE_INDEX, PAGE_TOKEN, PAGE_STARTED_NS, PAGE_LOGGED, PAGE_IN_USER = range(5)
LOG_BYTES = 1 << 20
FLUSH_BYTES = 1 << 20
FLUSH_US = 250_000
INLINE_BYTES = 4 << 20  # one fragment or result larger than this travels as CHUNKs
STATUS_OK, STATUS_RAISED = 0, 1
