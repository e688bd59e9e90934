/*
 * fuzz_ratelimit_header.c
 *		Any bytes as header fields that speak of limits.
 *
 * Names and values come from the network and are not terminated: nothing
 * beyond their length may be read, and whatever comes out must be a wait
 * between nothing and the cap.  Each field is copied to a block of exactly its
 * size, so that the address sanitizer sees a byte too far.  libFuzzer entry
 * point; the first 8 bytes are the current time, then lines.
 */
#include "postgres.h"

#include "../../src/ratelimit_header.h"

static const char *const names[] = {
	"RateLimit", "RateLimit-Remaining", "RateLimit-Reset", "X-RateLimit-Remaining",
	"X-RateLimit-Reset", "X-RateLimit-Reset-After", "X-Rate-Limit-Reset"
};

/* The first byte of a line names the header, or none of them: then it does itself. */
static void
one_line(RetryRateLimit *limit, const char *line, size_t len, int64 now)
{
	int			which;
	char	   *copy;

	if (len == 0)
		return;
	which = (unsigned char) line[0] % (lengthof(names) + 1);
	line++, len--;
	copy = malloc(len);
	memcpy(copy, line, len);
	if (which < (int) lengthof(names))
		retry_ratelimit_field(limit, names[which], strlen(names[which]), copy, len, now);
	else
		retry_ratelimit_field(limit, copy, len, "0", 1, now);
	free(copy);
}

extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	RetryRateLimit limit = {{0}};
	const char *at;
	const char *end;
	int64		now;
	int64		wait;

	if (size < sizeof(now))
		return 0;
	memcpy(&now, data, sizeof(now));
	now %= INT64CONST(1000000000000);
	at = (const char *) data + sizeof(now);
	end = (const char *) data + size;
	while (at < end)
	{
		const char *newline = memchr(at, '\n', end - at);
		const char *stop = newline != NULL ? newline : end;

		one_line(&limit, at, stop - at, now);
		at = newline != NULL ? newline + 1 : end;
	}
	wait = retry_ratelimit_wait_us(&limit, now * 1000000, RETRY_AFTER_CAP_US);
	if (wait < 0 || wait > RETRY_AFTER_CAP_US)
		abort();
	return 0;
}
