/*
 * clock.c
 *		A wall clock that a test can move, for a whole PostgreSQL server.
 *
 * Preloaded into the postmaster, it adds an offset to what gettimeofday(),
 * clock_gettime(CLOCK_REALTIME) and time() say, in all processes at once: the
 * offset lies in a file that everybody maps, eight bytes of microseconds in
 * the machine's order.  The monotonic clock is left alone.  libfaketime does
 * not serve here: the postmaster starts workers from a signal handler, inside
 * calls that libfaketime does not fake, and they then stay with the true time.
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

static volatile int64_t *offset_us;

__attribute__((constructor)) static void
map_offset(void)
{
	const char *path = getenv("RETRY_TEST_CLOCK");
	int			fd = path != NULL ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	void	   *map;

	if (fd < 0)
		return;
	map = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, fd, 0);
	if (map != MAP_FAILED)
		offset_us = map;
	close(fd);
}

int
clock_gettime(clockid_t id, struct timespec *ts)
{
	int			rc = (int) syscall(SYS_clock_gettime, id, ts);
	int64_t		us;

	if (rc != 0 || offset_us == NULL ||
		(id != CLOCK_REALTIME && id != CLOCK_REALTIME_COARSE))
		return rc;
	us = *offset_us + ts->tv_nsec / 1000;
	ts->tv_sec += us / 1000000;
	us %= 1000000;
	if (us < 0)
	{
		us += 1000000;
		ts->tv_sec--;
	}
	ts->tv_nsec = us * 1000 + ts->tv_nsec % 1000;
	return 0;
}

int
gettimeofday(struct timeval *restrict tv, void *restrict zone)
{
	struct timespec ts;

	(void) zone;
	clock_gettime(CLOCK_REALTIME, &ts);
	tv->tv_sec = ts.tv_sec;
	tv->tv_usec = ts.tv_nsec / 1000;
	return 0;
}

time_t
time(time_t *t)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	if (t != NULL)
		*t = ts.tv_sec;
	return ts.tv_sec;
}
