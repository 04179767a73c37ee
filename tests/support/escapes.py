"""The escapes that a package may attempt, and the layers of the sandbox that stop each.

An `Escape` is the body of a function run inside a child: it returns when it got through and raises when it was refused.
``layers`` names every layer that would stop it alone, the first to meet it first; so with all of them taken away it must get
through, and with one of them left it must not. That is how a test shows that the layer it names is the one.
"""

# ruff: noqa: E501 - the attempts are programs in one line
from __future__ import annotations

import textwrap
from dataclasses import dataclass

# layers that a test can take away
SECCOMP, NET, CAPS, USERNS, READ_ONLY, SIZE, RLIMIT = (
    "seccomp",
    "network namespace",
    "capabilities",
    "no nested userns",
    "read-only",
    "tmpfs size",
    "rlimits",
)
# layers that stay
MOUNTS, PIDS, SEALS, KERNEL, EXEC, OUTER = (
    "mount namespace",
    "pid namespace",
    "memfd seals",
    "kernel (initial namespace only)",
    "close-on-exec",
    "outer user namespace",
)

PRELUDE = """
import ctypes, errno, fcntl, mmap, os, resource, signal, socket, stat, struct, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)

def checked(got):
    if got == -1:
        raise OSError(ctypes.get_errno(), "refused")
    return got

def call(number, *arguments):
    return checked(libc.syscall(ctypes.c_long(number), *(a if isinstance(a, bytes) or a is None else ctypes.c_long(a) for a in arguments)))

def write(path, data=b"x", flags=os.O_WRONLY | os.O_CREAT):
    fd = os.open(path, flags, 0o600)
    try:
        return os.write(fd, data)
    finally:
        os.close(fd)

def read(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.read(fd, 4096)
    finally:
        os.close(fd)

def fill(path, size):
    block, made = bytes(1 << 20), []
    try:
        for number in range(max(1, size >> 22)):  # many files, so that the limit of one is not what stops it
            made.append(path + str(number))
            fd = os.open(made[-1], os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                for _ in range(4):
                    if os.write(fd, block) < len(block):
                        raise OSError(errno.ENOSPC, "full")
            finally:
                os.close(fd)
    finally:
        for name in made:
            if os.path.exists(name):
                os.unlink(name)

def nothing(why):
    raise OSError(errno.ENOENT, why)

def attempt_all(attempts, x):
    told = {}
    for name, attempt in attempts.items():
        try:
            result = attempt(x)
        except OSError as error:
            told[name] = errno.errorcode.get(error.errno, "OSError")
        except BaseException as error:
            told[name] = type(error).__name__
        else:
            told[name] = "WORKED: " + repr(result)[:200]
    return told
"""


@dataclass(frozen=True, slots=True)
class Escape:
    """One attempt. refusals: errno names, or exception types, that the whole sandbox answers with."""

    name: str
    layers: tuple[str, ...]
    refusals: tuple[str, ...]
    body: str
    is_harmless: bool = True  # may be tried where a layer is missing


def _e(name: str, layers: tuple[str, ...], refusals: str, body: str, *, harmless: bool = True) -> Escape:
    return Escape(name, layers, tuple(refusals.split()), textwrap.dedent(body).strip(), harmless)


GONE, DENIED, MISSING, FIXED = "ENOENT", "EPERM", "ENOSYS", "EROFS EACCES EPERM"
NO_NET = (SECCOMP, NET)
SURFACE = (SECCOMP,)
ROOT_ONLY = (SECCOMP, CAPS)
OWNER_ONLY = (SECCOMP, CAPS, OUTER)  # capabilities in the inner user namespace do not reach the mount and network namespaces
HOST_ONLY = (SECCOMP, KERNEL)

