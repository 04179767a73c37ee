"""What `tests.faults.breaks` breaks: a promise, the place in the code that keeps it, and the tests that must notice (pure)."""

# ruff: noqa: E501 - texts of other files, as they stand there
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

CRASH = "tests/faults/test_every_commit_point.py::test_a_chief_killed_there_goes_on"
BAD = "tests/e2e/test_bad_modules.py"
FAILS = "tests/e2e/test_company_failures.py"
HOSTILE = "tests/e2e/test_hostile_bytes.py"
DOOR = f"{HOSTILE}::test_what_is_refused_at_the_door_is_a_problem_and_is_logged"
REFUSED = "tests/e2e/test_escapes_refused.py::test_an_escape_is_refused_by_the_layer_that_is_meant_to"
ABLATED = "tests/e2e/test_escapes_refused.py::test_without_a_layer_just_those_escapes_succeed_that_nothing_else_stops"
ENDED = "tests/e2e/test_escapes_ended.py"
OUTPUT = "tests/e2e/test_escapes_output.py"
CHAOS = "tests/properties/test_chief_machine.py"
STATES = "tests/properties/test_chief_states.py"
MARKETS = "tests/unit/test_simulator_market.py"
ATTACKS = "tests/unit/test_simulator_attacks.py"


@dataclass(frozen=True, slots=True)
class Break:
    """One place, and who must notice."""

    promise: str
    what: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    environ: Mapping[str, str] = field(default_factory=dict)


FULL = {"FAULTS_FULL": "1"}
ACK = "self._committer.add(pieces=pieces, ops=ops, then=acknowledge)"
POP = '    def split_failed(self, event: ev.SplitFailed, now: Monotonic) -> list[ev.Effect]:\n        job = self._books.job(event.job)\n        return [] if job is None else self.end(job, "failed", event.reason, now)'

