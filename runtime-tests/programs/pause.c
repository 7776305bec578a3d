// The first process of a pod: holds its namespaces, reaps what is left to it, ends by SIGTERM or SIGINT.
#include <signal.h>
#include <sys/wait.h>

int main(void) {
  sigset_t set;
  int signal;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGCHLD);
  sigprocmask(SIG_BLOCK, &set, 0);
  while (!sigwait(&set, &signal) && signal == SIGCHLD)
    while (waitpid(-1, 0, WNOHANG) > 0)
      ;
  return 0;
}
