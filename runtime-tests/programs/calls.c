// Makes calls that a container's filter forbids or not, and says what each gave: `mount EPERM`. None could do harm where it
// is let through: it names no file that there is. It runs as the first process of a pid namespace only.
#define _GNU_SOURCE
#include <asm/termbits.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/personality.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void say(const char *what, long result)
{
    printf("%s %s\n", what, result >= 0 ? "ok" : strerrorname_np(errno));
    fflush(stdout);
}

int main(void)
{
    if (getpid() != 1)
        return 2;
    say("mount", syscall(SYS_mount, "none", "/nothing", "tmpfs", 0, 0));
    say("umount2", syscall(SYS_umount2, "/nothing", 0));
    say("unshare-user", unshare(CLONE_NEWUSER));
    say("unshare-files", unshare(CLONE_FILES));
    say("clone-net", syscall(SYS_clone, CLONE_NEWNET | CLONE_SIGHAND, 0, 0, 0, 0));
    say("clone3", syscall(SYS_clone3, 0, 0));
    say("setns", setns(0, 0));
    say("bpf", syscall(SYS_bpf, 0, 0, 0));
    say("keyctl", syscall(SYS_keyctl, 0, -3, 0));
    say("add_key", syscall(SYS_add_key, "user", "x", "y", 1, -3));
    say("io_uring_setup", syscall(SYS_io_uring_setup, 1, 0));
    say("userfaultfd", syscall(SYS_userfaultfd, 1));
    say("perf_event_open", syscall(SYS_perf_event_open, 0, 0, -1, -1, 0));
    say("kexec_load", syscall(SYS_kexec_load, 0, 99, 0, 0));
    say("init_module", syscall(SYS_init_module, 0, 0, ""));
    say("open_by_handle_at", syscall(SYS_open_by_handle_at, -1, 0, 0));
    say("settimeofday", syscall(SYS_settimeofday, 1, 1));
    say("swapon", syscall(SYS_swapon, "/nothing", 0));
    say("newer", syscall(9999));
    say("personality-exec", personality(READ_IMPLIES_EXEC));
    say("personality-aslr", personality(ADDR_NO_RANDOMIZE));
    say("socket-inet", socket(AF_INET, SOCK_STREAM, 0));
    say("socket-packet", socket(AF_PACKET, SOCK_RAW, 0));
    say("socket-alg", socket(AF_ALG, SOCK_SEQPACKET, 0));
    say("socket-alg-high", syscall(SYS_socket, 1L << 32 | AF_ALG, SOCK_SEQPACKET, 0));
    say("socket-vsock", socket(AF_VSOCK, SOCK_STREAM, 0));
    say("socket-can", socket(AF_CAN, SOCK_RAW, 1));
    int pair[2];
    say("socketpair-unix", socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    say("socketpair-tipc", socketpair(AF_TIPC, SOCK_STREAM, 0, pair));
    // Without a terminal: what is let through is told that the fd is none.
    say("tiocsti", ioctl(-1, TIOCSTI, "x"));
    say("tiocsti-high", syscall(SYS_ioctl, -1, 1L << 32 | TIOCSTI, "x"));
    say("tcgets", ioctl(-1, TCGETS, 0));
    pid_t child = fork();
    if (child == 0) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        raise(19);
        _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    say("ptrace", WIFSTOPPED(status) ? ptrace(PTRACE_CONT, child, 0, 0) : (errno = ECHILD, -1));
    waitpid(child, &status, 0);
    return 0;
}