JOBS = (
    Break(
        "kill -9 of the chief", "a result is acknowledged before it is on disk", "company/chief/engine.py", ACK,
        "acknowledge()\n            self._committer.add(pieces=pieces, ops=ops)",
        (f"{CRASH}[segment-half-written]",), FULL,
    ),
    Break(
        "kill -9 of the chief", "the machine counts what is not committed as done after a restart", "company/chief/commit.py",
        "await self._store.write(partial(_insert, rows), *group.ops)", "await self._store.write(*group.ops)", (f"{CRASH}[merge-after-result]",),
    ),
    Break(
        "kill -9 of the chief", "tokens begin at the same number after every start", "company/chief/leases.py",
        "self._last_token = boot << COUNTER_BITS\n", "self._last_token = 1 << COUNTER_BITS\n        boot = 1\n", (STATES + "::TestCompany",),
    ),
    Break(
        "no fragment's result counts twice", "a result that is there already is taken again", "company/chief/verdicts.py",
        "fresh = [part for first, count in event.ok for part in job.unsettled(first, count)]", "fresh = list(event.ok)",
        (CHAOS,),
    ),
    Break(
        "no slot is locked by nobody", "what a worker held stays locked past the grace", "company/chief/presence.py",
        "                    books.give_back(lease, now)\n                books.slots.lost(worker, now)", "                    pass\n                books.slots.lost(worker, now)",
        ("tests/unit/test_chief_workers.py::test_what_a_worker_held_alone_is_unlocked_when_its_grace_is_over",),
    ),
    Break(
        "a split that differs", "results of before a restart are not compared with what split yields now", "company/chief/engine.py",
        'return "same" if found == message.input_digest else "differs"', 'return "same"', ("tests/unit/test_engine_old_results.py",),
    ),
    Break(
        "a split that differs", "rows of before a restart are not compared with what split yields now", "company/chief/splitting.py",
        "            if digest != range_digest(window_sizes,", "            if False and digest != range_digest(window_sizes,",
        (f"{BAD}::test_a_split_that_yields_something_else_once_gives_the_results_of_one_run",),
    ),
    Break(
        "a split that differs", "a job starts over as often as it likes", "company/chief/lifecycle.py", "        if job.restarts >= 1:\n",
        "        if job.restarts >= 9:\n", (f"{BAD}::test_a_split_that_differs_each_time_starts_over_once_and_then_fails",),
    ),
    Break(
        "long fragments and uneven durations", "copies cost what they like", "company/chief/tail.py",
        "return job.copied_us + sum(running) + cost_us <= BACKUP_SHARE * job.run_us", "return True",
        ("tests/unit/test_chief_pace.py::test_many_late_fragments_and_many_idle_slots_cost_few_copies_too",),
    ),
    Break(
        "long fragments and uneven durations", "a late copy is not withdrawn", "company/chief/tail.py",
        "            return self._withdraw(lease, note, now)", "            return []",
        ("tests/unit/test_chief_pace.py::test_a_fragment_fifty_times_as_long_is_not_chased_round_the_company",),
    ),
    Break(
        "a lost worker", "what it held is not run elsewhere", "company/chief/presence.py", "                effects += self._leave_behind(lease, now)",
        "                books.orphans.add(lease.token)", ("tests/e2e/test_cut_off_workers.py::test_what_a_stopped_worker_held_runs_elsewhere_and_it_comes_back_within_the_grace",),
    ),
    Break(
        "a lost worker", "one that is back within the grace is told to drop what it has", "company/chief/presence.py",
        "        held = books.leases.adopt(", "        return \"unknown-token\"\n        held = books.leases.adopt(",
        ("tests/unit/test_chief_workers.py::test_a_worker_back_within_the_grace_keeps_its_lease_though_it_runs_elsewhere",),
    ),
    Break(
        "a lost worker", "a late answer is refused without a word", "company/chief/verdicts.py",
        "                ev.SendStale(worker=event.worker, token=event.token, reason=self._why_stale(event)),\n", "",
        ("tests/unit/test_chief_workers.py::test_past_the_grace_a_result_is_refused_and_its_worker_told_why",),
    ),
    Break(
        "endless loop", "the clock over user code is not looked at", "company/sandbox/child.py", "                self._check_time(time_limit_s, is_late=is_late)\n",
        "                pass\n", ("tests/e2e/test_sandbox_children.py::test_a_fragment_past_its_time_limit_is_killed_and_named",),
    ),
    Break(
        "memory", "a child has no limit of memory", "company/sandbox/profile.py", '            "RLIMIT_DATA": self.memory_bytes,\n            "RLIMIT_AS": self.memory_bytes + 256 * MIB,\n',
        '            "RLIMIT_DATA": 1 << 50,\n            "RLIMIT_AS": 1 << 50,\n', ("tests/e2e/test_sandbox_children.py::test_a_memory_bomb_is_its_fragments_failure_and_the_child_lives_on",),
    ),
    Break(
        "full scratch", "the private /tmp has no bound", "company/sandbox/bwrap.py", 'argv += ["--size", str(profile.tmp_bytes), "--tmpfs", "/tmp",',
        'argv += ["--tmpfs", "/tmp",', ("tests/unit/test_sandbox_command.py::test_every_tmpfs_has_a_bound", f"{ABLATED}[read-only]"),
    ),
    Break(
        "output flood", "what a batch prints is kept whole", "company/sandbox/inside/logs.py", "BATCH_BYTES = 1 << 20", "BATCH_BYTES = FRAGMENT_BYTES = 1 << 40",
        (f"{BAD}::test_a_flood_of_output_costs_no_memory_and_the_log_says_that_it_was_cut",),
    ),
    Break(
        "split", "a split that raises ends as if it had yielded all", "company/chief/lifecycle.py", POP,
        "    def split_failed(self, event: ev.SplitFailed, now: Monotonic) -> list[ev.Effect]:\n        return self.split_ended(ev.SplitEnded(job=event.job, total=self._books.jobs[event.job].produced), now)",
        (f"{FAILS}::test_a_split_that_raises_halfway_fails_the_job_with_its_traceback",),
    ),
    Break(
        "split", "fragments are kept in memory without a bound", "company/chief/splitting.py", "        while window.held_bytes > limit:", "        while False:",
        (f"{BAD}::test_a_split_that_is_faster_than_the_work_does_not_pile_up_in_the_chief",),
    ),
    Break(
        "merge", "retry of a merge computes everything again", "company/chief/desk.py", "        await self._go_live(row, restarted=True)\n\n    def on_over",
        "        from company.chief.store import outcomes as _o\n        await self._store.write(lambda conn: _o.delete(conn, job_id) and None)\n        await self._go_live(row, restarted=True)\n\n    def on_over",
        (f"{FAILS}::test_a_merge_that_raises_is_run_again_alone_by_retry",),
    ),
    Break(
        "client disappears", "ended jobs are forgotten at a restart", "company/chief/desk.py", "        ended = self.ended[job] = Ended(runtime.row, done, failed)", "        ended = Ended(runtime.row, done, failed)",
        (f"{BAD}::test_a_client_that_disappears_leaves_its_job_running",),
    ),
    Break(
        "disk full", "a write that found no room ends the chief", "company/chief/commit.py", "            except (OSError, Unavailable) as error:\n                if isinstance(error, OSError)", "            except ZeroDivisionError as error:\n                if isinstance(error, OSError)",
        ("tests/e2e/test_full_disk.py",),
    ),
    Break(
        "disk full", "jobs are not told that they wait for room", "company/chief/commit.py", "                    self._on_full(True)\n", "",
        ("tests/e2e/test_full_disk.py",),
    ),
    Break(
        "disk full", "an upload that found no room is told another status", "company/chief/api/problem.py", '"upload-busy": 423, "storage-full": 507,', '"upload-busy": 423, "storage-full": 500,', ("tests/e2e/test_full_disk.py",),
    ),
)  # fmt: skip

