// Traces every process that appears in its pid namespace, from the first moment that the kernel allows to its execve of
// a program of the container (CVE-2016-9962), and writes to argv[1] what each has at each of its stops: a line each,
// told once. Ends by SIGTERM. Needs CAP_SYS_PTRACE; its own line comes first, and is the measure for the others.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "pids.h"

#define TEXT 4096

static const char *const namespaces[] = {"cgroup", "ipc", "mnt", "net", "pid", "pid_for_children", "time",
                                         "time_for_children", "user", "uts"};
#define NAMESPACES (sizeof namespaces / sizeof *namespaces)
static char own_namespaces[NAMESPACES][64];
static int own_mounts[512], mounts;
static FILE *out;
static volatile sig_atomic_t over;

static void end(int signal) {
  (void)signal;
  over = 1;
}

static int link_of(char *text, size_t size, int pid, const char *folder, const char *name) {
  char path[512];
  snprintf(path, sizeof path, "/proc/%d/%s%s", pid, folder, name);
  ssize_t length = readlink(path, text, size - 1);
  text[length < 0 ? 0 : length] = 0;
  return length < 0 ? -errno : 0;
}

static int mount_of(const char *fdinfo) {
  char line[256];
  int id = -1;
  FILE *file = fopen(fdinfo, "r");
  while (file && fgets(line, sizeof line, file))
    sscanf(line, "mnt_id: %d", &id);
  if (file)
    fclose(file);
  return id;
}

static int is_own_mount(int id) {
  for (int i = 0; i < mounts; i++)
    if (own_mounts[i] == id)
      return 1;
  return 0;
}

// An fd that leads nowhere but to a process or to memory, or to a mount of the container.
static int is_own_fd(int pid, const char *name, const char *link) {
  static const char *const nowhere[] = {"pipe:", "socket:", "anon_inode:", "/memfd:"};
  for (size_t i = 0; i < sizeof nowhere / sizeof *nowhere; i++)
    if (!strncmp(link, nowhere[i], strlen(nowhere[i])))
      return 1;
  for (size_t i = 0; i < NAMESPACES; i++)
    if (!strcmp(link, own_namespaces[i]))
      return 1;
  char path[512];
  snprintf(path, sizeof path, "/proc/%d/fdinfo/%s", pid, name);
  return is_own_mount(mount_of(path));
}

// The end of `text`, to which more is added.
static char *more(char *text) {
  return text + strlen(text);
}
#define ADD(text, ...) snprintf(more(text), TEXT - strlen(text), __VA_ARGS__)

static void tell_status(char *text, int pid) {
  char path[64], line[512];
  snprintf(path, sizeof path, "/proc/%d/status", pid);
  FILE *file = fopen(path, "r");
  while (file && fgets(line, sizeof line, file)) {
    line[strcspn(line, "\n")] = 0;
    if (strncmp(line, "Cap", 3) && strncmp(line, "Uid:", 4))
      continue;
    for (char *c = line; (c = strchr(c, '\t'));)
      *c = c[-1] == ':' ? ' ' : ',';
    char *value = strstr(line, ": ");
    *value = 0;
    ADD(text, " %s=%s", line, value + 2);
  }
  if (file)
    fclose(file);
}

static void tell_fds(char *text, int pid) {
  char path[64], link[512];
  snprintf(path, sizeof path, "/proc/%d/fd", pid);
  DIR *folder = opendir(path);
  struct dirent *entry;
  ADD(text, " fds=");
  if (!folder)
    ADD(text, "%s", strerrorname_np(errno));
  while (folder && (entry = readdir(folder))) {
    // stdio is the payload's.
    if (atoi(entry->d_name) <= 2 || link_of(link, sizeof link, pid, "fd/", entry->d_name))
      continue;
    if (!is_own_fd(pid, entry->d_name, link))
      ADD(text, "%s->%s;", entry->d_name, link);
  }
  if (folder)
    closedir(folder);
}

