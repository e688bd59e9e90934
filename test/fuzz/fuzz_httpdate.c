/*
 * fuzz_httpdate.c
 *		Any bytes as the value of Retry-After.
 *
 * The value comes from the network and is not terminated: nothing beyond its
 * length may be read, and whatever comes out must be a delay between nothing
 * and the cap.  The input is copied to a block of exactly its size, so that
 * the address sanitizer sees a byte too far.  libFuzzer entry point; the first
 * 8 bytes are the current time.
 */
#include "postgres.h"

#include "../../src/httpdate.h"

extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	RetryRetryAfter after;
	int64		now;
	int64		delay;
	char	   *value;

	if (size < sizeof(now))
		return 0;
	memcpy(&now, data, sizeof(now));
	now %= INT64CONST(1000000000000);
	size -= sizeof(now);
	value = malloc(size);
	memcpy(value, data + sizeof(now), size);
	after = retry_after_parse(value, size, now);
	delay = retry_after_delay_us(&after, now * 1000000, RETRY_AFTER_CAP_US);
	free(value);
	if (after.kind == RETRY_AFTER_NONE ? delay != -1 : (delay < 0 || delay > RETRY_AFTER_CAP_US))
		abort();
	return 0;
}