DOORS = (
    Break(
        "bytes on every port", "nonsense on the RPC port ends without a word", "p2p/net/rpc.py",
        '            self._endings.note(PORT, "not-tls" if is_tls else "connection-lost", address, str(error), level=level)', "            pass",
        (f"{HOSTILE}::test_what_is_thrown_at_any_port_ends_with_a_reason_and_disturbs_nobody",),
    ),
    Break(
        "bytes on every port", "nonsense on the HTTP port is not counted", "p2p/net/http_door.py",
        '            self._endings.note(PORT, "malformed-request", address, f"{type(exc_info).__name__}: {exc_info}")', "            pass",
        (f"{HOSTILE}::test_what_is_thrown_at_any_port_ends_with_a_reason_and_disturbs_nobody",),
    ),
    Break(
        "bytes on every port", "malformed datagrams are not counted", "p2p/dht/core.py", '            self.drops["malformed request"] += 1\n', "            pass\n",
        (f"{HOSTILE}::test_what_is_thrown_at_any_port_ends_with_a_reason_and_disturbs_nobody",),
    ),
    Break(
        "bytes on every port", "the greeting has no deadline", "p2p/net/rpc.py", "with trio.move_on_after(self._limits.handshake_s) as handshake:",
        "with trio.move_on_after(1e6) as handshake:", (f"{HOSTILE}::test_hundreds_of_connections_that_say_almost_nothing_are_bounded_and_end",),
    ),
    Break(
        "bytes on every port", "a request has no deadline", "p2p/net/http_server.py", "HEADER_DEADLINE_S = 20.0", "HEADER_DEADLINE_S = 2e6",
        (f"{HOSTILE}::test_hundreds_of_connections_that_say_almost_nothing_are_bounded_and_end",),
    ),
    Break("the door", "any Host is answered", "company/chief/api/auth.py", "        if host not in self._hosts:", "        if False:", (DOOR,)),
    Break(
        "the door", "any Origin may change things", "company/chief/api/auth.py",
        "        if origin and origin not in self._origins and", "        if False and", (DOOR,),
    ),
    Break("the door", "a session needs no CSRF token", "company/chief/api/auth.py", "        if from_cookie and csrf ==", "        if False and csrf ==", (DOOR,)),
    Break(
        "the door", "a wrong secret is as good as the right one", "company/chief/tokens.py", "    if record is None or not matches:", "    if record is None:",
        ("tests/e2e/test_company_access.py::test_a_wrong_and_a_revoked_token_are_refused",),
    ),
    Break("the door", "refusals are not logged", "company/chief/api/refusals.py", "        if status not in SHOWN:", "        if True:", (DOOR,)),
)  # fmt: skip

