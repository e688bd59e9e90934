/*
 * check.h
 *		The few lines that a unit test needs to speak TAP.
 *
 * The leaves are tested by small programs that link nothing of the server but
 * libpgcommon and libpgport.  prove(1) runs them, so each prints one line for
 * each check and a plan at the end, and exits with 1 if a check failed.  The
 * including file includes postgres.h first.
 *
 *		int main(void) { CHECK(1 + 1 == 2, "adds"); return check_done(); }
 */
#ifndef RETRY_CHECK_H
#define RETRY_CHECK_H

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static int	check_count = 0;
static int	check_failures = 0;

/* Print one result; the name is a format. */
static inline bool pg_attribute_printf(4, 5)
check_report(bool good, const char *file, int line, const char *name,...)
{
	va_list		args;

	printf("%sok %d - ", good ? "" : "not ", ++check_count);
	va_start(args, name);
	vprintf(name, args);
	va_end(args);
	printf("\n");
	if (!good)
	{
		check_failures++;
		printf("#   at %s line %d\n", file, line);
	}
	fflush(stdout);
	return good;
}

static inline void
check_int(long long got, long long want, const char *file, int line,
		  const char *name)
{
	if (!check_report(got == want, file, line, "%s", name))
		printf("#   got %lld, want %lld\n", got, want);
}

static inline void
check_str(const char *got, const char *want, const char *file, int line,
		  const char *name)
{
	if (!check_report(strcmp(got, want) == 0, file, line, "%s", name))
		printf("#   got  %s\n#   want %s\n", got, want);
}

/* The next of a fixed series of random numbers: failures can be repeated. */
static inline uint64
check_random(void)
{
	static uint64 state = UINT64CONST(88172645463325252);

	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state * UINT64CONST(2685821657736338717);
}

/* Print the plan; the value is main's. */
static inline int
check_done(void)
{
	printf("1..%d\n", check_count);
	return check_failures > 0 ? 1 : 0;
}

/* CHECK(condition, format, ...) */
#define CHECK(cond, ...) check_report((cond), __FILE__, __LINE__, __VA_ARGS__)
/* CHECK_INT(got, want, name): integers of any width */
#define CHECK_INT(got, want, name) \
	check_int((long long) (got), (long long) (want), __FILE__, __LINE__, (name))
/* CHECK_STR(got, want, name): terminated strings */
#define CHECK_STR(got, want, name) \
	check_str((got), (want), __FILE__, __LINE__, (name))

#endif							/* RETRY_CHECK_H */
