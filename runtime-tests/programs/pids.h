// Which processes have appeared in a pid namespace, for a watcher that must miss none, however late it is.
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// The number that was given last: the end of /proc/loadavg (proc_loadavg(5)).
static int newest_pid(void) {
  static int loadavg = -1;
  char text[128];
  if (loadavg < 0)
    loadavg = open("/proc/loadavg", O_RDONLY | O_CLOEXEC);
  ssize_t length = pread(loadavg, text, sizeof text - 1, 0);
  text[length < 0 ? 0 : length] = 0;
  char *last = strrchr(text, ' ');
  return last ? atoi(last + 1) : 0;
}

// Calls `meet` with each pid after `last` until it finds none, and returns the last that was met or is gone for good. A
// number is given before the process can be seen, so the newest one is asked for again and again.
static int meet_after(int last, int (*meet)(int pid)) {
  int newest = newest_pid();
  for (int pid = last + 1; pid <= newest + 1; pid++)
    if (meet(pid) || pid < newest - 1)
      last = pid;
  return last;
}