FILES = [
    _e("read-shadow", (MOUNTS,), GONE, "return read('/etc/shadow')"),
    _e("read-passwd", (MOUNTS,), GONE, "return read('/etc/passwd')"),
    _e("list-homes", (MOUNTS,), GONE, "return os.listdir('/home') + os.listdir('/root')"),
    _e("read-company-identity", (MOUNTS,), GONE, "return read(x['home'] + '/chief/identity/key')"),
    _e("read-company-database", (MOUNTS,), GONE, "return read(x['home'] + '/chief/company.sqlite')"),
    _e("read-neighbours-scratch", (MOUNTS,), GONE, "return read(x['home'] + '/workers/w1/scratch/neighbour')"),
    _e("read-other-jobs-fragments", (MOUNTS,), GONE, "return read(x['home'] + '/chief/jobs/other/fragments/part')"),
    _e("list-the-stage", (MOUNTS,), GONE, "return os.listdir('/run/company')"),
    _e("list-sockets-of-daemons", (MOUNTS,), GONE, "return os.listdir('/run')"),
    _e("climb-by-dots", (MOUNTS,), GONE, "return read('/tmp/../../../../..' + x['home'] + '/chief/identity/key')"),
    _e("climb-by-root-of-init", (MOUNTS,), GONE, "return read('/proc/1/root' + x['home'] + '/chief/identity/key')"),
    _e("climb-by-symlink", (MOUNTS,), GONE, "os.symlink(x['home'] + '/chief/identity/key', '/tmp/s')\ntry: return read('/tmp/s')\nfinally: os.unlink('/tmp/s')"),
    _e("climb-by-hard-link", (MOUNTS,), "ENOENT EXDEV EPERM", "os.link('/usr/bin/passwd', '/tmp/p')"),
    _e("open-by-handle", (SECCOMP, KERNEL), DENIED, "return call(304, -100, struct.pack('IiQ', 8, 1, 2), 0)"),
    _e("read-raw-disk", (MOUNTS,), GONE, "return [os.open(d, os.O_RDONLY) for d in ('/dev/vda', '/dev/sda', '/dev/mem', '/dev/kmsg', '/dev/fuse', '/dev/kvm')]"),
    _e("list-cgroups", (MOUNTS,), GONE, "return os.listdir('/sys/fs/cgroup')"),
    _e("make-a-device", (CAPS, KERNEL), DENIED, "os.mknod('/tmp/disk', 0o600 | stat.S_IFBLK, os.makedev(254, 0))"),
    _e("write-interpreter", (MOUNTS,), FIXED, "return write(os.__file__)"),
    _e("plant-usercustomize", (MOUNTS,), FIXED, "return write(os.path.dirname(os.__file__) + '/usercustomize.py')"),
    _e("write-our-inside", (MOUNTS,), FIXED, "return write('/site/company/sandbox/inside/main.py')"),
    _e("plant-beside-our-inside", (MOUNTS,), FIXED, "return write('/site/msgpack/evil.py')"),
    _e("write-usr", (MOUNTS,), FIXED, "return write('/usr/lib/evil')"),
    _e("chmod-usr", (MOUNTS,), FIXED, "os.chmod('/usr/bin/env', 0o4777)"),
    _e("fill-the-root", (READ_ONLY,), FIXED, "return fill('/evil', 1 << 20)"),
    _e("make-a-root-folder", (READ_ONLY,), FIXED, "os.mkdir('/evil')\nos.rmdir('/evil')"),
    _e("fill-dev", (READ_ONLY,), FIXED, "return fill('/dev/evil', 1 << 20)"),
    _e("fill-shared-memory", (MOUNTS, READ_ONLY, SIZE), FIXED + " ENOSPC", "return fill('/dev/shm/evil', 1 << 20)"),
    _e("fill-tmp", (SIZE,), "ENOSPC", "return fill('/tmp/evil', 24 << 20)"),
    _e("fill-package-folder", (SIZE,), "ENOSPC", "return fill('/package/evil', 80 << 20)"),
    _e("fill-tmp-sparse", (SIZE, RLIMIT), "ENOSPC EFBIG", "fd = os.open('/tmp/s', os.O_RDWR | os.O_CREAT)\ntry: return os.posix_fallocate(fd, 0, 40 << 20)\nfinally: os.close(fd); os.unlink('/tmp/s')"),
]  # fmt: skip