static int same_file(const char *a, const char *b) {
  struct stat x, y;
  return !stat(a, &x) && !stat(b, &y) && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

// What process `pid` is now; one that is going away tells nothing.
static void look(int pid) {
  static char last[TEXT];
  char text[TEXT] = "", path[64], info[64], link[512];
  if (link_of(link, sizeof link, pid, "", "exe"))
    return;
  link[strcspn(link, " ")] = 0; // before " (deleted)"
  // Of a file that is mounted nowhere any more the link tells no name.
  struct stat file;
  snprintf(path, sizeof path, "/proc/%d/exe", pid);
  if (stat(path, &file))
    return;
  ADD(text, "pid=%d exe=%s file=%lu:%lu", pid, link, (unsigned long)file.st_dev, (unsigned long)file.st_ino);
  tell_status(text, pid);
  ADD(text, " namespaces=");
  for (size_t i = 0; i < NAMESPACES; i++) {
    int error = link_of(link, sizeof link, pid, "ns/", namespaces[i]);
    if (!error && strcmp(link, own_namespaces[i]))
      ADD(text, "%s;", namespaces[i]);
    else if (error && error != -ENOENT)
      return;
  }
  snprintf(path, sizeof path, "/proc/%d/root", pid);
  ADD(text, " root=%s", same_file(path, "/") ? "own" : "other");
  snprintf(path, sizeof path, "/proc/%d/cwd", pid);
  int cwd = open(path, O_PATH | O_CLOEXEC);
  if (cwd < 0)
    return;
  snprintf(info, sizeof info, "/proc/self/fdinfo/%d", cwd);
  ADD(text, " cwd=%s", is_own_mount(mount_of(info)) ? "own" : "other");
  close(cwd);
  tell_fds(text, pid);
  if (strcmp(text, last)) {
    fprintf(out, "%s\n", text);
    strcpy(last, text);
  }
}

static int runs_the_containers(int pid) {
  char link[512];
  return !link_of(link, sizeof link, pid, "", "exe") && !strncmp(link, "/bin/", 5);
}

static void stopped(int pid, int status) {
  int signal = WSTOPSIG(status), event = status >> 16;
  look(pid);
  if (runs_the_containers(pid)) {
    ptrace(PTRACE_DETACH, pid, 0, 0);
    return;
  }
  int is_its = !event && signal != (SIGTRAP | 0x80);
  ptrace(PTRACE_SYSCALL, pid, 0, is_its ? signal : 0);
}

static int attached, refused;
static int waiting[64], waiters; // not to be traced yet: perhaps at a later moment

static int seize(int pid) {
  const long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEEXEC | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK |
                       PTRACE_O_TRACEVFORK;
  if (ptrace(PTRACE_SEIZE, pid, 0, options))
    return 0;
  ptrace(PTRACE_INTERRUPT, pid, 0, 0);
  attached++;
  return 1;
}

// A thread of what is traced already, or of what is not: the first thread stands for all. To ask for another's would wait
// for an execve of that process, which waits for its traced threads to be waited for.
static int is_thread_or_traced(int pid) {
  char path[64], line[256];
  int number, is = 0;
  snprintf(path, sizeof path, "/proc/%d/status", pid);
  FILE *file = fopen(path, "r");
  while (file && fgets(line, sizeof line, file)) {
    if (sscanf(line, "Tgid: %d", &number) == 1)
      is |= number != pid;
    if (sscanf(line, "TracerPid: %d", &number) == 1)
      is |= number == getpid();
  }
  if (file)
    fclose(file);
  return is;
}

static int meet(int pid) {
  if (is_thread_or_traced(pid) || seize(pid))
    return 1;
  if (errno == ESRCH)
    return 0;
  refused++;
  if (waiters == sizeof waiting / sizeof *waiting)
    abort();
  waiting[waiters++] = pid;
  return 1;
}

static void try_again(void) {
  for (int i = 0; i < waiters; i++)
    if (is_thread_or_traced(waiting[i]) || seize(waiting[i]) || errno == ESRCH)
      waiting[i--] = waiting[--waiters];
}

int main(int count, char **args) {
  char line[512];
  out = count == 2 ? fopen(args[1], "w") : NULL;
  if (!out)
    return 1;
  signal(SIGTERM, end);
  for (size_t i = 0; i < NAMESPACES; i++)
    link_of(own_namespaces[i], sizeof *own_namespaces, getpid(), "ns/", namespaces[i]);
  FILE *file = fopen("/proc/self/mountinfo", "r");
  while (file && mounts < 512 && fgets(line, sizeof line, file))
    own_mounts[mounts++] = atoi(line);
  look(getpid());
  int last = getpid();
  printf("watching\n");
  fflush(stdout);
  while (!over) {
    last = meet_after(last, meet);
    try_again();
    int status, pid;
    while ((pid = waitpid(-1, &status, __WALL | WNOHANG)) > 0)
      if (WIFSTOPPED(status))
        stopped(pid, status);
  }
  fclose(out);
  printf("attached %d refused %d\n", attached, refused);
  return 0;
}
