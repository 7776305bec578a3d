/*
 * peak COMMAND...: runs a command (a path) and prints the most memory, in KiB, that it or any process it waited for
 * had resident, and the page faults of all of them. A program of its own because execve hands the caller's peak on to the child: a larger one would be
 * measured itself. For the same reason it forks and does not vfork.
 */
#include "bare.h"

#include <linux/resource.h>

#define SIGCHLD 17

int main(int argc, char **argv, char **envp)
{
	struct rusage usage;
	int status;
	char line[64], *end;

	if (argc < 2)
		return 2;
	long pid = must(call(clone, SIGCHLD, 0, 0, 0, 0), "fork");
	if (pid == 0)
		must(call(execve, argv[1], argv + 1, envp), argv[1]);
	must(call(wait4, pid, &status, 0, &usage), "wait");
	end = append(append_number(line, usage.ru_maxrss), " ");
	end = append(append_number(end, usage.ru_minflt + usage.ru_majflt), "\n");
	must(call(write, 1, line, end - line), "print");
	return status ? 1 : 0;
}