LAYERS = (
    Break(
        "seccomp", "the filter allows fork", "company/sandbox/seccomp.py", '    step(_JSET, _CLONE_THREAD, "allow", "allow" if may_fork else "deny")', '    step(_JSET, _CLONE_THREAD, "allow", "allow")',
        (REFUSED,),
    ),
    Break(
        "seccomp", "the filter allows TIOCSTI", "company/sandbox/seccomp.py", '    step(_JEQ, _TIOCSTI, "deny", "")\n', "", ("tests/unit/test_sandbox_seccomp.py", REFUSED),
    ),
    Break("network namespace", "a child has the machine's network", "company/sandbox/bwrap.py", '"--unshare-all", "--unshare-user",', '"--unshare-all", "--share-net", "--unshare-user",', (f"{ABLATED}[seccomp]",)),
    Break("capabilities", "a child keeps them in its namespace", "company/sandbox/bwrap.py", '"--cap-drop", "ALL"', '"--cap-add", "ALL"', (REFUSED,)),
    Break("no nested userns", "a child may make namespaces of users", "company/sandbox/bwrap.py", '"--disable-userns", ', "", (f"{ABLATED}[seccomp]",)),
    Break("read-only", "the root of a child can be written", "company/sandbox/bwrap.py", '"--remount-ro", "/dev", "--remount-ro", "/", ', "", (REFUSED,)),
    Break("tmpfs size", "the folder of the package has no bound", "company/sandbox/bwrap.py", '"--size", str(PACKAGE_BYTES), "--tmpfs", "/package"', '"--tmpfs", "/package"', (REFUSED,)),
    Break("rlimits", "as many threads as it likes", "company/sandbox/profile.py", '"RLIMIT_NPROC": 256,', '"RLIMIT_NPROC": 1 << 20,', (f"{ENDED}::test_rlimits_stop_a_thread_bomb",)),
    Break("mount namespace", "a file of the machine's is there", "company/sandbox/bwrap.py", '    argv += ["--ro-bind", str(layout.site), "/site"]', '    argv += ["--ro-bind", str(layout.site), "/site", "--ro-bind", "/etc/passwd", "/etc/passwd"]', (REFUSED,)),
    Break("pid namespace", "a child sees the machine's processes", "company/sandbox/bwrap.py", '"--unshare-all", "--unshare-user",', '"--unshare-ipc", "--unshare-uts", "--unshare-net", "--unshare-user",', (REFUSED,)),
    Break("pid namespace", "a child outlives its daemon", "company/sandbox/bwrap.py", '"--die-with-parent", ', "", (f"{ENDED}::test_pid_namespace_dies_with_a_daemon_that_is_killed",)),
    Break("memfd seals", "the shared page can be cut", "company/sandbox/page.py", "    fcntl.fcntl(fd, _F_ADD_SEALS, _SEALS)\n", "", (REFUSED,)),
    Break(
        "close-on-exec", "a child inherits the daemon's descriptors", "company/sandbox/spawn.py",
        "        process = subprocess.Popen(\n            argv, stdin=subprocess.DEVNULL, stdout=log_fd, stderr=log_fd, close_fds=True, pass_fds=(*ends.fds, *filter_fds),",
        "        for n in map(int, os.listdir('/proc/self/fd')):\n            try:\n                os.set_inheritable(n, True)\n            except OSError:\n                pass\n        process = subprocess.Popen(\n            argv, stdin=subprocess.DEVNULL, stdout=log_fd, stderr=log_fd, close_fds=False,",
        (REFUSED,),
    ),
    Break("the watch", "who owes an answer is waited for without an end", "company/sandbox/child.py", "        elif not is_late and", "        elif False and", (f"{ENDED}::test_watch_is_not_deceived_by_a_forged_page",)),
    Break("the watch", "files without content are not counted", "company/sandbox/child.py", "> MAX_ENTRIES:", "> 1 << 60:", (f"{ENDED}::test_watch_ends_a_flood_of_files_in_tmp",)),
    Break("the watch", "deleted files of the output folder are free", "company/sandbox/child.py", "usage.size_bytes + hidden.size_bytes, usage.trouble or hidden.trouble", "usage.size_bytes, usage.trouble", (f"{OUTPUT}::test_watch_ends_a_merge_that_takes_too_much_room",)),
    Break("the parser", "frames of a child are not checked", "company/sandbox/child.py", "check_frame_untrusted(frame)", "frame", (f"{ENDED}::test_parser_ends_a_child_that_speaks_nonsense",)),
    Break("the daemon's look", "links in the output folder are kept", "company/sandbox/output.py", "            else:\n                path.unlink()\n        for name in list(folders):", "        for name in list(folders):", (f"{OUTPUT}::test_daemon_keeps_only_plain_files_with_plain_names",)),
    Break("landlock", "the lower rung confines no files", "company/sandbox/inside/confine.py", "    _landlock(libc, confine)\n", "", ("tests/e2e/test_sandbox_ladder.py",)),
    Break(
        "start-up check", "the self-test passes whatever it finds", "company/sandbox/selftest.py", "SelfTest(all(ok for _, ok, _ in checks), checks)", "SelfTest(True, checks)", ("tests/e2e/test_escapes_refused.py::test_start_up_proof_passes_with_all_layers_and_fails_without_any_of_these",),
    ),
)  # fmt: skip