PARENT = [
    _e("environment-of-parent", (PIDS,), GONE, "return read('/proc/%d/environ' % x['pid'])"),
    _e("memory-of-parent", (PIDS,), GONE, "return os.open('/proc/%d/mem' % x['pid'], os.O_RDWR)"),
    _e("descriptors-of-parent", (PIDS,), GONE, "return os.listdir('/proc/%d/fd' % x['pid'])"),
    _e("any-environment", (PIDS,), GONE, """
        for pid in filter(str.isdigit, os.listdir('/proc')):
            if b'SECRET_OF_PARENT' in read('/proc/%s/environ' % pid):
                return pid
        if 'SECRET_OF_PARENT' in os.environ:
            return os.environ
        nothing('no process has it')
    """),
    _e("ptrace-parent", (SECCOMP, PIDS), DENIED, "return call(101, 16, x['pid'], 0, 0)"),
    _e("read-parents-memory", (SECCOMP, PIDS), DENIED, "return call(310, x['pid'], struct.pack('QQ', 0, 8), 1, struct.pack('QQ', 0, 8), 1, 0)"),
    _e("write-parents-memory", (SECCOMP, PIDS), DENIED, "return call(311, x['pid'], struct.pack('QQ', 0, 8), 1, struct.pack('QQ', 0, 8), 1, 0)"),
    _e("steal-descriptor", (SECCOMP, PIDS), MISSING, "return call(438, call(434, x['pid'], 0), x['fd'], 0)"),
    _e("kcmp-parent", (SECCOMP, PIDS), DENIED, "return call(312, os.getpid(), x['pid'], 0, 0, 0)"),
    _e("signal-parent", (PIDS,), "ESRCH", "os.kill(x['pid'], 0)"),
    _e("signal-parents-group", (PIDS,), "ESRCH", "os.killpg(x['group'], 0)"),
    _e("signal-parents-thread", (PIDS,), "ESRCH", "return call(234, x['pid'], x['pid'], 0)"),
    _e("signal-everybody", (PIDS,), "ESRCH", "os.kill(-1, signal.SIGCONT)"),
    _e("signal-by-pidfd", (SECCOMP, PIDS), MISSING, "return call(424, call(434, x['pid'], 0), 0, None, 0)"),
    _e("limits-of-parent", (PIDS,), "ESRCH ProcessLookupError", "return resource.prlimit(x['pid'], resource.RLIMIT_NOFILE)"),
    _e("slow-down-parent", (PIDS,), "ESRCH", "os.setpriority(os.PRIO_PROCESS, x['pid'], 19)"),
    _e("pin-parent", (PIDS,), "ESRCH", "os.sched_setaffinity(x['pid'], {0})"),
    _e("inherited-descriptors", (EXEC,), GONE, """
        known = ('/dev/null', 'memfd:company-page', 'memfd:company-log', 'pipe:')
        found = []
        for fd in range(1024):
            try:
                found.append(os.readlink('/proc/self/fd/%d' % fd))
            except OSError:
                continue
        others = [link for link in found if not any(word in link for word in known)]
        if others or sum(link.startswith('pipe:') for link in found) > 2:
            return found
        nothing('only our own')
    """),
    _e("shrink-page", (SEALS,), DENIED, "os.ftruncate(5, 0)"),
    _e("shrink-log", (SEALS,), DENIED, "os.ftruncate(6, 0)"),
    _e("grow-log", (SEALS,), "EPERM EFBIG", "return os.pwrite(6, b'x', 1 << 30)"),
    _e("grow-page", (SEALS, RLIMIT), "EPERM EFBIG", "os.ftruncate(5, 1 << 40)"),
    _e("seal-page-against-parent", (SEALS,), DENIED, "return fcntl.fcntl(5, 1033, 8)"),
]  # fmt: skip

