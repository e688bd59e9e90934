/*
 * clock.c
 *		A wall clock that a test can set, for one server: preloaded into it.
 *
 * The file named by RETRY_TEST_CLOCK holds a number of seconds, a native int64,
 * that is added to the time of day in every process that has the library.  The
 * file is mapped, so that a change counts at once, for all.  (libfaketime will
 * not do: it tells the truth while a call such as select() is interrupted, and
 * before version 16 the postmaster starts its workers just then.)
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *offset = NULL;

__attribute__((constructor))
static void
map_offset(void)
{
	const char *name = getenv("RETRY_TEST_CLOCK");
	int			fd = name != NULL ? open(name, O_RDONLY) : -1;

	if (fd >= 0)
	{
		void	   *map = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, fd, 0);

		if (map != MAP_FAILED)
			offset = map;
		close(fd);
	}
}

int
clock_gettime(clockid_t clock, struct timespec *ts)
{
	int			rc = syscall(SYS_clock_gettime, clock, ts);

	if (rc == 0 && offset != NULL && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
		ts->tv_sec += *offset;
	return rc;
}

int
gettimeofday(struct timeval *restrict tv, void *restrict zone)
{
	struct timespec ts;

	if (clock_gettime(CLOCK_REALTIME, &ts) != 0)
		return -1;
	tv->tv_sec = ts.tv_sec;
	tv->tv_usec = ts.tv_nsec / 1000;
	return 0;
}

time_t
time(time_t *result)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	if (result != NULL)
		*result = ts.tv_sec;
	return ts.tv_sec;
}