# what companies of the simulated market try, against the shipped rules
MARKET = (
    Break(
        "saboteurs", "nothing of strangers is checked", "p2p/reputation/checking.py", "            return self.spot\n        return max", "            return 0.0\n        return max",
        (f"{MARKETS}::test_saboteurs_are_found_and_nobody_else_is",),
    ),
    Break(
        "over-claimers", "whatever is claimed is acknowledged", "p2p/contracts/acting.py", "Facts(*map(max, c.done.at_most(Facts(*epoch.facts)), a.acked))",
        "Facts(*map(max, Facts(*epoch.facts), a.acked))", (f"{MARKETS}::test_a_lender_is_credited_with_what_it_did_and_not_with_what_it_claims",),
    ),
    Break(
        "over-claimers", "whatever is claimed is co-signed as the total", "p2p/contracts/acting.py", "accepted = Facts(*map(max, c.done.at_most(a.claimed), a.acked))",
        "accepted = Facts(*map(max, a.claimed, a.acked))", (f"{MARKETS}::test_a_lender_is_credited_with_what_it_did_and_not_with_what_it_claims",),
    ),
    Break(
        "slanderers", "what was had under a contract that ended with a complaint is not owed", "p2p/reputation/graph.py",
        "    return Limit(NEWCOMER_FLOOR_CORE_MS, evidence.earned(company, me), paths, evidence.given(company))",
        "    return Limit(NEWCOMER_FLOOR_CORE_MS, evidence.earned(company, me), paths, evidence.earned(me, company))",
        (f"{ATTACKS}::test_who_calls_what_it_had_wrong_still_owes_it_and_lowers_nobody_in_a_third_partys_eyes",),
    ),
    Break(
        "slanderers", "what others complain of counts as one's own experience", "p2p/reputation/evidence.py",
        "        if self.me in new.signers and self.me in (new.borrower, new.lender):\n            other = new.lender if new.borrower == self.me else new.borrower\n",
        "        if True:\n            other = new.lender if new.borrower == self.me or new.lender != self.me else new.borrower\n",
        (f"{ATTACKS}::test_who_calls_what_it_had_wrong_still_owes_it_and_lowers_nobody_in_a_third_partys_eyes",),
    ),
    Break(
        "exit scams", "credit is not lowered by what is owed", "p2p/reputation/graph.py", "        return max(0, self.credit - self.owed)", "        return self.credit",
        (f"{ATTACKS}::test_an_exit_scam_takes_the_floor_and_half_of_what_it_gave",),
    ),
    Break(
        "new names", "a newcomer is lent ten core-hours", "p2p/reputation/graph.py", "NEWCOMER_FLOOR_CORE_MS = 3_600_000", "NEWCOMER_FLOOR_CORE_MS = 36_000_000",
        (f"{ATTACKS}::test_each_new_name_gets_a_newcomers_floor_again_and_no_more",),
    ),
    Break(
        "free riders", "a newcomer is lent ten core-hours under its one name", "p2p/reputation/graph.py", "NEWCOMER_FLOOR_CORE_MS = 3_600_000",
        "NEWCOMER_FLOOR_CORE_MS = 36_000_000", (f"{ATTACKS}::test_free_riders_get_a_newcomers_floor_of_each_lender",),
    ),
    Break(
        "new names", "what newcomers hold already is not counted against their share", "p2p/reputation/favours.py", "max(0, newcomer_slots(idle_slots + new) - new)",
        "newcomer_slots(idle_slots)", (f"{ATTACKS}::test_new_names_together_hold_a_tenth_of_what_is_idle",),
    ),
    Break(
        "rings", "what is vouched for is not bounded by what the vouching one did", "p2p/reputation/graph.py", "        return min(self.computed_for_me, self.computed_for_it)",
        "        return self.computed_for_it", (f"{ATTACKS}::test_a_ring_that_vouches_for_its_own_carries_half_of_what_the_vouching_one_did",),
    ),
    Break(
        "withheld receipts", "who signs for nothing owes nothing", "p2p/reputation/evidence.py", "        return max(self.computed(self.me, company), self._given.get(company, 0))",
        "        return self.computed(self.me, company)", (f"{ATTACKS}::test_who_signs_for_nothing_is_remembered_by_who_computed_for_it",),
    ),
    Break(
        "forks", "a proof of a fork does not end credit", "p2p/reputation/graph.py", "    if company in evidence.forked:", "    if False:",
        (f"{ATTACKS}::test_nothing_is_lent_to_who_has_signed_two_things_with_one_number",),
    ),
)  # fmt: skip