NETWORK = [
    _e("tcp-loopback", NO_NET, DENIED, "return socket.create_connection(('127.0.0.1', x['port']), 2)"),
    _e("tcp6-loopback", NO_NET, DENIED, "return socket.create_connection(('::1', x['port6']), 2) if x['port6'] else socket.socket(socket.AF_INET6)"),
    _e("udp-loopback", NO_NET, DENIED, """
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.settimeout(2)
        s.connect(('127.0.0.1', x['udp']))
        s.send(b'x')
        return s.recv(1)
    """),
    _e("abstract-socket", NO_NET, DENIED, "s = socket.socket(socket.AF_UNIX)\nreturn s.connect(x['abstract'])"),
    _e("unix-socket-in-home", (SECCOMP, MOUNTS), DENIED, "s = socket.socket(socket.AF_UNIX)\nreturn s.connect(x['home'] + '/s')"),
    _e("listen", SURFACE, DENIED, "s = socket.socket()\ns.bind(('127.0.0.1', 0))\nreturn s.listen()"),
    _e("netlink", SURFACE, DENIED, "return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)"),
    _e("packet-socket", OWNER_ONLY, DENIED, "return socket.socket(socket.AF_PACKET, socket.SOCK_RAW)"),
    _e("raw-socket", OWNER_ONLY, DENIED, "return socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)"),
    _e("vsock", SURFACE, DENIED, "return socket.socket(40, socket.SOCK_STREAM)", harmless=False),
    _e("crypto-socket", SURFACE, DENIED, "return socket.socket(38, 5)", harmless=False),
    _e("socketpair-of-another-family", (SECCOMP, KERNEL), DENIED, "return socket.socketpair(socket.AF_INET)"),
    _e("hide-a-file-in-a-socket", SURFACE, DENIED, "a, b = socket.socketpair()\nreturn socket.send_fds(a, [b'x'], [0])"),
]  # fmt: skip

NAMESPACES = [
    _e("mount-tmpfs", OWNER_ONLY, DENIED, "checked(libc.mount(b'none', b'/tmp', b'tmpfs', 0, None))\nlibc.umount2(b'/tmp', 2)"),
    _e("remount-writable", (SECCOMP, CAPS, KERNEL), DENIED, "checked(libc.mount(b'none', b'/usr', None, 32 | 4096, None))"),
    _e("unmount-site", (SECCOMP, CAPS, KERNEL), DENIED, "checked(libc.umount2(b'/site', 2))"),
    _e("bind-mount", OWNER_ONLY, DENIED, "checked(libc.mount(b'/tmp', b'/tmp', None, 4096, None))\nlibc.umount2(b'/tmp', 2)"),
    _e("fsopen", OWNER_ONLY, MISSING, "return call(430, b'tmpfs', 0)"),
    _e("open-tree-clone", OWNER_ONLY, MISSING, "return call(428, -100, b'/tmp', 1)"),
    _e("mount-setattr", (SECCOMP, KERNEL), MISSING, "return call(442, -100, b'/usr', 0, struct.pack('QQQQ', 0, 1, 0, 0), 32)"),
    _e("clone3-user", (SECCOMP, USERNS), MISSING, "pid = call(435, struct.pack('8Q', 0x10000000, 0, 0, 0, 17, 0, 0, 0), 64)\nos._exit(0) if pid == 0 else None"),
    _e("clone-user", (SECCOMP, USERNS), DENIED, "pid = call(56, 0x10000000 | 17, 0, 0, 0, 0)\nos._exit(0) if pid == 0 else None"),
    _e("pivot-root", (SECCOMP, CAPS, KERNEL), DENIED, "return call(155, b'/tmp', b'/tmp')"),
    _e("setns-of-init", (SECCOMP, CAPS, KERNEL), DENIED, "return call(308, os.open('/proc/1/ns/mnt', os.O_RDONLY), 0)"),
    _e("become-root", (KERNEL,), "EPERM EINVAL", "os.setuid(0)"),
    _e("become-another-user", (KERNEL,), "EPERM EINVAL", "os.setresuid(1234, 1234, 1234)"),
    _e("join-groups", (KERNEL, CAPS), "EPERM EINVAL", "os.setgroups([0])"),
    _e("map-users", (KERNEL,), "EPERM EACCES EROFS", "return write('/proc/self/uid_map', b'0 0 1', os.O_WRONLY)"),
    _e("take-capabilities", (CAPS,), DENIED, "return call(126, struct.pack('Ii', 0x20080522, 0), struct.pack('6I', *[0xffffffff] * 6))"),
    _e("raise-ambient", (KERNEL,), "EPERM EINVAL", "return checked(libc.prctl(47, 2, 60, 0, 0))"),
    # these change what later attempts can do where they get through
    _e("unshare-mounts", ROOT_ONLY, DENIED, "checked(libc.unshare(0x20000))"),
    _e("unshare-network", ROOT_ONLY, DENIED, "checked(libc.unshare(0x40000000))"),
    _e("chroot", ROOT_ONLY, DENIED, "os.chroot('/')"),
    _e("unshare-user", (SECCOMP, USERNS), DENIED, "checked(libc.unshare(0x10000000))"),
]  # fmt: skip

