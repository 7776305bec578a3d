/*
 * floor: what the kernel asks for the container of `runc spec`, and nothing else. The bar that rcrun is measured by.
 *
 * It parses no JSON, checks nothing and knows one container: the bundle, the id and the command's name come from an
 * argument list of runc's shape, everything else is written below. What it leaves out (validation, safety against a
 * hostile root, locking) is what a real runtime has to add. What it does not leave out is anything of the container:
 * namespaces, mounts, devices, masks, capabilities, limits, device filter, cgroup and seccomp filter are all there.
 *
 *	floor [--root DIR] run|create [-b BUNDLE] [--pid-file FILE] ID
 *	floor [--root DIR] start|state|delete ID
 *	floor [--root DIR] kill ID SIGNAL
 *	floor [--root DIR] exec ID COMMAND...
 *
 * The environment variable FLOOR_SECCOMP names a file of struct sock_filter to load, as strict as the other runtimes'.
 * The payload is the only other thing that differs by bundle: see payload_of().
 */
#include "bare.h"

#include <asm/ioctls.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <linux/fcntl.h>
#include <linux/filter.h>
#include <linux/mount.h>
#include <linux/prctl.h>
#include <linux/resource.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <linux/sockios.h>
#include <linux/stat.h>

/* The kernel's headers leave these to a libc. */
#define MNT_DETACH 2
#define ENOENT 2
#define ENOTDIR 20
#define AF_UNIX 1
#define SOCK_DGRAM 2
#define SIGKILL 9
#define SIGCHLD 17
#define IFF_UP 1
#ifndef S_IFIFO
#define S_IFIFO 0010000
#define S_IFCHR 0020000
#endif

static const char *bundle = ".", *id = "floor", *pid_file;
static char rootfs[4096], cgroup[4096], state_dir[4096];
static char **payload;
static struct sock_fprog filter;

/* The container that waits for `start`: tells its creator that it is ready, then reads one byte from the fifo. */
static int ready_fd = -1, fifo_fd = -1;

static const unsigned long capabilities = 1 << CAP_KILL | 1 << CAP_NET_BIND_SERVICE | 1 << CAP_AUDIT_WRITE;

static const struct mount_of {
	const char *source, *target, *type, *options;
	unsigned long flags;
} mounts[] = {
	{ "proc", "proc", "proc", 0, 0 },
	{ "tmpfs", "dev", "tmpfs", "mode=755,size=65536k", MS_NOSUID | MS_STRICTATIME },
	{ "devpts", "dev/pts", "devpts", "newinstance,ptmxmode=0666,mode=0620,gid=5", MS_NOSUID | MS_NOEXEC },
	{ "shm", "dev/shm", "tmpfs", "mode=1777,size=65536k", MS_NOSUID | MS_NOEXEC | MS_NODEV },
	{ "mqueue", "dev/mqueue", "mqueue", 0, MS_NOSUID | MS_NOEXEC | MS_NODEV },
	{ "sysfs", "sys", "sysfs", 0, MS_NOSUID | MS_NOEXEC | MS_NODEV | MS_RDONLY },
	{ "cgroup", "sys/fs/cgroup", "cgroup2", 0, MS_NOSUID | MS_NOEXEC | MS_NODEV | MS_RELATIME | MS_RDONLY },
};

static const struct {
	const char *name;
	int major, minor;
} devices[] = {
	{ "dev/null", 1, 3 },	{ "dev/zero", 1, 5 },	 { "dev/full", 1, 7 },
	{ "dev/random", 1, 8 }, { "dev/urandom", 1, 9 }, { "dev/tty", 5, 0 },
};

static const char *const links[][2] = {
	{ "/proc/self/fd", "dev/fd" },	     { "/proc/self/fd/0", "dev/stdin" }, { "/proc/self/fd/1", "dev/stdout" },
	{ "/proc/self/fd/2", "dev/stderr" }, { "/proc/kcore", "dev/core" },	 { "pts/ptmx", "dev/ptmx" },
};

static const char *const masked[] = {
	"/proc/acpi",	    "/proc/asound",	 "/proc/kcore",	      "/proc/keys",    "/proc/latency_stats",
	"/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi",
};

static const char *const readonly[] = {
	"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger",
};

