/*
 * uuid7.c
 *		Makes and reads UUIDs of version 7.
 *
 * PostgreSQL has its own only from version 18 on, and a batch of a million
 * needs ids that ascend in the order of the array, which is more than a
 * millisecond's resolution gives.  So the 12 bits after the version carry the
 * fraction of the millisecond (RFC 9562, 6.2, method 3), and an id that would
 * not be greater than the one before becomes the one before plus one.
 */
#include "postgres.h"

#include "uuid7.h"

/* Fractions of a millisecond that 12 bits can tell apart. */
#define FRACTIONS	4096

/*
 * The clock may fall behind the last id by this much before it counts again:
 * ten seconds, or 40 million ids made for one moment.
 */
#define MAX_AHEAD	(UINT64CONST(10000) * FRACTIONS)

#define EPOCH_SHIFT_US \
	((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY)

void
retry_uuid7_make(RetryUuid7State *state, TimestampTz now,
				 const uint8 random[RETRY_UUID7_RANDOM], pg_uuid_t *id)
{
	int64		unix_us = now + EPOCH_SHIFT_US;
	uint64		count;
	uint64		ms;

	if (unix_us < 0)
		unix_us = 0;
	count = (uint64) (unix_us / 1000) * FRACTIONS +
		(uint64) (unix_us % 1000) * FRACTIONS / 1000;
	if (count <= state->last && state->last - count < MAX_AHEAD)
		count = state->last + 1;
	state->last = count;

	ms = count / FRACTIONS;
	for (int i = 0; i < 6; i++)
		id->data[i] = (uint8) (ms >> (40 - 8 * i));
	id->data[6] = 0x70 | (uint8) ((count % FRACTIONS) >> 8);
	id->data[7] = (uint8) (count % FRACTIONS);
	memcpy(&id->data[8], random, RETRY_UUID7_RANDOM);
	id->data[8] = 0x80 | (id->data[8] & 0x3F);
}

bool
retry_uuid7_time(const pg_uuid_t *id, TimestampTz *time)
{
	uint64		ms = 0;
	uint64		fraction;

	if ((id->data[6] & 0xF0) != 0x70 || (id->data[8] & 0xC0) != 0x80)
		return false;
	for (int i = 0; i < 6; i++)
		ms = (ms << 8) | id->data[i];
	fraction = ((uint64) (id->data[6] & 0x0F) << 8) | id->data[7];

	/* rounded up, because making the fraction rounded down */
	*time = (TimestampTz) (ms * 1000 + (fraction * 1000 + FRACTIONS - 1) / FRACTIONS) - EPOCH_SHIFT_US;
	return true;
}

void
retry_uuid7_bound(TimestampTz time, pg_uuid_t *id)
{
	int64		ms;

	memset(id, 0, sizeof(*id));
	if (time > PG_INT64_MAX - EPOCH_SHIFT_US)
		ms = PG_INT64_MAX;
	else
		ms = (time + EPOCH_SHIFT_US) / 1000 - 1;	/* see above: rounded up */
	ms = Min(Max(ms, 0), (INT64CONST(1) << 48) - 1);
	for (int i = 0; i < 6; i++)
		id->data[i] = (uint8) (ms >> (40 - 8 * i));
}