# what two companies promise each other
FAVOURS = "tests/e2e/test_favours.py"
BALANCES = "tests/properties/test_favours_properties.py"
LINK = "tests/properties/test_contract_link.py"
LIES = "tests/e2e/test_secondment.py::test_a_lender_that_answers_wrongly_is_caught_and_the_result_is_exact"
BETWEEN = (
    Break(
        "a Byzantine party", "a lender's boast is acknowledged", "p2p/contracts/acting.py", "Facts(*map(max, c.done.at_most(Facts(*epoch.facts)), a.acked))",
        "Facts(*map(max, Facts(*epoch.facts), a.acked))", (LINK,),
    ),
    Break(
        "a Byzantine party", "a fork that is seen leaves no proof", "p2p/contracts/machine.py", "self.effect(e.ForkFound(proof))", "pass", (LINK,),
    ),
    Break(
        "no slot promised twice", "what is promised is not counted", "p2p/contracts/ledger.py", "        if more > self.free:", "        if more > self.capacity:",
        ("tests/unit/test_contract_book.py",),
    ),
    Break(
        "clocks", "how long a chief was away is asked of the calendar alone", "p2p/contracts/machine.py", "if alive is not None and since_alive_s is not None:",
        "if False:", ("tests/e2e/test_clock_leap.py",),
    ),
    Break(
        "wrong results", "what is computed again at home is not compared", "company/chief/secondment/checking.py", "    return own.raw == answer.result",
        "    return True", (LIES,),
    ),
    Break(
        "wrong results", "two wrong answers found at once accuse twice", "company/chief/secondment/checking.py", "async with self._accusing:", "if True:",
        ("tests/unit/test_secondment_checking.py",),
    ),
    Break(
        "wrong results", "one check slot, whatever is borrowed", "company/chief/secondment/checking.py", "if number < self._needed():", "if number < 1:",
        ("tests/unit/test_secondment_checking.py",),
    ),
    Break(
        "guests keep to the contract", "more slots come than were agreed on", "company/chief/secondment/door.py", "    if others + slots > view.slots:", "    if False:",
        ("tests/unit/test_secondment_rules.py",),
    ),
    Break(
        "guests keep to the contract", "a ticket for another company is good", "company/chief/secondment/door.py",
        "    if ticket.worker != key or ticket.borrower != own:", "    if False:", ("tests/unit/test_secondment_rules.py",),
    ),
    Break(
        "what is signed is what was shown", "the digest that was read is not asked for", "p2p/contracts/acting.py",
        '        raise UsageError("terms-changed"', '        UsageError("terms-changed"', ("tests/unit/test_contract_machine.py",),
    ),
    Break(
        "favours", "nobody is known to be owed anything when slots are shared", "p2p/reputation/favours.py",
        "        known = {c: self.balances[c] for c in got if self.balances.get(c, 0.0) > 0}", "        known: dict[bytes, float] = {}",
        ("tests/unit/test_reputation.py::test_on_one_slot_who_is_owed_comes_before_a_newcomer_and_on_two_both_have_one",),
    ),
    Break(
        "favours", "who is owed takes nothing back", "p2p/reputation/favours.py", "        if self.owed(asker) <= 0:\n            return []", "        return []",
        (FAVOURS,),
    ),
    Break(
        "favours", "slots go back from companies that are owed, too", "p2p/reputation/favours.py", "if self.owed(ask.company) <= 0 and ask.company != asker]",
        "if ask.company != asker]", (BALANCES,),
    ),
    Break(
        "favours", "newcomers keep nothing when slots go back", "p2p/reputation/favours.py", "        kept = min(newcomer_slots(capacity), max(0, capacity - 1))",
        "        kept = 0", (BALANCES,),
    ),
    Break(
        "favours", "a slow guest's time counts as own workers' time", "company/chief/verdicts.py", "is_own=worker.spec.guest is None", "is_own=True",
        ("tests/unit/test_chief_workers.py::test_own_run_times_are_kept_apart_from_a_guests",),
    ),
    Break(
        "favours", "what was received counts as the other side's time", "p2p/reputation/owed.py",
        "favour_value(self.fragments, self.core_ms, self.own_core_ms)", "favour_value(self.fragments, self.core_ms, None)",
        ("tests/unit/test_reputation.py::test_what_a_slow_lender_computed_is_worth_what_own_workers_would_have_taken",),
    ),
    Break(
        "every wait has a reason", "lent slots are not told from busy ones", "company/chief/reasons.py", "        if not any(w.own_slots for w in able):",
        "        if False:", ("tests/unit/test_chief_workers.py::test_a_job_whose_slots_are_lent_says_so_and_how_they_come_back",),
    ),
)  # fmt: skip

BREAKS = (*JOBS, *DOORS, *LAYERS, *MARKET, *BETWEEN)