#define EACH(i, table) (unsigned long i = 0; i < sizeof(table) / sizeof *(table); i++)

static char *const environment[] = { "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm", 0 };

static void mount_all(void)
{
	struct mount_attr slave = { .propagation = MS_SLAVE }, read_only = { .attr_set = MOUNT_ATTR_RDONLY };
	/* Slave before the clone: a clone of a shared mount would carry the container's mounts to the host. */
	must(call(mount_setattr, AT_FDCWD, "/", AT_RECURSIVE, &slave, sizeof slave), "mounts to slave");
	long root = must(call(open_tree, AT_FDCWD, rootfs, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE), rootfs);
	must(call(move_mount, root, "", AT_FDCWD, rootfs, MOVE_MOUNT_F_EMPTY_PATH), "attach the root");
	must(call(fchdir, root), "enter the root");

	for EACH (i, mounts) {
		const struct mount_of *m = mounts + i;
		must(call(mount, m->source, m->target, m->type, m->flags, m->options), m->target);
		if (i == 1) {
			call(mkdirat, AT_FDCWD, "dev/pts", 0755);
			call(mkdirat, AT_FDCWD, "dev/shm", 0755);
			call(mkdirat, AT_FDCWD, "dev/mqueue", 0755);
		}
	}
	for EACH (i, devices)
		must(call(mknodat, AT_FDCWD, devices[i].name, S_IFCHR | 0666, devices[i].major << 8 | devices[i].minor),
		     devices[i].name);
	for EACH (i, links)
		must(call(symlinkat, links[i][0], AT_FDCWD, links[i][1]), links[i][1]);

	must(call(pivot_root, ".", "."), "pivot_root");
	must(call(umount2, ".", MNT_DETACH), "leave the old root");
	must(call(chdir, "/"), "/");

	for EACH (i, masked) {
		long error = call(mount, "/dev/null", masked[i], 0, MS_BIND, 0);
		if (error == -ENOTDIR)
			error = call(mount, "tmpfs", masked[i], "tmpfs", MS_RDONLY, "nr_blocks=1,nr_inodes=1");
		if (error != -ENOENT)
			must(error, masked[i]);
	}
	for EACH (i, readonly) {
		if (call(mount, readonly[i], readonly[i], 0, MS_BIND | MS_REC, 0) == -ENOENT)
			continue;
		must(call(mount, 0, readonly[i], 0, MS_BIND | MS_REMOUNT | MS_RDONLY, 0), readonly[i]);
	}
	must(call(mount_setattr, root, "", AT_EMPTY_PATH, &read_only, sizeof read_only), "read-only root");
}

static void raise_loopback(void)
{
	struct {
		char name[16];
		short flags;
		char rest_of_ifreq[22];
	} request = { .name = "lo", .flags = IFF_UP };
	long socket = must(call(socket, AF_UNIX, SOCK_DGRAM, 0), "socket");
	must(call(ioctl, socket, SIOCSIFFLAGS, &request), "loopback up");
	call(close, socket);
}

/* What `exec` does too: everything of `process` in config.json, ending in the execve. */
__attribute__((noreturn)) static void become_payload(void)
{
	struct rlimit open_files = { 1024, 1024 };
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct sets[2] = { { .effective = capabilities, .permitted = capabilities } };

	call(umask, 0022);
	call(setsid);
	must(call(prlimit64, 0, RLIMIT_NOFILE, &open_files, 0), "RLIMIT_NOFILE");
	for (int c = 0; c <= CAP_LAST_CAP; c++)
		if (!(capabilities >> c & 1))
			must(call(prctl, PR_CAPBSET_DROP, c), "bounding set");
	must(call(setgroups, 0, 0), "setgroups");
	must(call(setresgid, 0, 0, 0), "setresgid");
	must(call(setresuid, 0, 0, 0), "setresuid");
	must(call(capset, &head, sets), "capset");
	must(call(prctl, PR_SET_NO_NEW_PRIVS, 1), "no_new_privs");
	must(call(close_range, 3, ~0u, CLOSE_RANGE_CLOEXEC), "close_range");
	if (filter.len)
		must(call(seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter), "seccomp");
	must(call(execve, payload[0], payload, environment), payload[0]);
	leave(71);
}

