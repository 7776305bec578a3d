/* The payload when memory is measured: a process as small as one can be, so that only the runtime shows. */
#include "bare.h"

int main(int argc, char **argv, char **envp)
{
	(void)argc, (void)argv, (void)envp;
	return 0;
}