SURFACES = [
    _e("fork", SURFACE, DENIED, "pid = os.fork()\nos._exit(0) if pid == 0 else os.waitpid(pid, 0)"),
    _e("vfork-and-exec", SURFACE, DENIED, "return os.waitpid(os.posix_spawn('/bin/true', ['true'], {}), 0)"),
    _e("clone3-fork", SURFACE, MISSING, "pid = call(435, struct.pack('8Q', 0, 0, 0, 0, 17, 0, 0, 0), 64)\nos._exit(0) if pid == 0 else os.waitpid(pid, 0)"),
    _e("subprocess", SURFACE, DENIED, "import subprocess\nreturn subprocess.run(['/bin/true'], check=True)"),
    _e("io-uring", SURFACE, MISSING, "return call(425, 8, bytes(120))", harmless=False),
    _e("bpf", (SECCOMP, KERNEL), DENIED, "return call(321, 0, struct.pack('IIII', 2, 4, 4, 1) + bytes(100), 116)"),
    _e("keyctl", SURFACE, DENIED, "return call(250, 1, None)"),
    _e("add-key", SURFACE, DENIED, "return call(248, b'user', b'evil', b'x', 1, -2)"),
    _e("request-key", SURFACE, DENIED, "return call(249, b'user', b'evil', None, 0)", harmless=False),
    _e("perf-events", SURFACE, DENIED, "return call(298, struct.pack('II', 1, 112) + bytes(104), 0, -1, -1, 0)", harmless=False),
    _e("userfaultfd", SURFACE, DENIED, "return call(323, 1)", harmless=False),
    _e("memfd", SURFACE, DENIED, "return os.memfd_create('evil')"),
    _e("memfd-secret", SURFACE, MISSING, "return call(447, 0)", harmless=False),
    _e("personality", SURFACE, DENIED, "return call(135, 0x0040000)"),
    _e("modify-ldt", SURFACE, DENIED, "return call(154, 0, bytes(64), 64)", harmless=False),
    _e("io-ports", (SECCOMP, KERNEL), DENIED, "return call(173, 0, 1024, 1)"),
    _e("kernel-module", HOST_ONLY, DENIED, "return call(313, 0, b'', 0)"),
    _e("kexec", HOST_ONLY, DENIED, "return call(246, 0, 0, None, 0)", harmless=False),
    _e("reboot", HOST_ONLY, DENIED, "return call(169, 0xfee1dead, 672274793, 0, None)", harmless=False),
    _e("kernel-log", (SECCOMP, KERNEL), DENIED, "return call(103, 3, bytes(64), 64)", harmless=False),
    _e("set-clock", HOST_ONLY, DENIED, "time.clock_settime(time.CLOCK_REALTIME, 0)"),
    _e("swap-on", HOST_ONLY, DENIED, "return call(167, b'/tmp/x', 0)"),
    _e("process-accounting", HOST_ONLY, DENIED, "return call(163, b'/tmp/x')"),
    _e("shared-memory-sysv", SURFACE, DENIED, "return call(29, 0, 4096, 0o1600)"),
    _e("message-queue", SURFACE, DENIED, "return call(240, b'evil', 0o102, 0o600, None)"),
    _e("fanotify", (SECCOMP, KERNEL), DENIED, "return call(300, 0xc, 0)", harmless=False),
    _e("legacy-aio", SURFACE, DENIED, "return call(206, 8, bytes(8))", harmless=False),
    _e("landlock-of-its-own", SURFACE, MISSING, "return call(444, None, 0, 1)", harmless=False),
    _e("call-of-the-future", (SECCOMP, KERNEL), MISSING, "return call(999)"),
    _e("type-into-terminal", (SECCOMP, KERNEL), DENIED, "a, b = os.openpty()\nreturn fcntl.ioctl(b, 0x5412, b'x')", harmless=False),
    _e("outlive-the-daemon", SURFACE, DENIED, "checked(libc.prctl(1, 0, 0, 0, 0))\nchecked(libc.prctl(1, 9, 0, 0, 0))"),
    _e("clear-no-new-privileges", (KERNEL,), "EINVAL", "return checked(libc.prctl(38, 0, 0, 0, 0))"),
    _e("clear-the-filter", (KERNEL,), "EINVAL", "return checked(libc.prctl(22, 0, 0, 0, 0))"),
    _e("core-pattern", (MOUNTS,), FIXED, "return write('/proc/sys/kernel/core_pattern', b'|/tmp/x', os.O_WRONLY)"),
    _e("sysctl-of-its-namespaces", (MOUNTS,), FIXED, "return write('/proc/sys/user/max_user_namespaces', b'9', os.O_WRONLY)"),
    _e("sysrq", (KERNEL,), "EACCES EPERM EROFS ENOENT", "return write('/proc/sysrq-trigger', b'h', os.O_WRONLY)", harmless=False),
    _e("kernel-memory", (KERNEL,), "EACCES EPERM ENOENT", "return read('/proc/kcore')"),
    _e("be-spared-by-the-oom-killer", (KERNEL,), "EACCES EPERM", "return write('/proc/self/oom_score_adj', b'-1000', os.O_WRONLY)"),
]  # fmt: skip