static void container(void)
{
	call(umask, 0);
	mount_all();
	must(call(sethostname, "runc", 4), "sethostname");
	raise_loopback();
	if (ready_fd >= 0) {
		char byte = 0;
		must(call(write, ready_fd, &byte, 1), "tell the creator");
		call(close, ready_fd);
		must(call(read, fifo_fd, &byte, 1), "wait for start");
	}
	become_payload();
}

static void child_of_exec(void)
{
	become_payload();
}

/*
 * clone3 whose child shares this address space and runs `entry` on a stack of its own: no page tables are copied. With
 * CLONE_VFORK the parent sleeps until the child's execve.
 */
static char stack[32768] __attribute__((aligned(16)));

static long clone_onto(struct clone_args *args, void (*entry)(void))
{
	args->flags |= CLONE_VM;
	args->exit_signal = SIGCHLD;
	args->stack = (unsigned long)stack;
	args->stack_size = sizeof stack;
	long pid;
#if defined(__x86_64__)
	register void (*r12)(void) __asm__("r12") = entry;
	__asm__ volatile("syscall\n test %%rax, %%rax\n jnz 1f\n xor %%ebp, %%ebp\n call *%1\n hlt\n1:"
			 : "=a"(pid)
			 : "r"(r12), "a"(__NR_clone3), "D"(args), "S"(sizeof *args)
			 : "rcx", "r11", "memory");
#else
	register long x8 __asm__("x8") = __NR_clone3, x0 __asm__("x0") = (long)args, x1 __asm__("x1") = sizeof *args;
	register void (*x9)(void) __asm__("x9") = entry;
	__asm__ volatile("svc 0\n cbnz x0, 1f\n blr %3\n brk 0\n1:"
			 : "+r"(x0)
			 : "r"(x8), "r"(x1), "r"(x9)
			 : "memory", "x30");
	pid = x0;
#endif
	return must(pid, "clone3");
}

/* runc's default device rules as a cgroup program, loaded and attached. */
static void attach_device_filter(long cgroup_fd)
{
	static const int allowed[][3] = {
		/* type, major, minor; -1 is any. mknod of anything is allowed, as runc does. */
		{ BPF_DEVCG_DEV_CHAR, 1, 3 }, { BPF_DEVCG_DEV_CHAR, 1, 5 },    { BPF_DEVCG_DEV_CHAR, 1, 7 },
		{ BPF_DEVCG_DEV_CHAR, 1, 8 }, { BPF_DEVCG_DEV_CHAR, 1, 9 },    { BPF_DEVCG_DEV_CHAR, 5, 0 },
		{ BPF_DEVCG_DEV_CHAR, 5, 2 }, { BPF_DEVCG_DEV_CHAR, 136, -1 },
	};
	struct bpf_insn program[64];
	int n = 0;
#define INSN(c, dst, src, o, i) \
	program[n++] = (struct bpf_insn) { .code = c, .dst_reg = dst, .src_reg = src, .off = o, .imm = i }
	INSN(BPF_LDX | BPF_MEM | BPF_W, 2, 1, 0, 0); /* access_type: type in the low half, access in the high */
	INSN(BPF_ALU64 | BPF_MOV | BPF_X, 3, 2, 0, 0);
	INSN(BPF_ALU | BPF_AND | BPF_K, 2, 0, 0, 0xffff);
	INSN(BPF_ALU | BPF_RSH | BPF_K, 3, 0, 0, 16);
	INSN(BPF_LDX | BPF_MEM | BPF_W, 4, 1, 4, 0); /* major */
	INSN(BPF_LDX | BPF_MEM | BPF_W, 5, 1, 8, 0); /* minor */
	INSN(BPF_JMP | BPF_JNE | BPF_K, 3, 0, 2, BPF_DEVCG_ACC_MKNOD);
	INSN(BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 1);
	INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
	for EACH (i, allowed) {
		int to_next = allowed[i][2] < 0 ? 2 : 3;
		INSN(BPF_JMP | BPF_JNE | BPF_K, 2, 0, to_next + 1, allowed[i][0]);
		INSN(BPF_JMP | BPF_JNE | BPF_K, 4, 0, to_next, allowed[i][1]);
		if (allowed[i][2] >= 0)
			INSN(BPF_JMP | BPF_JNE | BPF_K, 5, 0, 2, allowed[i][2]);
		INSN(BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 1);
		INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
	}
	INSN(BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 0);
	INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0);

	union bpf_attr attr = {};
	attr.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
	attr.insns = (unsigned long)program;
	attr.insn_cnt = n;
	attr.license = (unsigned long)"GPL";
	long fd = must(call(bpf, BPF_PROG_LOAD, &attr, sizeof attr), "load the device filter");
	memset(&attr, 0, sizeof attr);
	attr.target_fd = cgroup_fd;
	attr.attach_bpf_fd = fd;
	attr.attach_type = BPF_CGROUP_DEVICE;
	attr.attach_flags = BPF_F_ALLOW_MULTI;
	must(call(bpf, BPF_PROG_ATTACH, &attr, sizeof attr), "attach the device filter");
	call(close, fd);
}

