/*
 * What the benchmark's C programs stand on: raw system calls and nothing else. No libc, so that starting the program
 * costs what the kernel asks and no more (about 80 us; musl 90, glibc 250). With HOSTED defined, the C library's own start
 * files come before main, as in any C program; the calls stay bare.
 */
#ifndef BARE_H
#define BARE_H

#include <asm/unistd.h>
#include <linux/types.h>

static inline long call6(long n, long a, long b, long c, long d, long e, long f)
{
#if defined(__x86_64__)
	register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
	long ret;
	__asm__ volatile("syscall"
			 : "=a"(ret)
			 : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return ret;
#elif defined(__aarch64__)
	register long x8 __asm__("x8") = n, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d, x4 __asm__("x4") = e, x5 __asm__("x5") = f;
	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
	return x0;
#else
#error "the floor is written for x86_64 and aarch64"
#endif
}

#define CALL_N(n, a, b, c, d, e, f, ...) call6(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))
/* call(mkdirat, AT_FDCWD, path, 0755): the result, or minus errno. */
#define call(name, ...) CALL_N(__NR_##name, ##__VA_ARGS__, 0, 0, 0, 0, 0, 0)

#ifdef HOSTED
#include <string.h>
#else
/* gcc emits calls to these two by itself. */
void *memset(void *to, int byte, unsigned long n)
{
	char *p = to;
	while (n--) {
		*p++ = byte;
		__asm__ volatile("" ::: "memory");
	}
	return to;
}

void *memcpy(void *to, const void *from, unsigned long n)
{
	char *p = to;
	const char *q = from;
	while (n--) {
		*p++ = *q++;
		__asm__ volatile("" ::: "memory");
	}
	return to;
}
#endif

static inline unsigned long length(const char *s)
{
	unsigned long n = 0;
	while (s[n])
		n++;
	return n;
}

static inline int same(const char *a, const char *b)
{
	while (*a && *a == *b)
		a++, b++;
	return *a == *b;
}

/* Appends text at `end` and returns the new end; the buffers below are larger than any path the harness makes. */
static inline char *append(char *end, const char *text)
{
	while ((*end = *text++))
		end++;
	return end;
}

static inline char *append_number(char *end, unsigned long number)
{
	char digits[24], *p = digits + sizeof digits - 1;
	*p = 0;
	do
		*--p = '0' + number % 10;
	while (number /= 10);
	return append(end, p);
}

static inline unsigned long number_in(const char *s)
{
	unsigned long n = 0;
	while (*s >= '0' && *s <= '9')
		n = n * 10 + (*s++ - '0');
	return n;
}

__attribute__((noreturn)) static inline void leave(int status)
{
	for (;;)
		call(exit_group, status);
}

/* Ends the program with one sentence on stderr if a call failed; returns its result otherwise. */
static inline long must(long result, const char *what)
{
	char line[512], *end = line;
	if (result >= 0)
		return result;
	end = append(end, "bench: ");
	end = append(end, what);
	end = append(end, ": errno ");
	end = append_number(end, -result);
	end = append(end, "\n");
	call(write, 2, line, end - line);
	leave(70);
}

int main(int argc, char **argv, char **envp);

#ifndef HOSTED
__attribute__((noreturn, used)) static void enter(long *stack)
{
	leave(main(stack[0], (char **)(stack + 1), (char **)(stack + 2 + stack[0])));
}

#if defined(__x86_64__)
__asm__(".globl _start\n_start: xor %ebp, %ebp\n mov %rsp, %rdi\n and $-16, %rsp\n call enter\n");
#else
__asm__(".globl _start\n_start: mov x0, sp\n bl enter\n");
#endif
#endif

#endif