LIMITS = [
    _e("raise-address-space", (KERNEL,), "ValueError", "resource.setrlimit(resource.RLIMIT_AS, (-1, -1))"),
    _e("raise-file-count", (KERNEL,), "ValueError", "resource.setrlimit(resource.RLIMIT_NOFILE, (1 << 19, 1 << 19))"),
    _e("raise-process-count", (KERNEL,), "ValueError", "resource.setrlimit(resource.RLIMIT_NPROC, (-1, -1))"),
    _e("allow-core-dumps", (KERNEL,), "ValueError", "resource.setrlimit(resource.RLIMIT_CORE, (-1, -1))"),
    _e("ten-gibibytes", (RLIMIT,), "MemoryError", "return len(bytearray(10 << 30))", harmless=False),
    _e("ten-gibibytes-mapped", (RLIMIT,), "ENOMEM", "return mmap.mmap(-1, 10 << 30)"),
    _e("ten-gibibytes-shared-zero", (RLIMIT,), "ENOMEM", "fd = os.open('/dev/zero', os.O_RDWR)\ntry: return mmap.mmap(fd, 10 << 30)\nfinally: os.close(fd)"),
    _e("thousands-of-files", (RLIMIT, KERNEL), "EMFILE", """
        held = []
        try:
            for _ in range(5000):
                held.append(os.open('/dev/null', os.O_RDONLY))
        finally:
            for fd in held:
                os.close(fd)
    """),
    _e("real-time-priority", (KERNEL, CAPS), DENIED, "os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))"),
    _e("more-than-its-share", (KERNEL, CAPS), "EPERM EACCES", "os.setpriority(os.PRIO_PROCESS, 0, -10)"),
]  # fmt: skip

ESCAPES: dict[str, Escape] = {e.name: e for group in (FILES, PARENT, NETWORK, SURFACES, LIMITS, NAMESPACES) for e in group}

_ROLES = {
    "process": "def process(_, *, x):\n    return attempt_all(ATTEMPTS, x)\n",
    "split": "def split(data, *, x):\n    yield attempt_all(ATTEMPTS, x)\n",
    "merge": "def merge(results, output, *, x):\n    return attempt_all(ATTEMPTS, x)\n",
}


def module(role: str, escapes: list[Escape]) -> str:
    """The source of a package's module that tries them all and returns what it was told."""
    lines = [PRELUDE]
    for number, escape in enumerate(escapes):
        lines.append(f"def attempt_{number}(x):\n" + textwrap.indent(escape.body, "    "))
    table = ", ".join(f"{escape.name!r}: attempt_{number}" for number, escape in enumerate(escapes))
    return "\n\n".join([*lines, f"ATTEMPTS = {{{table}}}", _ROLES[role]])