static void write_file(const char *path, const char *text)
{
	long fd = must(call(openat, AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0600), path);
	must(call(write, fd, text, length(text)), path);
	call(close, fd);
}

static const char *in_state_dir(const char *name)
{
	static char path[4096];
	append(append(append(path, state_dir), "/"), name);
	return path;
}

static long read_file(const char *path, char *into, long size)
{
	long fd = call(openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
	if (fd < 0)
		return fd;
	long n = call(read, fd, into, size - 1);
	call(close, fd);
	if (n >= 0)
		into[n] = 0;
	return n;
}

/* The state file begins with the pid, then holds the text that `state` prints. */
static char state_text[8192];

static long pid_of_container(void)
{
	must(read_file(in_state_dir("state"), state_text, sizeof state_text), state_dir);
	return number_in(state_text);
}

static void write_state(long pid)
{
	char *end = append_number(state_text, pid);
	end = append(append(end, "\n{\"ociVersion\":\"1.0.2\",\"id\":\""), id);
	end = append_number(append(end, "\",\"pid\":"), pid);
	end = append(append(append(end, ",\"bundle\":\""), bundle), "\"");
	write_file(in_state_dir("state"), state_text);
	if (pid_file) {
		append_number(state_text, pid);
		write_file(pid_file, state_text);
	}
}

static void run_or_create(int create)
{
	struct clone_args args = {
		.flags = CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP |
			 CLONE_INTO_CGROUP,
	};
	int ready[2];

	must(call(mkdirat, AT_FDCWD, cgroup, 0755), cgroup);
	args.cgroup = must(call(openat, AT_FDCWD, cgroup, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0), cgroup);
	attach_device_filter(args.cgroup);
	/* `run` has a state too while it runs: other commands must find the container. */
	must(call(mkdirat, AT_FDCWD, state_dir, 0700), state_dir);
	if (create) {
		must(call(mknodat, AT_FDCWD, in_state_dir("fifo"), S_IFIFO | 0600, 0), "fifo");
		fifo_fd = must(call(openat, AT_FDCWD, in_state_dir("fifo"), O_RDWR | O_CLOEXEC, 0), "fifo");
		must(call(pipe2, ready, O_CLOEXEC), "pipe");
		ready_fd = ready[1];
	} else {
		args.flags |= CLONE_VFORK;
	}
	long pid = clone_onto(&args, container);
	if (create) {
		char byte;
		call(close, ready[1]);
		if (call(read, ready[0], &byte, 1) != 1)
			must(-1, "the container died before it was ready");
		write_state(pid);
		return;
	}
	write_state(pid);
	int status;
	must(call(wait4, pid, &status, 0, 0), "wait");
	call(unlinkat, AT_FDCWD, in_state_dir("state"), 0);
	call(unlinkat, AT_FDCWD, state_dir, AT_REMOVEDIR);
	must(call(unlinkat, AT_FDCWD, cgroup, AT_REMOVEDIR), cgroup);
	leave(status >> 8 & 0xff);
}

static void exec(void)
{
	long pidfd = must(call(pidfd_open, pid_of_container(), 0), "pidfd_open");
	struct clone_args args = { .flags = CLONE_INTO_CGROUP | CLONE_VFORK };
	args.cgroup = must(call(openat, AT_FDCWD, cgroup, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0), cgroup);
	must(call(setns, pidfd,
		  CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP),
	     "setns");
	long pid = clone_onto(&args, child_of_exec);
	int status;
	must(call(wait4, pid, &status, 0, 0), "wait");
	leave(status >> 8 & 0xff);
}

static void start(void)
{
	char byte = 0;
	long fifo = must(call(openat, AT_FDCWD, in_state_dir("fifo"), O_WRONLY | O_CLOEXEC, 0), "fifo");
	must(call(write, fifo, &byte, 1), "release the container");
	must(call(unlinkat, AT_FDCWD, in_state_dir("fifo"), 0), "fifo");
}

static void state(void)
{
	char path[64], stat[512];
	long pid = pid_of_container();
	append(append_number(append(path, "/proc/"), pid), "/stat");
	const char *status = "running", *after_name = stat;
	long size = read_file(path, stat, sizeof stat);
	while (size > 0 && *after_name != ')')
		after_name++;
	if (size < 0 || after_name[2] == 'Z')
		status = "stopped";
	else if (call(faccessat, AT_FDCWD, in_state_dir("fifo"), 0) == 0)
		status = "created";
	char *end = state_text;
	while (*end++ != '\n')
		;
	char *json = end;
	while (*end)
		end++;
	end = append(append(append(end, ",\"status\":\""), status), "\"}\n");
	must(call(write, 1, json, end - json), "print the state");
}

/* The harness always sends KILL. */
static void kill_container(void)
{
	must(call(kill, pid_of_container(), SIGKILL), "kill");
}

static void delete_container(void)
{
	must(call(unlinkat, AT_FDCWD, in_state_dir("state"), 0), "state file");
	must(call(unlinkat, AT_FDCWD, state_dir, AT_REMOVEDIR), state_dir);
	must(call(unlinkat, AT_FDCWD, cgroup, AT_REMOVEDIR), cgroup);
}

/* What a bundle runs, by its folder's name: sleep, nothing, or anything else (true). */
static char **payload_of(const char *path)
{
	static char *quick[] = { "/bin/true", 0 }, *sleeping[] = { "/bin/sleep", "100000", 0 }, *tiny[] = { "/bin/nothing", 0 };
	const char *name = path;
	for (; *path; path++)
		if (*path == '/')
			name = path + 1;
	return *name == 's' ? sleeping : *name == 'n' ? tiny : quick;
}

static void load_filter(char **envp)
{
	static struct sock_filter instructions[BPF_MAXINSNS];
	static const char name[] = "FLOOR_SECCOMP=";
	for (; *envp; envp++) {
		unsigned long i = 0;
		while (name[i] && (*envp)[i] == name[i])
			i++;
		if (name[i])
			continue;
		long fd = must(call(openat, AT_FDCWD, *envp + i, O_RDONLY | O_CLOEXEC, 0), *envp);
		long size = must(call(read, fd, instructions, sizeof instructions), *envp);
		call(close, fd);
		filter.len = size / sizeof *instructions;
		filter.filter = instructions;
	}
}

int main(int argc, char **argv, char **envp)
{
	const char *root = "/run/floor", *verb;
	int i = 1;
	for (; i < argc && argv[i][0] == '-'; i += 2)
		if (same(argv[i], "--root") && i + 1 < argc)
			root = argv[i + 1];
	if (i >= argc) {
		call(write, 1, "floor\n", 6); /* --version */
		return 0;
	}
	verb = argv[i++];
	for (; i + 1 < argc && argv[i][0] == '-'; i += 2) {
		if (same(argv[i], "-b") || same(argv[i], "--bundle"))
			bundle = argv[i + 1];
		else if (same(argv[i], "--pid-file"))
			pid_file = argv[i + 1];
	}
	if (i < argc)
		id = argv[i++];
	append(append(rootfs, bundle), "/rootfs");
	append(append(cgroup, "/sys/fs/cgroup/"), id);
	append(append(append(state_dir, root), "/"), id);
	payload = i < argc ? argv + i : payload_of(bundle);

	if (same(verb, "run") || same(verb, "create")) {
		load_filter(envp);
		run_or_create(verb[0] == 'c');
	} else if (same(verb, "exec")) {
		load_filter(envp);
		exec();
	} else if (same(verb, "start")) {
		start();
	} else if (same(verb, "state")) {
		state();
	} else if (same(verb, "kill")) {
		kill_container();
	} else if (same(verb, "delete")) {
		delete_container();
	} else {
		return 1;
	}
	return 0;
}
